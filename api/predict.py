"""`/predict`: one prediction, answered in place, through the queue all the same."""

from collections.abc import Mapping
from contextlib import suppress

from flask import Blueprint, Response, g, request

from api.answers import accepted, json_answer, told
from api.context import current
from api.given_back import Returned
from api.idempotency import Accepted, current_key, once
from api.problems import AWAY_SECONDS, Problem
from api.single import accept_single, read_document
from api.waiting import asked_wait, client_is_gone, waiting
from jobs.errors import KeyRefused, StoreAway
from jobs.record import Job
from jobs.status import Status

blueprint = Blueprint("predict", __name__)

# A job that failed for the server's reasons; any other code is what the model made of the row.
_OUR_FAULT = frozenset({"model_unavailable", "model_corrupt", "model_load_failed", "deadline_exceeded"})


@blueprint.route("/predict", methods=["GET", "POST"])
def predict() -> Response:
    """One prediction now, or a job if it takes longer than the wait. `GET` is how the tutorial asks."""
    wait = asked_wait(current().settings.predict_wait_seconds)
    returned: Returned = g.returned
    # Who has waited in the fast lane looks at the record once more, however short the wait is.
    with waiting(max(wait.seconds - returned.waited_seconds, 0.001 * returned.has_seat)) as waiter:
        found = _accepted(returned) or once(lambda: accept_single(_read(), waiter.expect), _read)
        job = found.job
        with suppress(StoreAway):  # it is accepted all the same: the client is told where to find it
            job = waiter.until_end(job)
    headers = {"X-Job-Id": job.id, "X-Model": job.model.label} | found.headers
    in_place = job.ended and wait.applied != "respond-async"
    if current_key().digest:
        _settle_key(job, in_place)
    response = wait.note(_answer(job, headers) if in_place else accepted(job), waiter.is_seated)
    response.headers.update(headers)
    return response


def _accepted(returned: Returned) -> Accepted | None:
    """The job of a request that the fast lane has accepted, or raises the error that it met."""
    if returned.came_of is None:
        return None
    _read()  # the body would stay in the connection
    if isinstance(returned.came_of, Exception):
        raise returned.came_of
    return Accepted(returned.came_of, replayed=False)


def _read() -> dict[str, object]:
    if request.mimetype != "application/json":
        detail = 'Only application/json is taken here, like {"input": …}. Send a CSV to POST /jobs.'
        raise Problem(415, "unsupported_media_type", detail, headers={"Accept-Post": "application/json"})
    document = read_document({"input", "model"}, elsewhere={"inputs"})
    if "inputs" in document:
        raise Problem(422, "inputs_not_here", "One input is taken here. Send inputs to POST /jobs.")
    if "input" not in document:
        raise Problem(422, "missing_input", 'The body has no input. Send one like {"input": …}.')
    return document


def _settle_key(job: Job, in_place: bool) -> None:
    """What becomes of the idempotency key that the request came with. Raises KeyRefused, StoreAway and JobGone."""
    intake = current().store.intake
    # A 202 says that the job can be found by its key, so that has to be sure before it is given, if anybody hears it.
    if not in_place and not client_is_gone() and not intake.keep_key(job):
        current().store.find(job.id, job.tenant)  # raises what is known of it when it is gone
        # The same request was answered a moment ago that the job came to nothing.
        raise KeyRefused("idempotency_key_in_use")
    if in_place and _came_to_nothing(job):
        # Asked again with its key, it would only be told the same again.
        intake.free_key(job)


def _came_to_nothing(job: Job) -> bool:
    """Whether it ended without a word from the model."""
    return job.status is Status.CANCELED or (job.status is Status.FAILED and job.error_code in _OUR_FAULT)


def _answer(job: Job, headers: Mapping[str, str]) -> Response:
    if job.status is Status.CANCELED:
        detail = "The prediction was canceled. Ask again if that was not meant."
        raise Problem(409, "job_canceled", detail, headers=headers)
    if job.status is Status.FAILED:
        raise _failure(job, headers)
    return json_answer(told(job.result or "{}", request.args.get("probabilities") == "true"))


def _failure(job: Job, headers: Mapping[str, str]) -> Problem:
    code, message = job.error_code or "model_error", job.error_message or "the model made nothing of this input"
    if code in _OUR_FAULT:
        return Problem(503, code, message, headers={**headers, "Retry-After": str(AWAY_SECONDS)})
    where = [{"code": code, "column": job.error_column}] if job.error_column else []
    return Problem(422, code, message, headers=headers, errors=where)
