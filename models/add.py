"""Makes a fitted estimator servable: finds out what it takes and gives, and writes a version of a model."""

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path

import sklearn
from sklearn.exceptions import InconsistentVersionWarning

from models import estimator as told
from models.catalog import NAME, Feature, Manifest, ModelsError
from models.estimator import Estimator
from models.loading import CannotLoad, estimator_in, unpickle
from models.probe import CannotPredict, Row, SeveralOutputs, probe
from models.rows import Value, read_cell
from models.sample import Sample, numbers

ARTIFACT = "model.pkl"
ANY_TARGET = "prediction"  # what a model predicts when nobody says
LIBRARIES = ("scikit-learn", "numpy", "pandas", "joblib")
FILLERS = (1.0, 0.0, 0.5)  # values for numbers of which nothing is known; a logarithm refuses one, a ratio another


class CannotAdd(ModelsError):
    """Raised when a file cannot be added as a model; the message says what to do."""


@dataclass(frozen=True)
class Added:
    """A version that can now be served, and an input that it is known to predict."""

    manifest: Manifest
    example: Mapping[str, Value]


def add(
    models_path: Path,
    name: str,
    artifact: bytes,
    *,
    version: str | None = None,
    sample: Sample | None = None,
    target: str = ANY_TARGET,
    description: str = "",
    metrics: Mapping[str, float] | None = None,
    rows: int | None = None,
    probing: bool = True,
    replacing: bool = False,
) -> Added:
    """Adds the estimator in `artifact` (its bytes are kept as they are) and says what was found.

    `rows` is the number of rows it was trained with. Without `probing` nothing is predicted, and the manifest says that
    the model accepts nothing unusual. Raises CannotAdd and the other errors of this package.
    """
    version = version or next_version(models_path, name)
    _check_names(models_path / name / version, name, version, replacing)
    estimator = estimator_in(_unpickled(artifact))
    draft = Manifest(
        name=name,
        version=version,
        sha256=hashlib.sha256(artifact).hexdigest(),
        artifact=ARTIFACT,
        task=told.task(estimator),
        features=_features(estimator, sample, target),
        target=target,
        classes=_classes(estimator),
        has_probabilities=False,
        accepts_infinite=False,
        needs_frame=False,
        metrics=dict(metrics or {}),
        rows=rows,
        library_versions=_library_versions(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        description=description,
    )
    candidates = _candidates(draft.features, sample)
    manifest, row = _probe(draft, estimator, candidates, sample) if probing else (draft, candidates[0])
    _write(models_path / name / version, manifest, artifact, replacing)
    return Added(manifest, dict(zip(manifest.feature_names, row, strict=True)))


def next_version(models_path: Path, name: str) -> str:
    """The number after the highest numbered version of a model, "1" for a new one."""
    found = [int(folder.name) for folder in (models_path / name).glob("*") if folder.name.isdecimal()]
    return str(max(found, default=0) + 1)


def _check_names(folder: Path, name: str, version: str, replacing: bool) -> None:
    for text, what in ((name, "name"), (version, "version")):
        if not NAME.fullmatch(text):
            raise CannotAdd(
                f"The {what} {text!r} cannot be used: take lower-case letters, digits, '_', '.' and '-', 64 at most, "
                "the first one a letter or a digit."
            )
    if folder.exists() and not replacing:
        raise CannotAdd(f"{name}@{version} is already there; leave out --version for the next free one.")


def _unpickled(artifact: bytes) -> object:
    try:
        return unpickle(artifact)
    except MemoryError:
        raise CannotAdd("Loading the model takes more memory than there is here: add it where there is more.") from None
    except CannotLoad as error:
        cause = error.__cause__
        if isinstance(cause, InconsistentVersionWarning):
            raise CannotAdd(
                f"The model was saved with scikit-learn {cause.original_sklearn_version}, and workers here have "
                f"{sklearn.__version__}. Where it was trained: pip install scikit-learn=={sklearn.__version__}, then "
                "fit it, save it and add it again."
            ) from None
        if isinstance(cause, AttributeError):
            raise CannotAdd(
                "The model needs a class or function that is not found here. Move it into a module that is installed "
                "where the workers run, or lies in the project's folder, import it from there where the model is "
                "trained, then fit it, save it and add it again."
            ) from cause
        raise


def _features(estimator: Estimator, sample: Sample | None, target: str) -> tuple[Feature, ...]:
    names = _names(estimator, sample, target)
    if sample is not None:
        _check_target(sample, target, names)
    known = told.categories(estimator, names)
    return tuple(_feature(name, known.get(name, []), sample.cells(name) if sample else []) for name in names)


def _names(estimator: Estimator, sample: Sample | None, target: str) -> tuple[str, ...]:
    names = told.feature_names(estimator)
    if names is not None:
        return names
    count = told.feature_count(estimator)
    if sample is None:
        if count is None:
            raise CannotAdd("The model does not tell its columns. Is it fitted? If so, pass --sample rows.csv.")
        return tuple(f"x{place}" for place in range(count))
    columns = tuple(column for column in sample.columns if column != target)
    if count is not None and len(columns) != count:
        raise CannotAdd(
            f"The model was fitted on {count} columns without names, the sample has {len(columns)}: "
            "leave only the model's columns in it, in their order (and name the one it predicts by --target)."
        )
    return columns


def _check_target(sample: Sample, target: str, names: Sequence[str]) -> None:
    """A sample may hold the features alone; if it holds more, the target should be there, or it is misspelled."""
    others = [column for column in sample.columns if column not in names]
    if others and target not in (ANY_TARGET, *sample.columns):
        raise CannotAdd(
            f"The sample has no column {target!r}; beside the model's features it has: {', '.join(others)}. "
            "Name one of them by --target, or leave them out of the sample."
        )


def _feature(name: str, known: Sequence[object], cells: Sequence[str]) -> Feature:
    """What encoders and the sample tell of one feature; encoders know what the model was really fitted on."""
    texts = tuple(category for category in known if isinstance(category, str))
    if texts:
        return Feature(name, "text", categories=texts)
    values = numbers(cells)
    if values is None:
        return Feature(name, "text")
    values = values or [float(category) for category in known if isinstance(category, int | float)]
    ordered = sorted(value for value in values if value == value)  # noqa: PLR0124 - leaves out NaN
    return Feature(name, "number", ordered[0], ordered[-1]) if ordered else Feature(name, "number")


def _classes(estimator: Estimator) -> tuple[str | int | float | bool, ...] | None:
    try:
        return told.classes(estimator)
    except ValueError as error:
        raise CannotAdd(f"The model cannot be served: {error}.") from error


def _candidates(features: Sequence[Feature], sample: Sample | None) -> list[Row]:
    """Rows that the model should be able to predict: the sample's, else made of what is known of its features."""
    if sample is None:
        return [[_likely(feature, filler) for feature in features] for filler in FILLERS]
    columns = [[_lenient(cell, feature) for cell in sample.cells(feature.name)] for feature in features]
    return [list(row) for row in zip(*columns, strict=True)]


def _likely(feature: Feature, filler: float) -> Value:
    if feature.categories:
        return feature.categories[0]
    return filler if feature.minimum is None else feature.minimum


def _lenient(cell: str, feature: Feature) -> Value:
    return read_cell(cell, Feature(feature.name, feature.type, accepts_missing=True), False)


def _probe(
    draft: Manifest, estimator: Estimator, candidates: Sequence[Row], sample: Sample | None
) -> tuple[Manifest, Row]:
    try:
        return probe(draft, estimator, candidates)
    except SeveralOutputs as error:
        raise CannotAdd(f"The model cannot be served: {error}.") from None
    except CannotPredict as error:
        what = "a row of the sample" if sample else "a row of made-up numbers"
        hint = "" if sample else " If it takes text columns or needs other numbers, pass --sample rows.csv."
        raise CannotAdd(f"The model cannot predict {what}: {error}.{hint}") from error


def _library_versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {library: installed_version(library) for library in LIBRARIES}


def _write(folder: Path, manifest: Manifest, artifact: bytes, replacing: bool) -> None:
    """Writes a version so that a reader sees all of it or nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The leading dot keeps the catalog from reading it before it is complete.
    unfinished = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        (unfinished / manifest.artifact).write_bytes(artifact)
        text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False)
        (unfinished / "manifest.json").write_text(text + "\n", encoding="utf-8")
        unfinished.chmod(0o755)
        if replacing:
            shutil.rmtree(folder, ignore_errors=True)
        os.rename(unfinished, folder)
    except OSError as error:
        raise CannotAdd(f"{manifest.name}@{manifest.version} cannot be written: {error}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
