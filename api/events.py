"""`GET /jobs/<id>/events`: what becomes of a job, told as it happens, as server-sent events.

The format and what browsers do with it: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import contextlib
from collections.abc import Generator, Iterator
from contextlib import closing
from time import monotonic

from flask import Blueprint, Response, request, stream_with_context

from api.answers import shown
from api.context import current, tenant
from api.presentation import progress
from api.problems import as_problem, to_response
from api.waiting import client_is_gone, look_after
from jobs.codec.json_text import dumps
from jobs.connection import patience
from jobs.errors import JobGone, StoreAway, UnknownJob
from jobs.news import LOOK_SECONDS, Watch
from jobs.record import Job

blueprint = Blueprint("events", __name__)

MEDIA_TYPE = "text/event-stream; charset=utf-8"
COMMENT_SECONDS = 15.0  # of silence; routers cut connections that are silent for a minute
PROGRESS_SECONDS = 0.25  # between two looks at a job that changes all the time
QUIET_SECONDS = 10.0  # between two looks at one of which nothing is heard: nobody tells of a store that was emptied
SINGLE_SECONDS = 1.0  # the same of a single prediction: nobody tells that it has been begun
RETRY_SECONDS = 2  # after which a client comes back: by then a web process has been restarted
NO_SEAT_RETRY_SECONDS = 5  # the same of one that found no seat: it polls, in effect
AWAY_SECONDS = 60.0  # for so long a stream waits for a store that is away
COMMENT = ":\n\n"


@blueprint.get("/jobs/<job_id>/events")
def follow(job_id: str) -> Response:
    """The job as it is now and what becomes of it, up to its end; 204 for who has been told of the end."""
    last_id = request.headers.get("Last-Event-ID", "")
    job = _find(job_id, is_known=bool(last_id))
    if job and job.ended and last_id == str(job.revision):
        return _nothing_more()
    body = iter(()) if request.method == "HEAD" else stream_with_context(_stream(job_id, job))
    response = Response(body, content_type=MEDIA_TYPE)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the events
    return response


def _find(job_id: str, is_known: bool) -> Job | None:
    """The job; None while the store is away from a client that has followed it: browsers never come back after a 503.

    Raises UnknownJob, JobGone, and StoreAway for a job that is not known.
    """
    try:
        return current().store.find(job_id, tenant())
    except StoreAway:
        if not is_known:
            raise
        return None


def _nothing_more() -> Response:
    """204: a browser does not come back after it."""
    response = Response(status=204, headers={"Cache-Control": "no-store"})
    del response.headers["Content-Type"]  # of nothing
    return response


def _stream(job_id: str, job: Job | None) -> Iterator[bytes]:
    """The body; who finds no seat is told what there is and comes back."""
    story = Story(job_id)
    with current().seats.taken() as seated, _logged():
        if seated:
            yield _retry(RETRY_SECONDS)
            with closing(_followed(story)) as events:
                yield from _kept_alive(events)
        else:
            yield _retry(NO_SEAT_RETRY_SECONDS)
            if job:
                yield story.tell(job).encode()


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """Ends a stream that meets what nobody foresaw: the server would log its text, which can hold what was sent."""
    try:
        yield
    except Exception as error:
        as_problem(error)  # this logs it


class Story:
    """What one client is told of a job."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.is_over = False
        self._told: tuple[object, ...] = (None,)  # the status, then what counts of the progress
        self._seen_at = monotonic()
        self.quiet_seconds = QUIET_SECONDS

    def look(self) -> str:
        """The events of what has changed since the last look; none while the store is away."""
        patience.begin()  # a stream outlasts that of its request
        try:
            events = self.tell(current().store.find(self.job_id, tenant()))
        except StoreAway:
            self.is_over = monotonic() - self._seen_at > AWAY_SECONDS
            return ""
        except (JobGone, UnknownJob) as error:
            self.is_over = True
            return _event("gone", to_response(as_problem(error)).get_data(as_text=True).strip())
        self._seen_at = monotonic()
        return events

    def tell(self, job: Job) -> str:
        """The events that this state of the job makes for one who knows the states before. May raise StoreAway."""
        self.quiet_seconds = SINGLE_SECONDS if job.kind == "single" else QUIET_SECONDS
        told = (job.status, job.rows_total, job.rows_received, job.rows_ok, job.rows_failed)
        if told == self._told:
            return ""
        # An id says up to where everything was told. Only the end's own is that of the ended job: who loses the
        # connection just before it asks with another one, and is not turned away with a 204.
        known = job.revision - 1 if job.ended else job.revision
        events = [_event("progress", dumps(progress(job)), known)]
        if job.status is not self._told[0]:
            events.insert(0, _event("status", dumps({"id": job.id, "status": job.status.value}), known))
        if job.ended:
            events.append(_event("end", dumps(shown([job])[0]), job.revision))
        self._told, self.is_over = told, job.ended
        return "".join(events)


def _followed(story: Story) -> Generator[str]:
    """Events as they come, an empty text about once a second while there are none; up to the end, or the process'."""
    news = current().news
    with news.watch(until_end=False) as watch:
        watch.add(story.job_id)
        while True:
            yield story.look()
            if story.is_over or news.is_closing:
                return
            yield from _silence(story, watch)


def _silence(story: Story, watch: Watch) -> Iterator[str]:
    """An empty text about once a second until it is time for another look."""
    looked_at = monotonic()
    while (change := watch.wait(LOOK_SECONDS)) is None and monotonic() - looked_at < story.quiet_seconds:
        patience.begin()
        with contextlib.suppress(StoreAway):  # the next look will find it away
            look_after(story.job_id)
        yield ""
    # The end is told at once, all else with what comes shortly after it.
    while change and not change.ended and (left := looked_at + PROGRESS_SECONDS - monotonic()) > 0:
        change = watch.wait(left)


def _kept_alive(events: Iterator[str]) -> Iterator[bytes]:
    """The events, with a comment where they are silent for long; ends when the client has gone."""
    sent_at = monotonic()
    for event in events:
        if event or monotonic() - sent_at >= COMMENT_SECONDS:
            sent_at = monotonic()
            yield (event or COMMENT).encode()
        elif client_is_gone():
            return


def _retry(seconds: int) -> bytes:
    return f"retry: {seconds * 1000}\n\n".encode()


def _event(name: str, json_text: str, last_id: int | None = None) -> str:
    identity = "" if last_id is None else f"id: {last_id}\n"
    return f"event: {name}\n{identity}data: {json_text}\n\n"
