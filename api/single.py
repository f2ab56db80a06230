"""One input: read from a JSON body, checked against the manifest, accepted."""

from collections.abc import Callable, Collection, Mapping

from flask import request

from api.body import current_body
from api.content import content
from api.context import current, put_tickets, tenant
from api.idempotency import current_key
from api.problems import Problem
from jobs.codec.json_text import Number, dumps, loads
from jobs.record import Job, ModelVersion
from models.catalog import Feature, Manifest
from models.rows import RowError, arrange, read_cell

LARGER = "Send a larger batch to POST /jobs as application/x-ndjson or text/csv."

# The input does not say what it has to. Any other error of a row, also one that can be foreseen, is what came of a
# prediction: it has a job (contract, section 3).
_REFUSED_AT_ONCE = frozenset({"invalid_number", "missing_value"})


def read_document(fields: Collection[str], elsewhere: Collection[str] = ()) -> dict[str, object]:
    """The JSON object in the body, which may have `fields` and no others; raises Problem or InvalidJson.

    A field that is known `elsewhere` is let through too, for the caller to say where.
    """
    if request.method != "POST" and not current_body().announced:
        raise Problem(400, "empty_body", 'The request has no body. Send one like {"input": …}.')
    document = loads(b"".join(content(current().settings.max_json_body_bytes, LARGER)))
    if not isinstance(document, dict):
        raise Problem(422, "not_an_object", 'The body is no JSON object. Send one like {"input": …}.')
    unknown = [name for name in document if name not in fields and name not in elsewhere]
    if unknown:
        detail = f"The body has fields that are not known here. Known are: {', '.join(sorted(fields))}."
        raise Problem(422, "unknown_field", detail, errors=[{"field": name[:100]} for name in unknown])
    return document


def find_model(document: Mapping[str, object]) -> Manifest:
    """The model that the query names, else the document, else the default. Raises UnknownModel."""
    named = document.get("model")
    if named is not None and (not isinstance(named, str) or isinstance(named, Number)):
        raise Problem(422, "invalid_model", "The field model is no text. Send a name, or name@version.")
    return current().catalog.find(request.args.get("model") or named or None)


def default_hint(fields: Mapping[str, object]) -> str:
    """What to tell a client whose columns do not fit, if neither the query nor `fields` name a model."""
    if request.args.get("model") or fields.get("model"):
        return ""
    catalog = current().catalog
    return (
        f" The request names no model, so the default model {catalog.default} was used. Name one with ?model=; "
        f"known are: {', '.join(catalog.names)}."
    )


def accept_single(document: Mapping[str, object], on_id: Callable[[str], None] | None = None) -> Job:
    """Accepts the prediction of the document's `input`; `on_id` is told its id before the store is.

    Raises UnknownModel, RowError or Problem for an input that is no row of the model's, SameRequest and KeyRefused.
    """
    manifest = find_model(document)
    key = current_key()
    facts = (tenant(), version_of(manifest), checked_input(document, manifest, default_hint(document)))
    job, tickets = current().store.intake.accept_single(
        *facts, key=key.digest, fingerprint=key.fingerprint, on_id=on_id
    )
    if tickets:
        put_tickets(current(), tickets)
    return job


def checked_input(document: Mapping[str, object], manifest: Manifest, hint: str = "") -> str:
    """The document's `input` as JSON by feature name; `hint` is for who left values out. Raises RowError or Problem."""
    sent = _named(document["input"], manifest, hint)
    for feature in manifest.features:
        _check_cell(sent[feature.name], feature, manifest)
    return dumps(sent)


def _check_cell(cell: object, feature: Feature, manifest: Manifest) -> None:
    try:
        read_cell(cell, feature, manifest.accepts_infinite)
    except RowError as error:
        if error.code in _REFUSED_AT_ONCE:
            raise


def version_of(manifest: Manifest) -> ModelVersion:
    """What a job records of the model it was accepted for."""
    return ModelVersion(manifest.name, manifest.version, manifest.sha256)


def _named(value: object, manifest: Manifest, hint: str) -> dict[str, object]:
    """The input as an object: the features in the model's order, then what else it has."""
    names = manifest.feature_names
    if not isinstance(value, dict):
        return dict(zip(names, arrange(value, manifest), strict=True))
    missing = [name for name in names if name not in value]
    if missing:
        detail = f"The model needs values that are not in the input: {', '.join(missing[:10])}. Add them.{hint}"
        errors = [{"code": "missing_columns", "column": name} for name in missing]
        raise Problem(422, "missing_columns", detail, errors=errors)
    return {name: value[name] for name in names} | value
