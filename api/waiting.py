"""Holding an answer until a job has ended, or the client's patience is over."""

import re
import time
from dataclasses import dataclass

from flask import Response, request

from api.context import current, put_tickets, tenant
from api.prefer import parse_prefer
from api.problems import Problem
from jobs.record import Job
from jobs.store import LOOK_SECONDS

FIRST_PAUSE_SECONDS = 0.005  # a single prediction takes about one of these
LONGEST_PAUSE_SECONDS = 0.1
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a request waits; `applied` is what `Preference-Applied` says of it."""

    seconds: float
    applied: str | None = None

    def note(self, response: Response) -> Response:
        """The response, saying which preference was followed."""
        if self.applied:
            response.headers["Preference-Applied"] = self.applied
        return response


def asked_wait(default: float) -> Wait:
    """What the current request asks for by `?wait=`, else by `Prefer`, else `default`; cut to the longest allowed.

    Raises Problem when it is no number.
    """
    most = current().settings.max_wait_seconds
    preferences = parse_prefer(request.headers.getlist("Prefer"))
    if "wait" in request.args:
        return Wait(min(_seconds(request.args["wait"]), most))
    if "wait" in preferences:
        seconds = min(_seconds(preferences["wait"]), most)
        return Wait(seconds, f"wait={seconds:g}")
    if "respond-async" in preferences:
        return Wait(0, "respond-async")
    return Wait(min(default, most))


def wait_for_end(job_id: str, seconds: float) -> Job:
    """The job once it has ended, or as it is when the time is over. Raises UnknownJob or JobGone."""
    store, owner = current().store, tenant()
    deadline, pause = time.monotonic() + seconds, FIRST_PAUSE_SECONDS
    patient_until = min(deadline, time.monotonic() + LOOK_SECONDS)  # nearly all singles have ended by then
    while True:
        job = store.find(job_id, owner)
        if not job.ended and time.monotonic() >= patient_until and _look_after(job_id):
            job = store.find(job_id, owner)
        left = deadline - time.monotonic()
        if job.ended or left <= 0:
            return job
        time.sleep(min(pause, left, _until_likely_end(job)))
        pause = min(pause * 1.2, LONGEST_PAUSE_SECONDS)


def _look_after(job_id: str) -> bool:
    """Without a worker nobody sweeps: then whoever asks for a job does it, for this one. False when it was not due."""
    tickets = current().store.look_after(job_id)
    if tickets:
        put_tickets(current(), tickets)
    return tickets is not None


def _until_likely_end(job: Job) -> float:
    """A pause that does not sleep over the end of a batch that is nearly through."""
    rate = job.rows_per_second(time.time() * 1000)
    if not rate or job.rows_total is None:
        return LONGEST_PAUSE_SECONDS
    return max((job.rows_total - job.rows_done) / rate / 4, FIRST_PAUSE_SECONDS)


def _seconds(text: str) -> float:
    if not _SECONDS.fullmatch(text):
        raise Problem(400, "invalid_wait", "The wait is not a number of seconds. Send one like 10, or leave it out.")
    return float(text)
