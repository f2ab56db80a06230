"""The body of a request as a stream of pieces: exactly as long as announced, no larger than allowed, never too slow.

Flask's own readers are not used: they hold a body whole, and take one whose client went away for a complete one.
"""

import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from flask import request

from api.problems import Problem
from settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

ENVIRON_KEY = "queuecast.body"
PIECE_BYTES = 64 * 1024
TICK_SECONDS = 1.0  # how often a silent client gives others a turn: see `Body.while_waiting`
GRACE_SECONDS = 20.0  # a body's pace is judged from here on: the first seconds of a connection say little


class Body:
    """The body of one request; it can be read once."""

    def __init__(self, environ: "WSGIEnvironment", settings: Settings) -> None:
        self._environ = environ
        self._settings = settings
        self._finished = False
        self._while_waiting: Callable[[], None] = _do_nothing
        self._watched: _WatchedSocket | None = None
        self.chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
        self.length = _content_length(environ)

    @property
    def announced(self) -> bool:
        """Whether the request says how its body ends."""
        return self.chunked or self.length is not None

    @property
    def unread(self) -> bool:
        """Whether the client may still be sending."""
        return not self._finished and (self.chunked or bool(self.length))

    def while_waiting(self, call: Callable[[], None]) -> None:
        """Has `call` called about once a second while the client is silent; what it raises ends the reading."""
        self._while_waiting = call

    def release(self) -> None:
        """Ends the reading, if it has begun: the connection is needed for the answer."""
        if self._watched is not None:
            self._watched.release()

    def pieces(self, most: int, advice: str) -> Iterator[bytes]:
        """The body's bytes as they arrive, without transfer coding.

        Raises Problem: `body_too_large` above `most` bytes, with `advice`, before anything is read if the length was
        announced; `incomplete_body`, `malformed_body`, `body_too_slow`.
        """
        if (self.length or 0) > most:
            raise too_large(most, advice)
        received = 0
        for piece in self._raw_pieces():
            received += len(piece)
            if received > most:
                raise too_large(most, advice)
            yield piece
        self._finished = True

    def _raw_pieces(self) -> Iterator[bytes]:
        source = self._environ["wsgi.input"]
        reader: Any = getattr(source, "reader", None)
        if not self.unread:
            return iter(())
        if hasattr(reader, "parser"):
            return self._with_patience(reader.req.unreader, _chunked_pieces(reader))
        if hasattr(reader, "unreader"):
            return self._with_patience(reader.unreader, _sized_pieces(reader))
        return self._plain_pieces(source)

    def _with_patience(self, unreader: Any, pieces: Iterator[bytes]) -> Iterator[bytes]:  # noqa: ANN401 - gunicorn's
        """Gunicorn's pieces, the client's socket being watched at the one place where all its bytes come in."""
        watched = _WatchedSocket(unreader, self._settings, self._give_a_turn)
        unreader.sock = self._watched = watched
        try:
            yield from pieces
        except Exception as error:
            # By name: the API does not depend on the server it runs under.
            if type(error).__module__ != "gunicorn.http.errors":
                raise
            raise (_incomplete() if watched.ended else _malformed()) from None

    def _give_a_turn(self) -> None:
        """Calls what is to be called by now: of a form that is only known when its file has begun."""
        self._while_waiting()

    def _plain_pieces(self, source: Any) -> Iterator[bytes]:  # noqa: ANN401 - any WSGI server's input
        """The pieces from a server that is not gunicorn; only the test client and development servers come here."""
        left = self.length
        while left is None or left > 0:
            piece = source.read(PIECE_BYTES if left is None else min(PIECE_BYTES, left))
            if not piece:
                break
            left = None if left is None else left - len(piece)
            yield piece
        if left:
            raise _incomplete()


class _WatchedSocket:
    """Stands in for the client's socket while a body is read, and refuses to wait for a client that is too slow.

    Only the time spent waiting for the client counts: a server that is slow itself blames nobody.
    """

    def __init__(self, unreader: Any, settings: Settings, while_waiting: Callable[[], None]) -> None:  # noqa: ANN401
        self.ended = False  # the client has closed its side
        self._unreader = unreader
        self._socket: socket.socket = unreader.sock
        self._settings = settings
        self._while_waiting = while_waiting
        self._received = 0
        self._waited = 0.0

    def recv(self, size: int) -> bytes:
        """The next bytes, none when the client went away; raises Problem `body_too_slow`."""
        silent = 0.0
        while True:
            patience = min(self._settings.body_idle_seconds - silent, self._allowed_seconds() - self._waited)
            if patience <= 0:
                raise self._too_slow()
            began = time.monotonic()
            data = self._receive(size, min(patience, TICK_SECONDS))
            passed = time.monotonic() - began
            self._waited += passed
            if data is not None:
                self._received += len(data)
                self.ended = not data
                return data
            silent += passed
            self._while_waiting()

    def release(self) -> None:
        """Puts the client's own socket back, blocking as gunicorn has it."""
        self._unreader.sock = self._socket
        self._socket.settimeout(None)

    def _receive(self, size: int, seconds: float) -> bytes | None:
        self._socket.settimeout(max(seconds, 0.001))  # 0 would mean: do not wait at all
        try:
            return self._socket.recv(size)
        except TimeoutError:
            return None
        except ConnectionError:
            return b""

    def _allowed_seconds(self) -> float:
        """How long the client may have kept us waiting for what it has sent so far."""
        slowest = self._settings.min_body_bytes_per_second
        return max(GRACE_SECONDS, self._received / slowest) if slowest else float("inf")

    def _too_slow(self) -> Problem:
        slowest, idle = self._settings.min_body_bytes_per_second, self._settings.body_idle_seconds
        limits = f"no silence above {idle:g} s, and {slowest} bytes a second on average"
        return Problem(408, "body_too_slow", f"The body came too slowly. Send it again with {limits}.")


def current_body() -> Body:
    """The body of the current request."""
    body: Body = request.environ[ENVIRON_KEY]
    return body


def too_large(most: int, advice: str) -> Problem:
    """What a body above `most` bytes is refused with."""
    return Problem(413, "body_too_large", f"The body is larger than {most} bytes. {advice}")


def _chunked_pieces(reader: Any) -> Iterator[bytes]:  # noqa: ANN401 - gunicorn's ChunkedReader
    """What gunicorn's chunk parser gives, as it arrives; the reader's own read() waits until a size is full."""
    yield from reader.parser


def _sized_pieces(reader: Any) -> Iterator[bytes]:  # noqa: ANN401 - gunicorn's LengthReader
    """What has arrived, up to the announced length; the reader's own read() waits until a size is full."""
    unreader = reader.unreader
    while reader.length:
        piece = unreader.read(None, read_ahead=reader.length)
        if not piece:
            raise _incomplete()
        if len(piece) > reader.length:  # the client's next request came along
            unreader.unread(piece[reader.length :])
            piece = piece[: reader.length]
        reader.length -= len(piece)
        yield piece


def _content_length(environ: "WSGIEnvironment") -> int | None:
    """The announced length; a text that is no length is the server's to refuse (RFC 9112, section 6.3)."""
    text = environ.get("CONTENT_LENGTH") or ""
    return int(text) if text.isascii() and text.isdigit() else None


def _incomplete() -> Problem:
    return Problem(400, "incomplete_body", "The body ended before its announced end. Send the request again.")


def _malformed() -> Problem:
    return Problem(400, "malformed_body", "The chunks of the body are not framed as HTTP asks. Send it with a length.")


def _do_nothing() -> None:
    pass
