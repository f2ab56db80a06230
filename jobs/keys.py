"""Names of keys and ids, and texts as the store gives them."""

import base64
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

PREFIX = "qc:"
GENERATION = PREFIX + "generation"
GENERATION_LENGTH = 6
ID_LENGTH = GENERATION_LENGTH + 26  # 26 characters of base 32 carry 130 bits, 128 of them random
ID_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz234567")


def job_key(job_id: str, part: str | None = None) -> str:
    """The key of a job's record, or of one of its parts."""
    return f"{PREFIX}job:{job_id}:{part}" if part else f"{PREFIX}job:{job_id}"


def new_token() -> str:
    """A proof of holding something: nobody else can guess it."""
    return secrets.token_hex(8)


def new_inbox_ticket_id() -> str:
    """The id of a ticket for an inbox; while the ticket is on its way it is also the inbox's mark."""
    return "inbox-" + secrets.token_hex(8)


def looks_like_id(text: str) -> bool:
    """Whether a job could have this id; what comes from outside is checked before it becomes part of a key."""
    return len(text) == ID_LENGTH and ID_ALPHABET.issuperset(text)


def random_id() -> str:
    """What makes an id unguessable."""
    return base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()


def text(value: Any) -> str:  # noqa: ANN401 - the client library says so too
    """What the store holds as bytes, as text."""
    return value.decode() if isinstance(value, bytes) else value


def texts(values: Iterable[bytes]) -> list[str]:
    """Several of them."""
    return [text(value) for value in values]


def fields(record: Mapping[Any, Any]) -> dict[str, str]:
    """A hash of the store, as text."""
    return {text(name): text(value) for name, value in record.items()}
