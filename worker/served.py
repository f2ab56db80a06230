"""Which model versions this worker has: what it announces, and what it takes work for."""

import logging

from jobs.record import ModelVersion
from models.catalog import Catalog

log = logging.getLogger(__name__)


class Served:
    """The model versions of the catalog, less those whose files turn out to be missing."""

    def __init__(self, catalog: Catalog) -> None:
        self._versions = {
            manifest.key: ModelVersion(manifest.name, manifest.version, manifest.sha256)
            for manifest in catalog.manifests
        }

    @property
    def keys(self) -> list[str]:
        """Their keys."""
        return list(self._versions)

    def __contains__(self, model_key: str) -> bool:
        return model_key in self._versions

    def version(self, model_key: str) -> ModelVersion:
        """The version with this key."""
        return self._versions[model_key]

    def refused(self, model_key: str, code: str, message: str) -> bool:
        """The predictor cannot load a version. True when others may: this worker has it no longer, then."""
        log.error("the predictor refused %s: %s: %s", model_key, code, message)
        if code != "model_unavailable":
            return False
        self._versions.pop(model_key, None)
        return True
