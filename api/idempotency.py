"""`Idempotency-Key`: a request that is sent again finds the job that it made the first time."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import cast

from flask import g, request

from api.context import current, tenant
from api.decoding import UTF_8
from api.problems import Problem
from jobs.codec.json_text import dumps
from jobs.errors import KeyRefused, SameRequest
from jobs.record import Job

# Visible ASCII and spaces. A comma only within quotes: servers join several lines of a header by commas, and two keys
# are no key. The IETF draft has a quoted string here; without quotes is what clients send.
_VALUE = re.compile(r'(?=.{1,255}$)(?:[!-+\--~ ]+|"(?:[ !#-\[\]-~]|\\["\\])*")')


class IdempotencyKey:
    """The idempotency key of one request, and the fingerprint that tells this request from others.

    The client's text is nowhere but in the digest. Without a key nothing is computed, and both are empty.
    """

    def __init__(self, value: str | None) -> None:
        self.digest = "" if value is None else sha256(value.encode()).hexdigest()
        self._seen = sha256()
        if self.digest:
            query = request.query_string.decode("latin-1")
            # The same bytes in another charset, or as another form of body, are other rows.
            kind = (request.mimetype, request.mimetype_params.get("charset", ""))
            self._add(request.method, request.path, query, tenant(), *kind)

    @property
    def fingerprint(self) -> str:
        """Of method, path, query, tenant, kind of body, and of the body as far as it has come by."""
        return self._seen.hexdigest() if self.digest else ""

    def seen(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces of the decoded body, which become a part of the fingerprint as they come by."""
        return self._watched(pieces) if self.digest else pieces

    def add_fields(self, fields: Mapping[str, str], charset: str) -> None:
        """Makes the fields of a form, whatever their order, and its file's charset a part of the fingerprint.

        How UTF-8 is said, or not said, in the file's part is framing; in another charset the same bytes are other rows.
        """
        if self.digest:
            said = [] if charset == UTF_8 else [charset]
            self._add(*said, *(text for field in sorted(fields.items()) for text in field))

    def _add(self, *texts: str) -> None:
        self._seen.update(dumps(texts).encode() + b"\n")

    def _watched(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._seen.update(piece)
            yield piece


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job of a request; `replayed` when the same request has made it before."""

    job: Job
    replayed: bool

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says of that."""
        return {"Idempotency-Replayed": "true"} if self.replayed else {}


def current_key() -> IdempotencyKey:
    """The key of the current request. Raises Problem."""
    if "idempotency_key" not in g:
        g.idempotency_key = IdempotencyKey(_read_value())
    return cast(IdempotencyKey, g.idempotency_key)


def once(accept: Callable[[], Job], read_again: Callable[[], object]) -> Accepted:
    """The job that `accept` makes of the current request, or the one that the same request with the same key has made.

    `read_again` has to let the body come by for its fingerprint, and to do nothing else. Raises KeyRefused, JobGone
    and what the two raise.
    """
    key, store = current_key(), current().store
    bound = store.intake.find_key(tenant(), key.digest) if key.digest else None
    if bound is None:
        try:
            return Accepted(accept(), replayed=False)
        except SameRequest as same:  # it was accepted since we looked
            return Accepted(store.find(same.job_id, tenant()), replayed=True)
    read_again()
    if key.fingerprint != bound.fingerprint:
        raise KeyRefused("idempotency_key_reused")
    return Accepted(store.find(bound.job_id, tenant()), replayed=True)


def _read_value() -> str | None:
    value = request.headers.get("Idempotency-Key")  # several lines of it are joined by commas
    if value is None:
        return None
    if not _VALUE.fullmatch(value):
        detail = (
            "The Idempotency-Key is not 1 to 255 visible ASCII characters in one header line; a comma has to stand in "
            "quotes. Send a UUID, say."
        )
        raise Problem(400, "invalid_idempotency_key", detail)
    return value
