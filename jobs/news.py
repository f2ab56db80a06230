"""What changes in the store, told as it happens: one subscription of a process, however many of its requests wait.

The scripts publish on one channel which jobs they changed (jobs/lua/shared/keys.lua). Messages get lost only with their
connection, and what comes over it comes in order: as long as the store answers pings on it, nothing was missed. When it
does not, who waits looks at the record every second.
"""

import json
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, RLock, Thread
from time import monotonic
from types import TracebackType
from typing import Any, Protocol

import redis
from redis.exceptions import RedisError

from jobs.keys import PREFIX

log = logging.getLogger(__name__)

CHANNEL = PREFIX + "news"
LOOK_SECONDS = 1.0  # what a message costs that was lost with its connection; a stall is noticed a second later
PING_SECONDS = 0.4  # without a message: then the store is asked whether it is there
LIVE_SECONDS = 1.0  # since it was heard of
SUBSCRIBE_SECONDS = 0.3  # who waits while there is no subscription gives it so long to come about
DEAD_SECONDS = 5.0  # without an answer: then the connection is made anew
LONGEST_PAUSE_SECONDS = 1.0  # before the listener connects again


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a job. `fields` are those of its record that changed, where a single prediction has ended."""

    ended: bool
    fields: Mapping[str, str] | None = None


LOOK_AGAIN = Change(ended=True)  # something may have been missed


class Listener(Protocol):
    """Who is told of changes."""

    def tell(self, change: Change) -> None:
        """Called by whichever thread knows; it must not wait for anything."""


class Watch:
    """What changes of some jobs, while the block lasts."""

    def __init__(self, news: "News", until_end: bool) -> None:
        self._news = news
        self._until_end = until_end
        self._job_ids: list[str] = []
        self._changes: SimpleQueue[Change] = SimpleQueue()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for job_id in self._job_ids:
            self._news.leave(job_id, self)

    def add(self, job_id: str) -> None:
        """Hears of this job from now on: add it before looking at its record, and nothing is missed."""
        self._job_ids.append(job_id)
        self._news.join(job_id, self)

    def wait(self, seconds: float) -> Change | None:
        """The next change; None when there was none within `seconds`, LOOK_SECONDS at most.

        LOOK_AGAIN when something may have been missed.
        """
        try:
            return self._changes.get(timeout=max(min(seconds, LOOK_SECONDS), 0))
        except Empty:
            return None if self._news.is_live else LOOK_AGAIN

    def tell(self, change: Change) -> None:
        """Called by the news."""
        if change.ended or not self._until_end:
            self._changes.put(change)


class News:
    """Who waits for which job. Its thread begins with the first who waits."""

    def __init__(self, make_client: Callable[[], redis.Redis]) -> None:
        """`make_client` makes the client of the subscription: one connection."""
        self._make_client = make_client
        # The handler of a signal, which calls `close`, may come while its own thread has the lock.
        self._lock = RLock()
        self._listeners: dict[str, list[Listener]] = {}
        self._thread: Thread | None = None
        self._subscribed = Event()
        self._closing = Event()
        self._heard_at = 0.0

    @property
    def is_live(self) -> bool:
        """Whether nothing that has happened up to a second ago can have been missed."""
        return self._subscribed.is_set() and monotonic() - self._heard_at < LIVE_SECONDS

    @property
    def is_closing(self) -> bool:
        """Whether the process ends: who waits answers with what there is."""
        return self._closing.is_set()

    def watch(self, until_end: bool = True) -> Watch:
        """For one who waits for the end of jobs, or for every change of theirs."""
        if not self._subscribed.is_set():
            self._start()
            self._subscribed.wait(SUBSCRIBE_SECONDS)
        return Watch(self, until_end)

    def join(self, job_id: str, listener: Listener) -> None:
        """From now on the listener hears of the job."""
        with self._lock:
            self._listeners.setdefault(job_id, []).append(listener)

    def leave(self, job_id: str, listener: Listener) -> None:
        """The listener hears no more of the job."""
        with self._lock:
            listeners = self._listeners[job_id]
            listeners.remove(listener)
            if not listeners:
                del self._listeners[job_id]

    def close(self) -> None:
        """Wakes all who wait, now and from now on: the process ends."""
        self._closing.set()
        self._wake_all()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            thread = Thread(target=self._listen, name="news", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the system allows no more threads at this moment
                log.warning("the news cannot be listened to yet: %s", error)
                return
            self._thread = thread

    def _listen(self) -> None:
        while not self.is_closing:
            try:
                self._follow(self._make_client())
            except (RedisError, OSError) as error:
                log.warning("the news is interrupted: %s", error)
            except Exception as error:  # whatever it is: who waits must not be left to look every second for ever
                log.error("the news is interrupted by %s", type(error).__name__)  # its text may hold a message's
            self._subscribed.clear()
            self._closing.wait(random.uniform(0.05, LONGEST_PAUSE_SECONDS))  # noqa: S311 - jitter: not all at once

    def _follow(self, client: redis.Redis) -> None:
        """Passes on what is published until the connection breaks."""
        with client, client.pubsub() as subscription:  # type: ignore[no-untyped-call] # the library leaves it so
            subscription.subscribe(CHANNEL)
            self._heard_at = monotonic()
            while not self.is_closing:
                message = subscription.get_message(timeout=PING_SECONDS)
                if message is not None:
                    self._heard_at = monotonic()
                    self._take(message)
                elif monotonic() - self._heard_at > DEAD_SECONDS:
                    raise TimeoutError("the store does not answer a ping")
                else:
                    subscription.ping()

    def _take(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "subscribe":
            self._subscribed.set()
            self._wake_all()  # something may have happened before
        elif message["type"] == "message":
            self._pass_on(message["data"])

    def _pass_on(self, message: bytes) -> None:
        """One message: a list of [id, 1 when it has ended else 0, changed fields as name and text in turn]."""
        for job_id, ended, *fields in json.loads(message):
            listeners = self._listeners.get(job_id)
            if listeners:
                change = Change(bool(ended), dict(zip(fields[::2], fields[1::2], strict=True)) or None)
                for listener in tuple(listeners):
                    listener.tell(change)

    def _wake_all(self) -> None:
        with self._lock:
            listeners = {listener for waiting in self._listeners.values() for listener in waiting}
        for listener in listeners:
            listener.tell(LOOK_AGAIN)
