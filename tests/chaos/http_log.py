"""HTTP as a careful client speaks it, with every answer noted: how long it took, what it said, what it must not say."""

import contextlib
import http.client
import re
import select
import socket
import time
from dataclasses import dataclass

from jobs.ids import ID_LENGTH
from tests import client
from tests.event_stream import Stream

ANSWER_SECONDS = 5.0  # within which everything that waits for nothing is answered
ROOM_SECONDS = 20.0  # for which an upload waits for room, as the contract says
PATIENCE_SECONDS = 45.0  # after which this client takes a server for dead
SILENCE_SECONDS = 20.0  # events are never silent for so long: a comment comes every 15 s
_ID = re.compile(rf"[a-z2-7]{{{ID_LENGTH}}}")


class Unanswered(Exception):
    """Raised when no whole answer came: what was asked may have been done or not."""


class Answer(client.Answer):
    """One whole answer, whatever it is."""

    @property
    def code(self):
        """The stable code of a problem document; empty for anything else."""
        if self.headers.get_content_type() != "application/problem+json":
            return ""
        return self.json["code"]

    @property
    def job_id(self):
        """The job that the answer is about, None when it names none."""
        found = _ID.search(self.headers.get("Location", "")) or _ID.search(self.headers.get("X-Job-Id", ""))
        return found and found[0]

    @property
    def retry_after(self):
        """The seconds that the server asks to wait, None when it does not ask."""
        value = self.headers.get("Retry-After")
        return None if value is None else float(value)


@dataclass(frozen=True)
class Piece:
    """What came of a download before it broke off; status 0: nothing."""

    status: int
    tag: str | None
    body: bytes
    is_whole: bool


class Heard:
    """An answer that goes on: events as they come, up to the end of the connection."""

    def __init__(self, stream, note_silence):
        self._stream = stream
        self._note_silence = note_silence
        self.status = stream.status
        # Of what is no stream of events everything is read at once.
        self.answer = Answer(stream.status, stream.headers, b"" if stream.status == http.client.OK else stream.read())

    def __iter__(self):
        since = time.time()
        try:
            for event in self._stream:
                since = time.time()
                yield event
        except TimeoutError as error:
            self._note_silence(error, since)
        except (OSError, http.client.HTTPException):
            return  # the server has gone: who listens comes back


class Http:
    """Asks one server. `canaries` are texts that no error may repeat."""

    def __init__(self, port, journal, canaries):
        self._port = port
        self._journal = journal
        self._canaries = canaries
        self._kept = []  # connections that have been used before

    def ask(self, method, path, body=None, headers=None, *, chunked=False, keep=False, allowed=ANSWER_SECONDS):
        """The answer; raises Unanswered. `allowed` seconds it may take once the whole request was sent.

        With `keep` on a connection that stays open, else on one of its own.
        """
        connection = (keep and self._kept_connection()) or self._new_connection()
        began = sent = time.time()
        try:
            early = self._send(connection, (method, path, body, headers or {}), chunked)
            sent = time.time()
            response = connection.getresponse()
            seconds = time.time() - sent
            answer = Answer(response.status, response.headers, response.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self._note_silence((method, path), error, began=began, sent=sent, allowed=allowed)
            raise Unanswered(str(error)) from error
        if keep and not response.will_close:
            self._kept.append(connection)
        else:
            connection.close()
        self._note((method, path), answer, began=began, seconds=seconds, allowed=allowed, early=early)
        return answer

    @property
    def host(self):
        """The server's address, as URLs have it."""
        return f"127.0.0.1:{self._port}"

    @contextlib.contextmanager
    def events(self, path, last_id):
        """What is told of the job at a path to who has heard up to `last_id`; raises Unanswered."""
        asked, began = ("GET", f"{path}/events"), time.time()

        def note_silence(error, since):
            self._note_silence(asked, error, began=began, sent=since, allowed=SILENCE_SECONDS)

        with contextlib.ExitStack() as exits:
            try:
                stream = exits.enter_context(Stream(self, path, last_id, timeout=SILENCE_SECONDS))
                heard = Heard(stream, note_silence)
            except (OSError, http.client.HTTPException) as error:
                note_silence(error, began)
                raise Unanswered(str(error)) from error
            seconds = time.time() - began
            self._note(asked, heard.answer, began=began, seconds=seconds, allowed=ANSWER_SECONDS, early=False)
            yield heard

    def begin(self, method, path, headers):
        """A connection with the head of a request sent, for a client that is not going to be careful."""
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_SECONDS)
        lines = [f"{method} {path} HTTP/1.1", "Host: chaos", *(f"{name}: {value}" for name, value in headers.items())]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection

    def piece(self, path, headers, most):
        """A piece of what is there at a path, up to `most` bytes; then the client is gone."""
        began = time.time()
        status, tag, found, length = 0, None, b"", -1
        try:
            with self.begin("GET", path, {"Connection": "close", **headers}) as connection:
                response = http.client.HTTPResponse(connection)
                response.begin()
                status, seconds = response.status, time.time() - began
                tag, length = response.headers["ETag"], int(response.headers.get("Content-Length", -1))
                answer = Answer(status, response.headers, b"" if status < 400 else response.read())
                self._note(("GET", path), answer, began=began, seconds=seconds, allowed=ANSWER_SECONDS, early=False)
                found = response.read(most) if most else response.read()
        except http.client.IncompleteRead as error:
            found = error.partial
        except (OSError, http.client.HTTPException) as error:
            if not status:
                self._note_silence(("GET", path), error, began=began, sent=began, allowed=ANSWER_SECONDS)
        return Piece(status, tag, found, len(found) == length)

    def close(self):
        """Closes the connections that were kept."""
        while self._kept:
            self._kept.pop().close()

    def _kept_connection(self):
        """One that the server has not closed meanwhile: a process that ends closes those that are idle."""
        while self._kept:
            connection = self._kept.pop()
            if not select.select([connection.sock], [], [], 0)[0]:
                return connection
            connection.close()
        return None

    def _new_connection(self):
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)

    def _send(self, connection, request, chunked):
        """True when the server closed before it had all: it has answered early, or died."""
        try:
            method, path, body, headers = request
            if chunked:
                pieces = (body[start : start + 30_000] for start in range(0, len(body), 30_000))
                connection.request(method, path, pieces, headers, encode_chunked=True)
            else:
                connection.request(method, path, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            return True
        return False

    def _note(self, asked, answer, *, began, seconds, allowed, early):
        problem = answer.status >= 400
        self._journal.note(
            "http",
            method=asked[0],
            route=route(asked[1]),
            began=began,
            status=answer.status,
            code=answer.code,
            seconds=round(seconds, 3),
            allowed=allowed,
            retry_after=answer.retry_after,
            early=early,
            leaks=problem and any(canary.encode() in answer.body for canary in self._canaries),
        )

    def _note_silence(self, asked, error, *, began, sent, allowed):
        seconds = round(time.time() - sent, 3)
        self._journal.note(
            "silence",
            method=asked[0],
            route=route(asked[1]),
            began=began,
            seconds=seconds,
            allowed=allowed,
            error=repr(error),
        )


def route(path):
    """The path without what differs between jobs."""
    return _ID.sub("<id>", path.partition("?")[0])
