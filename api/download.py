"""Answers with results: conditional requests, ranges, and bodies that are cut off when what they hold has gone."""

import errno
import hashlib
import logging
import socket
import struct
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from flask import Response, request

from api import ranges
from api.media import Form
from api.problems import Problem
from api.ranges import Piece, Span
from jobs.errors import JobGone, StoreAway, UnknownJob
from jobs.record import Job

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Download:
    """What is sent: of which job, in which form, with which options, and what follows the job in the file's name."""

    job: Job
    form: Form
    options: str = ""
    suffix: str = ""

    @property
    def etag(self) -> str:
        """Names exactly these bytes (a strong validator): the outcomes of an ended job never change."""
        key = f"{self.job.id} {self.suffix} {self.form.name} {self.options}"
        return f'"{hashlib.sha256(key.encode()).hexdigest()[:32]}"'

    @property
    def file_name(self) -> str:
        """A name that is safe on every system: a model's name and a job's id have no other characters."""
        return f"{self.job.model.name}-{self.job.id}{self.suffix}.{self.form.name}"


def streamed(download: Download, body: Iterator[bytes]) -> Response:
    """The answer with a body whose length nobody knows yet; an unended job's may differ from the next one."""
    if _is_known(download):
        return _not_modified(download)
    return _response(download, _started(body, download.job))


def measured(download: Download, parts: Iterable[Piece]) -> Response:
    """The answer with the pieces of an ended job, or the range of them that was asked for."""
    if _is_known(download):
        return _not_modified(download)
    pieces = list(parts)  # only now: to know a length can take some reading
    length = sum(piece.length for piece in pieces)
    span = _wanted(download, length)
    body = ranges.within(pieces, span or Span(0, length))
    response = _response(download, _started(body, download.job))
    response.headers["Accept-Ranges"] = "bytes"
    response.content_length = (span or Span(0, length)).length
    if span:
        response.status_code = 206
        response.headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{length}"
    return response


def _is_known(download: Download) -> bool:
    return download.job.ended and request.if_none_match.contains_weak(download.etag.strip('"'))


def _not_modified(download: Download) -> Response:
    response = Response(status=304)
    del response.headers["Content-Type"]
    response.headers.update(_validators(download))
    return response


def _wanted(download: Download, length: int) -> Span | None:
    # A range of a HEAD means nothing, and If-Range asks for all when it does not name these very bytes; a date or a
    # weak tag never does (RFC 9110, sections 13.1.5 and 14.2).
    if request.method != "GET" or request.headers.get("If-Range", download.etag) != download.etag:
        return None
    try:
        return ranges.wanted(request.headers.get("Range"), length)
    except ranges.UnsatisfiableRange as error:
        detail = f"The results have {error.length} bytes, and none of the range is among them. Ask for less."
        headers = {"Content-Range": f"bytes */{error.length}"}
        raise Problem(416, "range_not_satisfiable", detail, headers=headers) from None


def _response(download: Download, body: Iterator[bytes]) -> Response:
    response = Response(body, content_type=download.form.content_type)
    response.headers["Accept-Ranges"] = "none"
    response.headers["Content-Disposition"] = f'attachment; filename="{download.file_name}"'
    response.headers.update(_validators(download))
    return response


def _validators(download: Download) -> dict[str, str]:
    if not download.job.ended:
        return {"Vary": "Accept", "Cache-Control": "no-store"}
    # Kept copies are asked about before they are used: the job may have been deleted.
    return {"Vary": "Accept", "Cache-Control": "private, no-cache", "ETag": download.etag}


def _started(body: Iterator[bytes], job: Job) -> Iterator[bytes]:
    """The body, its first two pieces already read: what fails until then (the header never does) is answered."""
    if request.method == "HEAD":
        return iter(())
    first = list(islice(body, 2))
    # HTTP/1.0 knows the end of such a body by the end of the connection alone, so a cut must not look like an end.
    connection = request.environ.get("gunicorn.socket") if request.environ["SERVER_PROTOCOL"] == "HTTP/1.0" else None
    return _or_cut(chain(first, body), job, connection)


def _or_cut(body: Iterator[bytes], job: Job, connection: socket.socket | None) -> Iterator[bytes]:
    """The body; where it cannot go on the connection is cut, so that the client sees that it is incomplete."""
    try:
        yield from body
    except Exception as error:
        expected = isinstance(error, JobGone | UnknownJob | StoreAway)
        # The frames without the exception's text, which can hold what a client sent.
        frames = "" if expected else "\n" + "".join(traceback.format_tb(error.__traceback__))
        log.warning("the download of job %s was cut: %s%s", job.id, type(error).__name__, frames)
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()  # with a reset
        # To gunicorn as if the client had gone: it closes the connection without an end of the body.
        raise ConnectionResetError(errno.ECONNRESET, "the body cannot go on") from None
