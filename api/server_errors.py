"""Requests that the server refuses before the app sees them: they are answered with problem documents too."""

import contextlib
import json
import logging
import socket
import traceback
import uuid
from typing import Any

from api.closing import finish

LINGER_SECONDS = 1.0  # for a client that is still sending its headers
SEND_SECONDS = 1.0
# Gunicorn's errors, by name: the API does not depend on the server it runs under. Any other error of a request's
# syntax is a malformed request, and what is no such error is the server's own.
_KINDS = {
    403: {"ForbiddenProxyRequest"},
    414: {"LimitRequestLine"},
    417: {"ExpectationFailed"},
    431: {"LimitRequestHeaders"},
    503: {"ConfigurationProblem", "InvalidResponseHeader", "InvalidResponseHeaderName"},
}
# By status; everything else is a malformed request.
_REFUSALS = {
    403: ("forbidden", "This connection is not taken here."),
    414: ("uri_too_long", "The request line is too long. Put what is long into the body."),
    417: ("expectation_failed", "The Expect header is not understood. Leave it out."),
    431: ("headers_too_large", "The headers are too many or too long. Send fewer, or shorter ones."),
    503: ("internal_error", "Something went wrong here. Try again in some seconds."),
}
_MALFORMED = ("malformed_request", "The request cannot be read as HTTP. Correct it and send it again.")

log = logging.getLogger(__name__)


class ProblemErrors:
    """Mixed into a class of gunicorn's workers, it answers as the app would."""

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:  # noqa: ANN401
        """Answers and logs instead of gunicorn, whose answer is HTML and whose words may repeat headers."""
        status = _status(exc)
        if status == 503:
            # The frames without the exception's text, which can hold what a client sent.
            frames = "".join(traceback.format_tb(exc.__traceback__))
            log.error("a request met %s\n%s", type(exc).__name__, frames)
        else:
            log.warning("a request cannot be read: %s", type(exc).__name__)
        with contextlib.suppress(OSError):
            client.settimeout(SEND_SECONDS)
            client.sendall(_answer(status))
        finish(client, LINGER_SECONDS)


def _status(error: Exception) -> int:
    kind = type(error)
    if kind.__module__ != "gunicorn.http.errors":
        return 503
    return next((status for status, names in _KINDS.items() if kind.__name__ in names), 400)


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
