"""`POST /jobs/<id>/retry`: the rows of an ended job that failed or were never reached, predicted again as a new job."""

import contextlib

from flask import Blueprint, Response

from api.answers import accepted, ahead_of
from api.body import current_body
from api.context import current, put_tickets, tenant
from api.outcomes import HOLD_SECONDS
from api.presentation import retry_seconds
from api.problems import AWAY_SECONDS, Problem
from api.single import read_document
from jobs.errors import JobsError, StoreAway, UploadRefused
from jobs.record import Job
from jobs.status import Status
from models.catalog import UnknownModel

blueprint = Blueprint("retry", __name__)

ROWS = ("failed", "unprocessed", "all")
BOTH = "both"  # the failed and the unprocessed ones: what is meant without a word
CHUNKS_AT_ONCE = 8  # of up to a few MiB each; the store answers others in between


@blueprint.post("/jobs/<job_id>/retry")
def retry(job_id: str) -> Response:
    """A new job for rows of an ended one; its results are the old ones with the new rows in their places."""
    rows = _asked_rows()
    job = current().store.find(job_id, tenant())
    _check(job, rows)
    return accepted(_retry_single(job) if job.layout is None else _retry_batch(job, rows))


def _asked_rows() -> str:
    if not current_body().announced or current_body().length == 0:
        return BOTH
    document = read_document({"rows"})
    if "rows" not in document:
        return BOTH
    rows = document["rows"]
    if not isinstance(rows, str) or rows not in ROWS:
        detail = f"The field rows says which rows are to be predicted again. Send one of: {', '.join(ROWS)}."
        raise Problem(422, "invalid_rows", f"{detail} Without it the failed and the unprocessed ones are.")
    return rows


def _check(job: Job, rows: str) -> None:
    """Raises Problem when these rows of the job cannot be retried."""
    if not job.ended:
        detail = f"The job is {job.status.value}. Wait for its end, or cancel it first."
        raise Problem(409, "job_not_ended", detail, headers={"Retry-After": str(retry_seconds(job, ahead_of(job)))})
    if not _has(job, rows):
        what = "that failed or were never reached" if rows == BOTH else "of this kind"
        detail = f'The job has no rows {what}. Send {{"rows": "all"}} for those that have a prediction too.'
        raise Problem(409, "nothing_to_retry", detail)
    if rows == "all" and job.layout is not None and len(job.layout.keep) < len(job.layout.columns):
        detail = "Not all columns were kept, so the input of rows with a prediction is gone. Send it again."
        raise Problem(409, "input_gone", detail)
    if not _is_served(job):
        name = f"{job.model.name}@{job.model.version}"
        detail = f"This server does not have the model {name} as the job used it. Send the input again for another one."
        raise Problem(409, "model_unavailable", detail)


def _has(job: Job, rows: str) -> bool:
    failed = job.rows_failed > 0 or (job.kind == "single" and job.status is Status.FAILED)
    unprocessed = job.rows_unreached > 0
    found = {"failed": failed, "unprocessed": unprocessed, BOTH: failed or unprocessed, "all": job.rows_received > 0}
    return found[rows]


def _is_served(job: Job) -> bool:
    try:
        manifest = current().catalog.find(f"{job.model.name}@{job.model.version}")
    except UnknownModel:
        return False
    return manifest.sha256 == job.model.sha256


def _retry_single(job: Job) -> Job:
    retried, tickets = current().store.intake.retry_single(job)
    put_tickets(current(), tickets)
    return retried


def _retry_batch(job: Job, rows: str) -> Job:
    """Copies the batch inside the store by the protocol of uploads: one that breaks off is taken back by itself."""
    store = current().store
    store.hold(job.id, HOLD_SECONDS)  # it must not expire while it is copied
    upload = store.intake.open_retry(job)
    try:
        for start in range(0, job.chunks_received, CHUNKS_AT_ONCE):
            indexes = range(start, min(start + CHUNKS_AT_ONCE, job.chunks_received))
            put_tickets(current(), store.intake.copy_chunks(upload, job, indexes, rows))
        return store.intake.close(upload, job.chunks_received)
    except StoreAway:
        raise  # the sweep takes it back
    except Exception as error:
        answer = _why(error)
        with contextlib.suppress(JobsError):
            store.intake.take_back(upload)
        raise answer from None


def _why(error: Exception) -> Exception:
    """What to answer: if the new job has failed meanwhile, that job's error."""
    if not (isinstance(error, UploadRefused) and error.reason == "job_failed"):
        return error
    job = current().store.find(error.job_id, tenant())
    code, message = job.error_code or "job_failed", job.error_message or "The job has failed."
    return Problem(503, code, message, headers={"Retry-After": str(AWAY_SECONDS)})
