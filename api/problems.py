"""Every error as a problem document (RFC 9457): the only file that knows which error is which HTTP status."""

import logging
import traceback
from collections.abc import Mapping, Sequence
from functools import singledispatch
from urllib.parse import quote

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from api.presentation import moment
from jobs.codec.json_text import InvalidJson, dumps
from jobs.codec.layout import LayoutError
from jobs.errors import JobGone, KeyRefused, MoveRefused, StoreAway, StoreFull, UnknownJob, UploadRefused
from jobs.splitter import SplitError
from models.catalog import UnknownModel
from models.rows import RowError

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 100  # so many entries of `errors` are shown; `errors_total` counts all
LONGEST_INSTANCE = 300  # characters of the request's path that an error repeats
AWAY_SECONDS = 2  # a store that restarts is back after some seconds
IN_USE_SECONDS = 5  # an upload that lost its web process is given up after two of these
FULL_SECONDS = 30  # a full store has room again when jobs expire, not before

# What a client sent is refused as malformed, but for these: it was readable and does not fit the model.
_UNPROCESSABLE = frozenset({"missing_columns", "unknown_column"})

log = logging.getLogger(__name__)


class Problem(Exception):
    """Raised when a request cannot be answered as asked; becomes the answer.

    `code` is stable and for programs, `detail` says what to do next. `errors` lists what is wrong where it is more
    than one thing. No row value may stand in any of them.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, object]] = (),
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = errors


def register(app: Flask) -> None:
    """Answers every exception of the app's views with a problem document."""
    app.register_error_handler(Exception, _answer)


def to_response(problem: Problem) -> Response:
    """The problem document of RFC 9457, with this project's `code`, `errors` and `errors_total`."""
    document: dict[str, object] = {
        "type": f"urn:queuecast:problem:{problem.code}",
        "title": problem.code.replace("_", " ").capitalize(),
        "status": problem.status,
        "detail": problem.detail,
        "instance": quote(request.path)[:LONGEST_INSTANCE],
        "code": problem.code,
    }
    if problem.errors:
        document["errors"] = [dict(error) for error in problem.errors[:MOST_ERRORS]]
        document["errors_total"] = len(problem.errors)
    response = Response(dumps(document) + "\n", problem.status, content_type=MEDIA_TYPE)
    response.headers["Cache-Control"] = "no-store"
    response.headers.update(problem.headers)
    return response


def _answer(error: Exception) -> Response:
    return to_response(as_problem(error))


@singledispatch
def as_problem(error: Exception) -> Problem:
    """The problem that an exception is to the client; what nobody foresaw is logged and a 503.

    503 and not 500: the contract promises no other 5xx, and trying again is the advice either way.
    """
    # The frames without the exceptions' texts, which can hold what a client sent.
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("request %s met %s\n%s", g.get("request_id", "-"), type(error).__name__, frames)
    detail = "Something went wrong here. Try again in some seconds; if it stays, report the X-Request-Id."
    return Problem(503, "internal_error", detail, headers=_retry_after(AWAY_SECONDS))


@as_problem.register
def _(error: Problem) -> Problem:
    return error


@as_problem.register
def _(error: HTTPException) -> Problem:
    status = error.code or 400
    if status == 404:
        return Problem(404, "unknown_route", "Nothing is here. GET /models and GET /jobs are good places to start.")
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        detail = f"This route does not take {request.method}. Use one of: {allowed}."
        return Problem(405, "method_not_allowed", detail, headers={"Allow": allowed})
    code = error.name.lower().replace(" ", "_")
    return Problem(status, code, error.description or "The request cannot be read; correct it.")


@as_problem.register
def _(error: UnknownJob) -> Problem:
    return Problem(404, "unknown_job", "There is no such job. Use the id that POST /jobs answered, or GET /jobs.")


_GONE = {
    "job_expired": "The job's time was over{when}. Send its input again for new results.",
    "job_deleted": "The job was deleted{when}. Send its input again for new results.",
    "upload_failed": "The upload of this job did not reach its end{when}, so it was taken back. Send it again.",
    "job_lost": "The store that held this job came back empty{when}. Send its input again.",
}


@as_problem.register
def _(error: JobGone) -> Problem:
    when = "" if error.at is None else f" at {moment(error.at)}"
    return Problem(410, error.reason, _GONE[error.reason].format(when=when))


_REFUSED = {
    "job_canceled": (409, "The job was canceled while its body arrived. Send it again if that was not meant."),
    "job_deleted": (409, "The job was deleted while its body arrived. Send it again if that was not meant."),
    "upload_failed": (410, "The upload was silent for too long and was taken back. Send it again."),
}


@as_problem.register
def _(error: UploadRefused) -> Problem:
    # Whatever else is said of an upload that is gone, to its client it is the same.
    reason = error.reason if error.reason in _REFUSED else "upload_failed"
    status, detail = _REFUSED[reason]
    return Problem(status, reason, detail)


_KEY_REFUSED = {
    "idempotency_key_in_use": (
        409,
        "A request with this Idempotency-Key is being received or answered. Wait for its answer, or send yours later.",
    ),
    "idempotency_key_reused": (
        422,
        "This Idempotency-Key came with another request: the method, path, query or body is not the same. Send a new "
        "key with a new request.",
    ),
}


@as_problem.register
def _(error: KeyRefused) -> Problem:
    status, detail = _KEY_REFUSED[error.reason]
    return Problem(status, error.reason, detail, headers=_retry_after(IN_USE_SECONDS) if status == 409 else None)


@as_problem.register
def _(error: MoveRefused) -> Problem:
    detail = f"The job has {error.current.value}, so there is nothing left to cancel. Its results are there."
    return Problem(409, "job_ended", detail)


@as_problem.register
def _(error: StoreAway) -> Problem:
    detail = "The queue does not answer. Try again in some seconds."
    return Problem(503, "queue_unavailable", detail, headers=_retry_after(AWAY_SECONDS))


@as_problem.register
def _(error: StoreFull) -> Problem:
    detail = "The store has no room for this now. Try again later, or delete jobs whose results you have."
    if error.needed_bytes is not None and error.free_bytes is not None:
        needed, free = error.needed_bytes / 1e6, error.free_bytes / 1e6
        detail = (
            f"This takes about {needed:.1f} MB of the store, and {free:.1f} MB are free. Keep fewer columns (?keep=), "
            "send a smaller batch, delete jobs whose results you have, or try again later."
        )
    return Problem(507, "storage_full", detail, headers=_retry_after(FULL_SECONDS))


@as_problem.register
def _(error: UnknownModel) -> Problem:
    known = ", ".join(error.known) or "none"
    detail = f"There is no such model. Known are: {known}. One that was added has to wait for a restart of the servers."
    return Problem(404, "unknown_model", detail)


@as_problem.register
def _(error: SplitError) -> Problem:
    how = ", like Content-Type: text/csv; charset=utf-16" if error.code == "encoding" else ""
    return Problem(400, error.code, error.detail + how)


@as_problem.register
def _(error: LayoutError) -> Problem:
    status = 422 if error.code in _UNPROCESSABLE else 400
    columns = [{"code": error.code, "column": column} for column in error.columns]
    return Problem(status, error.code, error.detail, errors=columns)


@as_problem.register
def _(error: InvalidJson) -> Problem:
    return Problem(400, "invalid_json", f"The JSON cannot be read: {error.detail}. Correct it and send it again.")


@as_problem.register
def _(error: RowError) -> Problem:
    where = [] if error.column is None else [{"code": error.code, "column": error.column}]
    return Problem(422, error.code, f"{error.message}. Correct the input and send it again.", errors=where)


def _retry_after(seconds: int) -> dict[str, str]:
    return {"Retry-After": str(seconds)}
