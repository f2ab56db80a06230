"""Loads a model after its digest was checked. Only the predicting process, and who adds a model, import this."""

import hashlib
import io
import warnings
from pathlib import Path
from typing import NoReturn

import joblib
import sklearn
from sklearn.exceptions import InconsistentVersionWarning

from models.catalog import BadManifest, Manifest, ModelsError, read_manifest
from models.estimator import Estimator
from models.predictor import Predictor


class CannotLoad(ModelsError):
    """Raised when a model cannot be loaded; `code` says why, the message what to do."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


def load(catalog_path: Path, name: str, version: str, sha256: str) -> Predictor:
    """The predictor of exactly that state of a model, its bytes checked before anything in them runs.

    Raises CannotLoad: `model_unavailable`, `model_corrupt` or `model_load_failed`; and MemoryError.
    """
    manifest = _wanted_manifest(catalog_path, name, version, sha256)
    artifact = _checked_bytes(catalog_path / name / version / manifest.artifact, manifest)
    fitted_with = manifest.library_versions.get("scikit-learn")
    if fitted_with != sklearn.__version__:
        _refuse_version(str(fitted_with))
    return Predictor(manifest, estimator_in(unpickle(artifact)))


def unpickle(artifact: bytes) -> object:
    """What the bytes of a pickle or a joblib file hold. The code in them runs: pass only bytes whose origin is known.

    Raises CannotLoad(`model_load_failed`), or MemoryError, for which the model may not be to blame: other models may
    take what it lacks. This is the only place where anything is unpickled.
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
    except MemoryError:
        raise
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


def _wanted_manifest(catalog_path: Path, name: str, version: str, sha256: str) -> Manifest:
    """The manifest of exactly that state of a model. Raises CannotLoad."""
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
