"""Telling plain requests for a prediction from all others, by their bytes."""

import re
from dataclasses import dataclass
from functools import lru_cache

from gunicorn.config import Config
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from api.lane import Plain

MOST_HEAD_BYTES = 4096
_BEGINNING = b"POST /predict"
_QUERY = re.compile(r"(?:model=([A-Za-z0-9._@-]{1,200}))?")
_END = b"\r\n\r\n"
# What clients and routers send that changes no answer. With any other header a request is not plain.
_WITHOUT_MEANING = frozenset(
    """
    ACCEPT ACCEPT-ENCODING ACCEPT-LANGUAGE BAGGAGE CACHE-CONTROL CONNECT-TIME DATE FORWARDED ORIGIN PRAGMA REFERER
    SEC-FETCH-DEST SEC-FETCH-MODE SEC-FETCH-SITE TOTAL-ROUTE-TIME TRACEPARENT TRACESTATE USER-AGENT VIA
    X-FORWARDED-FOR X-FORWARDED-HOST X-FORWARDED-PORT X-FORWARDED-PROTO X-REAL-IP X-REQUEST-START
    """.split()  # noqa: SIM905
)
_ALLOWED = {
    "HOST": re.compile(r"[A-Za-z0-9.:\[\]-]+"),
    "CONNECTION": re.compile(r"keep-alive", re.IGNORECASE),
    "CONTENT-TYPE": re.compile(r"application/json(; ?charset=utf-8)?", re.IGNORECASE),
    "CONTENT-LENGTH": re.compile(r"[0-9]{1,9}"),
    "X-REQUEST-ID": re.compile(r".*"),
}


class Incomplete(Exception):
    """Raised when more has to come before anything can be said."""


class Unusual(Exception):
    """Raised when a request is not plain."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a plain request: the length of its body, and if they are there its X-Request-Id and `?model=`."""

    body_bytes: int
    sent_id: str
    model: str


class PlainRequests:
    """Reads requests as the server does, with its own parser; heads that come again and again are read once."""

    def __init__(self, config: Config, most_body_bytes: int) -> None:
        self._config = config
        self._most_body_bytes = most_body_bytes
        self._read_head = lru_cache(maxsize=256)(self._parse_head)

    def read(self, received: bytes) -> Plain:
        """The one request that was received. Raises Incomplete or Unusual."""
        if not received.startswith(_BEGINNING[: len(received)]):
            raise Unusual
        end = received.find(_END, 0, MOST_HEAD_BYTES)
        if end < 0:
            raise Incomplete if len(received) < MOST_HEAD_BYTES else Unusual
        body_at = end + len(_END)
        head = self._read_head(received[:body_at])
        if head is None:
            raise Unusual
        missing = body_at + head.body_bytes - len(received)
        if missing:
            raise Incomplete if missing > 0 else Unusual  # the client's next request came along
        return Plain(received[body_at:], head.model, head.sent_id)

    def _parse_head(self, head: bytes) -> Head | None:
        """None when it is not that of a plain request, or of none at all."""
        try:
            # An address that may forward: what only those may send is a header without a place here, whoever sends it.
            request = Request(self._config, IterUnreader([head]), ("127.0.0.1", 0))
        except Exception:  # who reads it next says what is wrong with it
            return None
        query = _QUERY.fullmatch(request.query)
        if (request.method, request.path, request.version) != ("POST", "/predict", (1, 1)) or query is None:
            return None
        headers = [(name, value) for name, value in request.headers if name not in _WITHOUT_MEANING]
        found = dict(headers)
        is_plain = (
            {"HOST", "CONTENT-TYPE", "CONTENT-LENGTH"} <= found.keys()
            and len(found) == len(headers)
            and all(name in _ALLOWED and _ALLOWED[name].fullmatch(value) for name, value in headers)
            and int(found["CONTENT-LENGTH"]) <= self._most_body_bytes
        )
        return Head(int(found["CONTENT-LENGTH"]), found.get("X-REQUEST-ID", ""), query[1] or "") if is_plain else None
