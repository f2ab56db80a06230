"""Loads a model after its digest was checked, and predicts rows with it. Only the predicting process imports this."""

import hashlib
import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
import sklearn
from sklearn.exceptions import InconsistentVersionWarning

from models.catalog import BadManifest, Class, Manifest, ModelsError, read_manifest
from models.estimator import Estimator, categories, plain
from models.rows import RowError, Value, read_row


class CannotLoad(ModelsError):
    """Raised when a model cannot be loaded; `code` says why, the message what to do."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one row; probabilities stand in the order of the manifest's classes."""

    value: Class
    probabilities: tuple[float, ...] | None = None


Outcome = Prediction | RowError


class Answer(NamedTuple):
    """What the model said of a block of rows."""

    values: Any
    probabilities: Any


def load(catalog_path: Path, name: str, version: str, sha256: str) -> "Predictor":
    """The predictor of exactly that state of a model, its bytes checked before anything in them runs.

    Raises CannotLoad: `model_unavailable`, `model_corrupt` or `model_load_failed`.
    """
    manifest = _wanted_manifest(catalog_path, name, version, sha256)
    artifact = _checked_bytes(catalog_path / name / version / manifest.artifact, manifest)
    fitted_with = manifest.library_versions.get("scikit-learn")
    if fitted_with != sklearn.__version__:
        _refuse_version(str(fitted_with))
    return Predictor(manifest, estimator_in(unpickle(artifact)))


def unpickle(artifact: bytes) -> object:
    """What the bytes of a pickle or a joblib file hold. The code in them runs: pass only bytes whose origin is known.

    Raises CannotLoad(`model_load_failed`). This is the only place where anything is unpickled.
    """
    try:
        with warnings.catch_warnings():
            # Across versions an estimator often loads and then predicts something else: only a warning tells.
            warnings.simplefilter("error", InconsistentVersionWarning)
            return joblib.load(io.BytesIO(artifact))
    except InconsistentVersionWarning as error:
        _refuse_version(error.original_sklearn_version, error)
    except ModuleNotFoundError as error:
        raise CannotLoad(
            "model_load_failed", f"The model needs the module {error.name!r}: install it where the workers run."
        ) from error
    except Exception as error:  # a pickle may raise anything
        reason = f"Loading the model raised {type(error).__name__}: save it again with pickle or joblib and add it."
        raise CannotLoad("model_load_failed", reason) from error


def estimator_in(loaded: object) -> Estimator:
    """The estimator itself, or the one in the tutorial's {"model": estimator}; raises CannotLoad."""
    estimator = loaded.get("model") if isinstance(loaded, dict) else loaded
    if isinstance(estimator, type) or not callable(getattr(estimator, "predict", None)):
        raise CannotLoad(
            "model_load_failed",
            f"The file holds no estimator but a {type(loaded).__name__}: save the fitted estimator itself, "
            'or {"model": estimator}.',
        )
    return estimator


class Predictor:
    """One loaded model."""

    def __init__(self, manifest: Manifest, estimator: Estimator) -> None:
        self.manifest = manifest
        self._estimator = estimator
        known = categories(estimator, manifest.feature_names)
        # An encoder that was fitted on None takes NaN for something it has never seen, and the other way round.
        self._absent = [None if None in known.get(name, ()) else np.nan for name in manifest.feature_names]

    def read(self, rows: Sequence[Sequence[object]]) -> list[list[Value] | RowError]:
        """Each row's values, or what is wrong with it; cells stand in the model's feature order."""
        return [self._read_row(cells) for cells in rows]

    def predict(self, rows: Sequence[Sequence[Value]]) -> list[Outcome]:
        """One outcome a row, in order, for rows that `rows.read_row` has read.

        When the model raises, the block is halved until the rows that make it raise stand alone.
        """
        if not rows:
            return []
        try:
            answer = self.ask(rows)
        except Exception as error:  # a model may raise anything
            return self._halve(rows, error)
        return self._outcomes(answer, len(rows))

    def ask(self, rows: Sequence[Sequence[Value]]) -> Answer:
        """The model's own answer to a block of rows; raises whatever the model raises."""
        block = self.build_block(rows)
        with warnings.catch_warnings():
            # Columns were matched by name already; an array is faster, and all that is missed is the names.
            warnings.filterwarnings("ignore", "X (has|does not have valid) feature names", UserWarning)
            values = np.asarray(self._estimator.predict(block))
            probabilities = None
            if self.manifest.has_probabilities:
                probabilities = np.asarray(self._estimator.predict_proba(block), dtype=np.float64)
        if values.ndim == 2 and values.shape[1] == 1:  # fitted on a target of one column
            values = values[:, 0]
        return Answer(values, probabilities)

    def build_block(self, rows: Sequence[Sequence[Value]]) -> npt.NDArray[np.float64] | pd.DataFrame:
        """The rows as the estimator takes them: an array, or a frame where it chooses columns by name."""
        if not self.manifest.needs_frame:
            return np.array(rows, dtype=np.float64, order="C")  # None becomes NaN
        columns = zip(*rows, strict=True)
        features = zip(self.manifest.features, self._absent, columns, strict=True)
        return pd.DataFrame(
            {
                feature.name: _text_column(cells, absent) if feature.type == "text" else np.array(cells, np.float64)
                for feature, absent, cells in features
            }
        )

    def _read_row(self, cells: Sequence[object]) -> list[Value] | RowError:
        try:
            return read_row(cells, self.manifest)
        except RowError as error:
            return error

    def _halve(self, rows: Sequence[Sequence[Value]], error: Exception) -> list[Outcome]:
        if len(rows) == 1:
            # The exception's text may hold the row's values, its type does not.
            return [_model_error(f"the model raised {type(error).__name__}")]
        middle = len(rows) // 2
        return [*self.predict(rows[:middle]), *self.predict(rows[middle:])]

    def _outcomes(self, answer: Answer, count: int) -> list[Outcome]:
        if answer.values.shape != (count,):
            return [_model_error("the model did not give one prediction for each row")] * count
        values = answer.values.tolist()
        if answer.probabilities is None:
            return [_outcome(plain(value), None) for value in values]
        if answer.probabilities.shape != (count, len(self.manifest.classes or ())):
            return [_model_error("the model did not give one probability for each class")] * count
        pairs = zip(values, answer.probabilities.tolist(), strict=True)
        return [_outcome(plain(value), tuple(probabilities)) for value, probabilities in pairs]


def _outcome(value: object, probabilities: tuple[float, ...] | None) -> Outcome:
    if not isinstance(value, str | int | float):
        return _model_error("the prediction is neither a number nor text nor a boolean")
    numbers = [value] if isinstance(value, float) else []
    if not all(map(math.isfinite, (*numbers, *(probabilities or ())))):
        return RowError("not_finite", None, "the prediction is not a finite number")
    return Prediction(value, probabilities)


def _model_error(message: str) -> RowError:
    return RowError("model_error", None, message)


def _text_column(cells: Sequence[Value], absent: float | None) -> pd.Series:
    column = np.empty(len(cells), dtype=object)
    column[:] = [absent if cell is None else cell for cell in cells]
    # A plain array of objects would become a column of pandas' own text type, in which None turns into NaN.
    return pd.Series(column, dtype=object)


def _wanted_manifest(catalog_path: Path, name: str, version: str, sha256: str) -> Manifest:
    try:
        manifest = read_manifest(catalog_path, name, version)
    except BadManifest as error:
        raise CannotLoad("model_load_failed", f"The manifest of {name}@{version} is broken: add it again.") from error
    if manifest is None or manifest.sha256 != sha256:
        raise CannotLoad(
            "model_unavailable",
            f"{name}@{version} with the digest {sha256[:12]} is not here: deploy the release that has it.",
        )
    return manifest


def _checked_bytes(file: Path, manifest: Manifest) -> bytes:
    reference = f"{manifest.name}@{manifest.version}"
    try:
        artifact = file.read_bytes()
    except OSError as error:
        raise CannotLoad("model_unavailable", f"The artifact of {reference} cannot be read: add it again.") from error
    if hashlib.sha256(artifact).hexdigest() != manifest.sha256:
        raise CannotLoad("model_corrupt", f"The artifact of {reference} is not the one that was added: add it again.")
    return artifact


def _refuse_version(fitted_with: str, cause: Exception | None = None) -> NoReturn:
    raise CannotLoad(
        "model_load_failed",
        f"The model was saved with scikit-learn {fitted_with} and {sklearn.__version__} is installed: "
        "install that version, or fit and add the model again.",
    ) from cause
