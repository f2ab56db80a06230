"""What is known of every model without loading any: the manifests and the catalog of them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from models import fields

Class = str | int | float | bool

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")  # a folder's name and part of an URL on every system
FEATURE_TYPES = ("number", "text")
SHA256 = re.compile(r"[0-9a-f]{64}")
ARTIFACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # a file in the version's own folder and nowhere else
NOT_EMPTY = re.compile(r"(?s).+")
TASKS = ("regression", "classification", "clustering", "outlier_detection")


class ModelsError(Exception):
    """Raised when something is wrong with a model, a manifest or the models folder."""


class UnknownModel(ModelsError):
    """Raised when no model, or no such version of it, is in the catalog."""

    def __init__(self, reference: str, known: Sequence[str]) -> None:
        self.reference = reference
        self.known = tuple(known)
        super().__init__(f"There is no model {reference!r}; known are: {', '.join(known) or 'none'}.")


class UnknownDefault(ModelsError):
    """Raised when the model of requests that name none is not in the catalog."""

    def __init__(self, reference: str, path: Path, known: Sequence[str]) -> None:
        self.reference = reference
        self.known = tuple(known)
        super().__init__(
            f"DEFAULT_MODEL is {reference!r}, and {path} has no such model: set it to one of {', '.join(known)}"
        )


class BadManifest(ModelsError):
    """Raised when a manifest is not what `python -m models add` writes."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"The manifest {path} is broken: {reason}. Add the model again, or correct the file.")


@dataclass(frozen=True)
class Feature:
    """One input of a model."""

    name: str
    type: str
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] | None = None
    accepts_missing: bool = False
    accepts_unknown: bool = True

    @cached_property
    def known(self) -> frozenset[str]:
        """The categories, for asking whether one is among them."""
        return frozenset(self.categories or ())


@dataclass(frozen=True)
class Manifest:
    """What is known of one version of a model; the file beside its artifact holds exactly this."""

    name: str
    version: str
    sha256: str
    artifact: str
    task: str
    features: tuple[Feature, ...]
    target: str
    classes: tuple[Class, ...] | None
    has_probabilities: bool
    accepts_infinite: bool
    needs_frame: bool
    metrics: Mapping[str, float]
    rows: int | None
    library_versions: Mapping[str, str]
    created_at: str
    description: str

    @property
    def key(self) -> str:
        """Names exactly this state of the model, also when a version was replaced by other bytes."""
        return f"{self.name}@{self.version}:{self.sha256[:12]}"

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """The features' names in the order in which the model takes them."""
        return tuple(feature.name for feature in self.features)

    def to_json(self) -> dict[str, object]:
        """The manifest as JSON values, as the file and `GET /models/<name>` show it."""
        # Through JSON, so that tuples are lists whoever writes it, and nothing that is not JSON gets out.
        value: dict[str, object] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return value

    @classmethod
    def from_json(cls, value: object) -> "Manifest":
        """The manifest that `to_json` gave; ValueError names the first field that is not as it must be."""
        known = fields.as_object(value, "the manifest")
        return cls(
            name=fields.matching(known, "name", NAME),
            version=fields.matching(known, "version", NAME),
            sha256=fields.matching(known, "sha256", SHA256),
            artifact=fields.matching(known, "artifact", ARTIFACT),
            task=fields.one_of(known, "task", TASKS),
            features=_features(fields.take(known, "features", list)),
            target=fields.take(known, "target", str),
            classes=_classes(known),
            has_probabilities=fields.take(known, "has_probabilities", bool),
            accepts_infinite=fields.take(known, "accepts_infinite", bool),
            needs_frame=fields.take(known, "needs_frame", bool),
            metrics=fields.numbers(known, "metrics"),
            rows=None if known.get("rows") is None else fields.take(known, "rows", int),
            library_versions=fields.texts(known, "library_versions"),
            created_at=fields.take(known, "created_at", str),
            description=fields.take(known, "description", str),
        )


class Catalog:
    """All models of a folder, by name and version, as their manifests tell."""

    def __init__(self, path: Path, manifests: Sequence[Manifest], default: str) -> None:
        self.path = path
        self.default = default
        self._versions: dict[str, tuple[Manifest, ...]] = {}
        for manifest in sorted(manifests, key=lambda manifest: (manifest.name, _natural(manifest.version))):
            self._versions[manifest.name] = (*self._versions.get(manifest.name, ()), manifest)

    @classmethod
    def read(cls, path: Path, default: str) -> "Catalog":
        """The catalog of the folder `path`; `default` is the reference that stands for "no model named".

        Raises BadManifest for a manifest that cannot be used, UnknownDefault when there are models and the default,
        unless it is empty, is none of them, ModelsError when there is no such folder.
        """
        if not path.is_dir():
            raise ModelsError(f"There is no models folder {path}.")
        # A name with a leading dot is a version that is being written (see models.add).
        found = [file for file in path.glob("*/*/manifest.json") if not file.parent.name.startswith(".")]
        catalog = cls(path, [_read(file) for file in found], default)
        catalog._check_default()
        return catalog

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names, sorted."""
        return tuple(self._versions)

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """Every version of every model, sorted by name, oldest version first."""
        return tuple(manifest for versions in self._versions.values() for manifest in versions)

    def versions(self, name: str) -> tuple[Manifest, ...]:
        """The versions of one model, oldest first; raises UnknownModel."""
        if name not in self._versions:
            raise UnknownModel(name, self.names)
        return self._versions[name]

    def find(self, reference: str | None) -> Manifest:
        """The version that `name@version` names, the newest of `name`, the default for None; raises UnknownModel."""
        wanted = self.default if reference is None else reference
        name, at, version = wanted.partition("@")
        if name not in self._versions:
            raise UnknownModel(wanted, self.names)
        if not at:
            return self._versions[name][-1]
        for manifest in self._versions[name]:
            if manifest.version == version:
                return manifest
        raise UnknownModel(wanted, [f"{name}@{manifest.version}" for manifest in self._versions[name]])

    def _check_default(self) -> None:
        if not self.default or not self.names:
            return
        try:
            self.find(self.default)
        except UnknownModel as error:
            raise UnknownDefault(self.default, self.path, error.known) from None

    def directory(self, manifest: Manifest) -> Path:
        """The folder that holds this version's manifest and artifact."""
        return self.path / manifest.name / manifest.version


def read_manifest(path: Path, name: str, version: str) -> Manifest | None:
    """The manifest of one version below the models folder `path`, None when there is none; raises BadManifest."""
    if not NAME.fullmatch(name) or not NAME.fullmatch(version):
        return None
    file = path / name / version / "manifest.json"
    return _read(file) if file.is_file() else None


def _read(file: Path) -> Manifest:
    try:
        manifest = Manifest.from_json(json.loads(file.read_bytes(), parse_constant=_refuse_constant))
    except (OSError, ValueError, RecursionError) as error:
        raise BadManifest(file, str(error)) from error
    if (manifest.name, manifest.version) != (file.parent.parent.name, file.parent.name):
        raise BadManifest(file, f"it says {manifest.name}@{manifest.version}, its folders say otherwise")
    return manifest


def _natural(version: str) -> list[str | int]:
    """Sorts 2 before 10: runs of digits compare as numbers, what stands between them as text.

    Splitting by a group puts text at even and digits at odd places, so like always meets like. The version itself
    comes last, so that 1 and 01 have an order too.
    """
    parts = re.split(r"([0-9]+)", version)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)] + [version]


def _features(values: Sequence[object]) -> tuple[Feature, ...]:
    features = tuple(_feature(fields.as_object(value, "a feature")) for value in values)
    if not features or len({feature.name for feature in features}) < len(features):
        raise ValueError("features must be there and differ in their names")
    return features


def _feature(known: Mapping[str, object]) -> Feature:
    return Feature(
        name=fields.matching(known, "name", NOT_EMPTY),
        type=fields.one_of(known, "type", FEATURE_TYPES),
        minimum=fields.number_or_none(known, "minimum"),
        maximum=fields.number_or_none(known, "maximum"),
        categories=fields.tuple_or_none(known, "categories", str),
        accepts_missing=fields.take(known, "accepts_missing", bool),
        accepts_unknown=fields.take(known, "accepts_unknown", bool),
    )


def _classes(known: Mapping[str, object]) -> tuple[Class, ...] | None:
    classes = fields.tuple_or_none(known, "classes", object) or ()
    plain = tuple(item for item in classes if isinstance(item, str | int | float))
    if len(plain) < len(classes):
        raise ValueError("classes must be texts, numbers or booleans")
    return plain or None


def _refuse_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")
