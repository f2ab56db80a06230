"""Answers that leave before the request's body was read, such that the client can read them (RFC 9112, section 9.6).

A socket that is closed while bytes wait in it is reset, and the reset overtakes the answer: common clients would see
a broken pipe and never the reason. So the answer says that the connection closes, and what still comes is read and
dropped for some seconds.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.wsgi import ClosingIterator

from api.body import ENVIRON_KEY, Body
from settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

DRAIN_SECONDS = 5.0
DRAIN_BYTES = 256 * 1024


class Closing:
    """Wraps the app: gives each request its `Body`, and closes connections so that answers arrive."""

    def __init__(self, app: "WSGIApplication", settings: Settings) -> None:
        self._app = app
        self._settings = settings

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """One request, as WSGI has it (PEP 3333)."""
        body = environ[ENVIRON_KEY] = Body(environ, self._settings)
        # Gunicorn drops a Connection header of the app's; its response object, whose method this is, does as told.
        response: Any = getattr(start_response, "__self__", None)

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:  # noqa: ANN401
            body.release()
            if body.unread:
                headers = [*headers, ("Connection", "close")]
                if hasattr(response, "force_close"):
                    response.force_close()
            return start_response(status, headers, *exc_info)

        def end() -> None:
            client = environ.get("gunicorn.socket")
            if client is not None and response is not None and response.should_close():
                finish(client, DRAIN_SECONDS if body.unread else 0)

        return ClosingIterator(self._app(environ, start), [end])


def finish(client: socket.socket, seconds: float) -> None:
    """Ends the sending side, reads and drops what comes for so long, then ends the reading side too.

    The last step spares gunicorn's main thread: there it would wait up to two seconds for the client to close, and
    nobody else would be served.
    """
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_WR)
        _drain(client, seconds)
        client.shutdown(socket.SHUT_RD)


def _drain(client: socket.socket, seconds: float) -> None:
    deadline, dropped = time.monotonic() + seconds, bytearray(DRAIN_BYTES)
    while (left := deadline - time.monotonic()) > 0:
        client.settimeout(left)
        if not client.recv_into(dropped):
            break
