"""The jobs themselves: looked at, listed, canceled, deleted."""

from flask import Blueprint, Response, request

from api.answers import conditional_job_answer, job_answer, json_answer, shown
from api.context import current, tenant
from api.problems import Problem
from api.waiting import asked_wait, waiting
from jobs.status import Status

blueprint = Blueprint("jobs", __name__)

DEFAULT_LIMIT = 20
MOST_JOBS = 100


@blueprint.get("/jobs/<job_id>")
def show(job_id: str) -> Response:
    """The job; with `?wait=` or `Prefer: wait=` once it has ended or the time is over."""
    wait = asked_wait(0)
    with waiting(wait.seconds) as waiter:
        waiter.expect(job_id)
        job = waiter.until_end(current().store.find(job_id, tenant()))
    return wait.note(conditional_job_answer(job), waiter.is_seated)


@blueprint.get("/jobs")
def show_all() -> Response:
    """The caller's jobs, newest first, page by page."""
    api = current()
    status, limit = _status(request.args.get("status")), _limit(request.args.get("limit"))
    try:
        found, cursor = api.store.listing.page(
            tenant(), status, request.args.get("model") or None, limit, request.args.get("cursor") or None
        )
    except ValueError:
        raise Problem(400, "invalid_cursor", "The cursor is not one of ours. Send next_cursor as it came.") from None
    return json_answer({"jobs": shown(found), "next_cursor": cursor})


@blueprint.post("/jobs/<job_id>/cancel")
def cancel(job_id: str) -> Response:
    """Stops a job; what was predicted so far stays."""
    return job_answer(current().store.cancel(job_id, tenant()))


@blueprint.delete("/jobs/<job_id>")
def delete(job_id: str) -> Response:
    """Erases a job's input and results now."""
    current().store.delete(job_id, tenant())
    response = Response(status=204)
    del response.headers["Content-Type"]  # of nothing
    return response


def _status(text: str | None) -> Status | None:
    if not text:
        return None
    try:
        return Status(text)
    except ValueError:
        known = ", ".join(status.value for status in Status)
        raise Problem(400, "invalid_status", f"There is no such status. Send one of: {known}.") from None


def _limit(text: str | None) -> int:
    if not text:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MOST_JOBS)) and 1 <= int(text) <= MOST_JOBS):
        raise Problem(400, "invalid_limit", f"The limit is no whole number from 1 to {MOST_JOBS}. Correct it.")
    return int(text)
