"""Requests that the server refuses before the app sees them: they are answered with problem documents too."""

import contextlib
import json
import socket
import uuid
from typing import Any

from api.closing import finish

LINGER_SECONDS = 1.0  # for a client that is still sending its headers
SEND_SECONDS = 1.0
# By the status that the server chose; everything else is a malformed request.
_REFUSALS = {
    403: ("forbidden", "This connection is not taken here."),
    414: ("uri_too_long", "The request line is too long. Put what is long into the body."),
    417: ("expectation_failed", "The Expect header is not understood. Leave it out."),
    431: ("headers_too_large", "The headers are too many or too long. Send fewer, or shorter ones."),
    503: ("internal_error", "Something went wrong here. Try again in some seconds."),
}
_MALFORMED = ("malformed_request", "The request cannot be read as HTTP. Correct it and send it again.")


class ProblemErrors:
    """Mixed into a class of gunicorn's workers, it answers as the app would."""

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:  # noqa: ANN401
        """Answers what gunicorn would answer as HTML, with its status; its text may repeat headers and is dropped."""
        written = _Written()
        super().handle_error(req, written, addr, exc)  # type: ignore[misc] # gunicorn's
        with contextlib.suppress(OSError):
            client.settimeout(SEND_SECONDS)
            client.sendall(_answer(written.status))
        finish(client, LINGER_SECONDS)


class _Written:
    """Stands in for the client's socket while gunicorn writes its own answer."""

    def __init__(self) -> None:
        self._bytes = b""

    @property
    def status(self) -> int:
        """Of the answer; a 5xx that the contract does not know is one that it knows."""
        status = int(self._bytes.split(maxsplit=2)[1])
        if status == 501:  # a transfer coding that is not known: the client's to change
            return 400
        return 503 if status >= 500 else status

    def sendall(self, written: bytes) -> None:
        """Takes what gunicorn writes."""
        self._bytes += written

    def gettimeout(self) -> float:
        """0: not blocking already."""
        return 0.0


def _answer(status: int) -> bytes:
    code, detail = _REFUSALS.get(status, _MALFORMED)
    title = code.replace("_", " ").capitalize()
    document = {"type": f"urn:queuecast:problem:{code}", "title": title, "status": status, "detail": detail}
    body = json.dumps(document | {"code": code}).encode() + b"\n"
    head = [
        f"HTTP/1.1 {status} {title}",
        "Connection: close",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        f"X-Request-Id: {uuid.uuid4().hex}",
        *(["Retry-After: 2"] if status == 503 else []),
    ]
    return "\r\n".join([*head, "", ""]).encode() + body
