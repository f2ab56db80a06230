"""A job as clients see it."""

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from jobs.codec.json_text import dumps, loads
from jobs.codec.layout import class_text, free_names
from jobs.record import Attempt, Job
from jobs.status import Status
from jobs.store import Ahead
from models.catalog import Catalog, UnknownModel

LONGEST_RETRY_SECONDS = 30
TURN_SECONDS = 0.2  # how long a worker stays with a job when others wait (worker/slice.py has the same)
_ESTIMATES = frozenset({"rows_per_second", "eta_seconds"})  # they change with time alone


def present(job: Job, catalog: Catalog, ahead: Ahead | None, attempts: Sequence[Attempt] = ()) -> dict[str, object]:
    """The job's JSON, as the HTTP contract has it."""
    return {
        "id": job.id,
        "kind": job.kind,
        "status": job.status.value,
        "model": {"name": job.model.name, "version": job.model.version, "sha256": job.model.sha256},
        "created_at": moment(job.created_at),
        "started_at": _moment_or_none(job.started_at),
        "ended_at": _moment_or_none(job.ended_at),
        "expires_at": _moment_or_none(job.expires_at),
        "progress": progress(job),
        "queue": None if ahead is None else _queue(ahead),
        "output": {"columns": _columns(job, catalog), "bytes": _bytes(job)},
        "result": None if job.result is None else loads(job.result),
        "error": None if job.error_code is None else {"code": job.error_code, "message": job.error_message},
        "attempts": [_attempt(attempt) for attempt in attempts],
        "retry_of": job.retry_of,
        "links": _links(job),
    }


def version(job: Job, shown: Mapping[str, object]) -> str:
    """Names what the job's JSON says but for the values of estimates: changes as soon as anything else does."""
    facts = f"{job.revision} {dumps(_without_estimates(shown))}"
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def _without_estimates(value: object) -> object:
    """That there is an estimate stays: it says that workers are there."""
    if not isinstance(value, dict):
        return value
    return {name: item is None if name in _ESTIMATES else _without_estimates(item) for name, item in value.items()}


def retry_seconds(job: Job, ahead: Ahead | None = None) -> int:
    """After how many seconds an unended job will have ended, as far as anybody knows; within limits."""
    seconds = None if job.kind == "single" else _seconds_left(job, ahead)
    return 1 if seconds is None else min(max(math.ceil(seconds), 1), LONGEST_RETRY_SECONDS)


def _seconds_left(job: Job, ahead: Ahead | None) -> float | None:
    """By its own pace once it has one; until then by its place in the queue and the measured speed of its model."""
    own, first = _eta_seconds(job), None if ahead is None else _queue_seconds(ahead)
    if own is not None or ahead is None or first is None:
        return own
    hands = max(min(ahead.workers, job.chunks_received), 1)
    return first + (job.rows_to_do / (ahead.rate * hands) if ahead.rate else 0)


def moment(milliseconds: int) -> str:
    """A moment as RFC 3339 in UTC with milliseconds."""
    text = datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _moment_or_none(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else moment(milliseconds)


def progress(job: Job) -> dict[str, object]:
    """How far it is; part of its JSON."""
    rate, eta = _rows_per_second(job), _eta_seconds(job)
    return {
        "rows_total": job.rows_total,
        "rows_received": job.rows_received,
        "rows_done": job.rows_done,
        "rows_ok": job.rows_ok,
        "rows_failed": job.rows_failed,
        "percent": _percent(job),
        "rows_per_second": None if rate is None else round(rate, 1),
        "eta_seconds": None if eta is None else round(eta, 1),
    }


def _attempt(attempt: Attempt) -> dict[str, object]:
    return asdict(attempt) | {"started_at": moment(attempt.started_at), "ended_at": moment(attempt.ended_at)}


def _queue(ahead: Ahead) -> dict[str, object]:
    eta = _queue_seconds(ahead)
    shown = None if eta is None else round(eta, 1)
    return {"position": ahead.jobs, "rows_ahead": ahead.rows, "eta_seconds": shown}


def _queue_seconds(ahead: Ahead) -> float | None:
    """Its first row is done after the tickets before its own had their turns, or all rows before it are done."""
    if not ahead.workers:
        return None
    turns = (ahead.tickets + 1) / ahead.workers * TURN_SECONDS
    return turns if ahead.seconds is None else min(turns, ahead.seconds / ahead.workers)


def _percent(job: Job) -> float | None:
    """Rounded down, so that 100 means all; and never 100 before the end."""
    if not job.rows_total:
        return None
    percent = job.rows_done * 1000 // job.rows_total / 10
    return percent if job.ended else min(percent, 99.9)


def _rows_per_second(job: Job) -> float | None:
    """This job's own pace; for display only, so the machine's clock will do."""
    return job.rows_per_second(time.time() * 1000)


def _eta_seconds(job: Job) -> float | None:
    rate = _rows_per_second(job)
    if not rate or job.rows_total is None or job.ended:
        return None
    return job.rows_to_do / rate


def _columns(job: Job, catalog: Catalog) -> list[str]:
    if job.layout is not None:
        return list(job.layout.output_columns)
    sent = loads(job.input or "{}")
    names = [str(name) for name in sent] if isinstance(sent, dict) else []
    probabilities = [f"probability_{class_text(item)}" for item in _classes(job, catalog)]
    return [*names, *free_names(["prediction", *probabilities, "error"], names)]


def _classes(job: Job, catalog: Catalog) -> Sequence[str | int | float | bool]:
    """The classes that have probabilities, none when the model has left the catalog meanwhile."""
    try:
        manifest = catalog.find(f"{job.model.name}@{job.model.version}")
    except UnknownModel:
        return ()
    return (manifest.classes or ()) if manifest.has_probabilities else ()


def _bytes(job: Job) -> int | None:
    """The size of the results as CSV, once it is fixed and known without writing them."""
    complete = job.status in (Status.SUCCEEDED, Status.FAILED) and not job.rows_unreached
    if job.layout is None or not complete:
        return None
    return len(job.layout.header_line()) + job.csv_bytes


def _links(job: Job) -> dict[str, str]:
    own = f"/jobs/{job.id}"
    return {"self": own} | {name: f"{own}/{name}" for name in ("results", "errors", "events", "cancel")}
