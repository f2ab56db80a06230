"""Names of keys, and texts as the store gives them."""

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

PREFIX = "qc:"
GENERATION = PREFIX + "generation"


def job_key(job_id: str, part: str | None = None) -> str:
    """The key of a job's record, or of one of its parts."""
    return f"{PREFIX}job:{job_id}:{part}" if part else f"{PREFIX}job:{job_id}"


def inbox_bell(model_key: str) -> str:
    """The key that is rung when a single prediction comes into an empty inbox that has a ticket."""
    return f"{PREFIX}inbox:{model_key}:bell"


def inbox_batches(model_key: str) -> str:
    """The key of the small batches that wait for whoever works on the inbox."""
    return f"{PREFIX}inbox:{model_key}:batches"


def new_token() -> str:
    """A proof of holding something: nobody else can guess it."""
    return secrets.token_hex(8)


def new_inbox_ticket_id() -> str:
    """The id of a ticket for an inbox; while the ticket is on its way it is also the inbox's mark."""
    return "inbox-" + secrets.token_hex(8)


def text(value: Any) -> str:  # noqa: ANN401 - the client library says so too
    """What the store holds as bytes, as text."""
    return value.decode() if isinstance(value, bytes) else value


def texts(values: Iterable[bytes]) -> list[str]:
    """Several of them."""
    return [text(value) for value in values]


def fields(record: Mapping[Any, Any]) -> dict[str, str]:
    """A hash of the store, as text."""
    return {text(name): text(value) for name, value in record.items()}
