"""Answers that several routes give."""

import contextlib
from collections.abc import Sequence

from flask import Response

from api.context import current
from api.presentation import present, retry_seconds
from jobs.codec.json_text import dumps
from jobs.errors import StoreAway
from jobs.record import Job
from jobs.store import Ahead


def json_answer(value: object, status: int = 200) -> Response:
    """A JSON document that no cache keeps."""
    response = Response(dumps(value) + "\n", status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


def job_answer(job: Job, status: int = 200) -> Response:
    """The job, and until it has ended, when to look at it again."""
    response = json_answer(shown([job])[0], status)
    if not job.ended:
        response.headers["Retry-After"] = str(retry_seconds(job))
    return response


def shown(jobs: Sequence[Job]) -> list[dict[str, object]]:
    """The JSON of jobs; asks the store once for the attempts of them all."""
    api = current()
    attempts = api.store.attempts(jobs)
    return [present(job, api.catalog, ahead_of(job), attempts.get(job.id, ())) for job in jobs]


def accepted(job: Job) -> Response:
    """202: the job, and where to find it from now on."""
    response = job_answer(job, 202)
    response.headers["Location"] = f"/jobs/{job.id}"
    return response


def ahead_of(job: Job) -> Ahead | None:
    """The jobs and rows before a job that nobody has begun; None when somebody has, or the store does not say."""
    if job.ended or job.started_at is not None:
        return None
    # The job itself is known: that its place in the queue is not must not turn an acceptance into an error.
    with contextlib.suppress(StoreAway):
        return current().store.ahead(job)
    return None
