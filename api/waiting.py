"""Holding an answer until a job has ended, or the client's patience is over."""

import re
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from time import monotonic

from flask import Response, g, request

from api.context import current, put_tickets, tenant
from api.prefer import parse_prefer
from api.problems import Problem
from jobs.news import Watch
from jobs.record import Job, changed

_SECONDS = re.compile(r"[0-9]{1,300}(\.[0-9]{1,300})?")


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a request waits; `applied` is what `Preference-Applied` says of it."""

    seconds: float
    applied: str | None = None

    def note(self, response: Response, was_seated: bool) -> Response:
        """The response, saying which preference was followed: none where there was no seat to wait in."""
        if self.applied and (was_seated or not self.seconds):
            response.headers["Preference-Applied"] = self.applied
        return response


def asked_wait(default: float) -> Wait:
    """What the current request asks for by `?wait=`, else by `Prefer`, else `default`; cut to the longest allowed.

    Raises Problem when it is no number.
    """
    most = current().settings.max_wait_seconds
    sent = request.headers.get("Prefer")
    preferences = parse_prefer([sent]) if sent else {}
    if "wait" in request.args:
        return Wait(min(_seconds(request.args["wait"]), most))
    if "wait" in preferences:
        seconds = min(_seconds(preferences["wait"]), most)
        return Wait(seconds, f"wait={seconds:g}")
    if "respond-async" in preferences:
        return Wait(0, "respond-async")
    return Wait(min(default, most))


class Waiter:
    """One request that waits for the end of a job, if it may."""

    def __init__(self, seconds: float, watch: Watch | None) -> None:
        self._until = monotonic() + seconds
        self._watch = watch
        self._expected = ""

    @property
    def is_seated(self) -> bool:
        """Whether it may wait."""
        return self._watch is not None

    def expect(self, job_id: str) -> None:
        """Hears of the job from now on. Called before its record is made or read, so that nothing is missed."""
        self._expected = job_id
        if self._watch:
            self._watch.add(job_id)

    def until_end(self, job: Job) -> Job:
        """The job once it has ended, or as it is when the time is over. Raises UnknownJob or JobGone."""
        if job.ended:
            return job
        if self._watch is None:
            return current().store.find(job.id, tenant()) if look_after(job.id) else job
        if job.id != self._expected:
            self.expect(job.id)
            job = current().store.find(job.id, tenant())
        while not job.ended and (left := self._until - monotonic()) > 0 and not current().news.is_closing:
            change = self._watch.wait(left)
            if change and change.fields:
                return changed(job, change.fields)
            if change is None and client_is_gone():
                return job
            if change or look_after(job.id):
                job = current().store.find(job.id, tenant())
        return job if job.ended else current().store.find(job.id, tenant())


@contextmanager
def waiting(seconds: float) -> Iterator[Waiter]:
    """For a request that waits so long; one that finds no seat does not wait."""
    if seconds <= 0:
        yield Waiter(0, None)
        return
    with nullcontext(True) if g.returned.has_seat else current().seats.taken() as seated:
        if not seated:
            yield Waiter(0, None)
            return
        with current().news.watch() as watch:
            yield Waiter(seconds, watch)


def client_is_gone() -> bool:
    """Whether the client of this request has closed the connection: nobody has to wait for it any more."""
    client: socket.socket | None = request.environ.get("gunicorn.socket")
    if client is None:
        return False
    try:
        poll = select.poll()  # the socket may have a time-out, which reading would wait for
        poll.register(client, select.POLLIN)
        return bool(poll.poll(0)) and not client.recv(1, socket.MSG_PEEK)
    except (OSError, ValueError):  # broken, or closed here already
        return True


def look_after(job_id: str) -> bool:
    """Without a worker nobody sweeps: then whoever asks for a job does it, for this one. False when it was not due."""
    tickets = current().store.look_after(job_id)
    if tickets:
        put_tickets(current(), tickets)
    return tickets is not None


def _seconds(text: str) -> float:
    if not _SECONDS.fullmatch(text):
        raise Problem(400, "invalid_wait", "The wait is not a number of seconds. Send one like 10, or leave it out.")
    return float(text)
