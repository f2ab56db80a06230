"""What can be predicted."""

from flask import Blueprint, Response

from api.answers import json_answer
from api.context import current
from models.catalog import Catalog, Manifest

blueprint = Blueprint("models", __name__)


@blueprint.get("/models")
def show_all() -> Response:
    """The newest version of every model, and which model is meant when none is named."""
    catalog = current().catalog
    newest = [_present(catalog.versions(name)[-1], catalog) for name in catalog.names]
    return json_answer({"default": catalog.default, "models": newest})


@blueprint.get("/models/<reference>")
def show(reference: str) -> Response:
    """One model: its newest version for `name`, the named one for `name@version`."""
    catalog = current().catalog
    return json_answer(_present(catalog.find(reference), catalog))


def _present(manifest: Manifest, catalog: Catalog) -> dict[str, object]:
    versions = [other.version for other in catalog.versions(manifest.name)]
    return manifest.to_json() | {"versions": versions}
