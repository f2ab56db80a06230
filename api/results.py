"""`/jobs/<id>/results` and `/jobs/<id>/errors`: what came out of a job."""

import re

from flask import Blueprint, Response, request

from api import media
from api.answers import ahead_of
from api.context import current, tenant
from api.download import Download, measured, streamed
from api.media import CSV, JSON, NDJSON, Form
from api.outcomes import BatchOutcomes
from api.presentation import retry_seconds
from api.problems import Problem
from api.ranges import Piece
from api.rendering import escaped
from api.single_results import SingleOutcome
from jobs.codec.layout import Layout, class_text
from jobs.record import Job
from models.catalog import UnknownModel

MOST_ROWS = 10_000  # of one page of JSON; more is what NDJSON is for
DEFAULT_ROWS = 1_000

blueprint = Blueprint("results", __name__)


@blueprint.get("/jobs/<job_id>/results")
def results(job_id: str) -> Response:
    """What came out, in input order, in the form that `Accept` asks for."""
    job = current().store.find(job_id, tenant())
    form = _form(job)
    partial = _flag("partial")
    if job.layout is None:
        return _single(_ended(job), form)
    return _batch(job if partial else _ended(job), job.layout, form)


@blueprint.get("/jobs/<job_id>/errors")
def errors(job_id: str) -> Response:
    """The rows that failed, with the reason, as CSV that can be corrected and sent again."""
    job = _ended(current().store.find(job_id, tenant()))
    download = Download(job, CSV, suffix="-errors")
    if job.layout is None:
        return streamed(download, iter([_single_outcome(job).failed_rows()]))
    return streamed(download, BatchOutcomes(current().store, job, job.layout).failed_rows())


def _single(job: Job, form: Form) -> Response:
    outcome = _single_outcome(job)
    if form is not CSV:
        return streamed(Download(job, form), iter([outcome.json()]))
    if _flag("escape_formulas"):
        return streamed(Download(job, form, "escaped"), iter([escaped(outcome.csv(), b",")]))
    table = outcome.csv()
    return measured(Download(job, form), [Piece(len(table), lambda: table)])


def _single_outcome(job: Job) -> SingleOutcome:
    try:
        manifest = current().catalog.find(f"{job.model.name}@{job.model.version}")
    except UnknownModel:  # removed since; what succeeded needs no manifest
        return SingleOutcome(job, None)
    classes = [class_text(item) for item in manifest.classes or ()]
    return SingleOutcome(job, classes if manifest.has_probabilities else None)


def _batch(job: Job, layout: Layout, form: Form) -> Response:
    outcomes = BatchOutcomes(current().store, job, layout)
    if form is JSON:
        offset, limit = _whole("offset", 0, 0, None), _whole("limit", DEFAULT_ROWS, 1, MOST_ROWS)
        return streamed(Download(job, form, f"{offset} {limit}"), outcomes.page(offset, limit))
    if form is NDJSON:
        return streamed(Download(job, form), outcomes.ndjson())
    if _flag("escape_formulas"):
        return streamed(Download(job, form, "escaped"), outcomes.escaped_csv())
    if not job.ended:
        return streamed(Download(job, form), outcomes.csv())
    return measured(Download(job, form), outcomes.csv_pieces())


def _form(job: Job) -> Form:
    try:
        return media.chosen(request.accept_mimetypes, job.form)
    except media.NoSuchForm:
        offered = ", ".join(form.media_type for form in media.FORMS.values())
        raise Problem(406, "not_acceptable", f"Results come as {offered}. Accept one of them.") from None


def _ended(job: Job) -> Job:
    if job.ended:
        return job
    done = f"{job.rows_done} of {job.rows_total or job.rows_received} rows are done"
    advice = "Ask again later" + (", or with ?partial=true for the first of them" if job.kind == "batch" else "")
    headers = {"Retry-After": str(retry_seconds(job, ahead_of(job)))}
    raise Problem(409, "results_not_ready", f"The job is {job.status.value}, {done}. {advice}.", headers=headers)


def _flag(name: str) -> bool:
    """A query parameter that is true or false; false when it is not there."""
    text = request.args.get(name, "false").lower()
    if text not in ("true", "false"):
        raise Problem(400, f"invalid_{name}", f"{name} is true or false. Send one of them, or leave it out.")
    return text == "true"


def _whole(name: str, default: int, least: int, most: int | None) -> int:
    """A query parameter that is a whole number within limits."""
    text = request.args.get(name, str(default))
    # Eighteen digits are enough, and few enough for int() whatever was sent.
    if re.fullmatch("[0-9]{1,18}", text) and least <= int(text) <= (int(text) if most is None else most):
        return int(text)
    limits = f"from {least}" + ("" if most is None else f" to {most}")
    raise Problem(400, f"invalid_{name}", f"{name} is a whole number {limits}. Correct it.")
