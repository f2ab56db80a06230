"""Answers that several routes give."""

import contextlib
from collections.abc import Sequence

from flask import Response, request

from api.context import current
from api.presentation import present, retry_seconds, version
from jobs.codec.json_text import dumps, loads
from jobs.errors import StoreAway
from jobs.record import Job
from jobs.store import Ahead


def told(result_json: str, with_probabilities: bool = False) -> dict[str, object]:
    """What a client is told of the result of a single prediction."""
    result = loads(result_json)
    if not isinstance(result, dict):
        return {}
    answer = {"response": result.get("prediction")}
    if with_probabilities and "probabilities" in result:
        answer["probabilities"] = result["probabilities"]
    return answer


def json_answer(value: object, status: int = 200) -> Response:
    """A JSON document that no cache keeps."""
    response = Response(dumps(value) + "\n", status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


def job_answer(job: Job, status: int = 200) -> Response:
    """The job, and until it has ended, when to look at it again."""
    ahead = ahead_of(job)
    return _job_answer(job, ahead, _shown([job], [ahead])[0], status)


def conditional_job_answer(job: Job) -> Response:
    """As `job_answer`, for one who may keep it and ask again: 304 when it is still what `If-None-Match` names."""
    ahead = ahead_of(job)
    document = _shown([job], [ahead])[0]
    response = _job_answer(job, ahead, document, 200)
    etag = version(job, document)
    if request.if_none_match.contains_weak(etag):
        response.status_code = 304
        response.set_data(b"")
        del response.headers["Content-Type"], response.headers["Content-Length"]
    # Weak: estimates differ from one answer to the next. Kept copies are asked about before they are used.
    response.set_etag(etag, weak=True)
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def _job_answer(job: Job, ahead: Ahead | None, document: object, status: int) -> Response:
    response = json_answer(document, status)
    if not job.ended:
        response.headers["Retry-After"] = str(retry_seconds(job, ahead))
    return response


def shown(jobs: Sequence[Job]) -> list[dict[str, object]]:
    """The JSON of jobs; asks the store once for the attempts of them all."""
    return _shown(jobs, [ahead_of(job) for job in jobs])


def _shown(jobs: Sequence[Job], places: Sequence[Ahead | None]) -> list[dict[str, object]]:
    api = current()
    found = api.store.attempts(jobs)
    return [present(job, api.catalog, ahead, found.get(job.id, ())) for job, ahead in zip(jobs, places, strict=True)]


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
