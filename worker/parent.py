"""The parent of a worker: RQ's worker on our one queue, kept alive through whatever the store does.

What it changes in RQ, and why: signals only set a flag, because RQ's handlers raise in the middle of whatever runs;
no death penalty, because SIGALRM cannot interrupt C code and the parent keeps all time limits itself; a short
blocking pop, so that sweeps and the end come in time; and `work()` runs in a loop of ours, because a store that is
full or away makes it raise or return. What RQ says of a store's error is one line in the log, not a traceback.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import RedisError
from rq import SimpleWorker
from rq.exceptions import StopRequested
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty

from jobs.errors import StoreAway, StoreFull
from jobs.tickets import FAILURE_TTL_SECONDS, QUEUE, WORK_ON_INBOX, WORK_ON_JOB, TicketJob
from worker.child import Child
from worker.duty import Duty
from worker.rounds import Rounds
from worker.slice import Slices

log = logging.getLogger(__name__)

BLOCKING_POP_SECONDS = 2
WORKER_TTL_SECONDS = BLOCKING_POP_SECONDS + 15  # RQ pops for 15 s less than this
MAINTENANCE_SECONDS = 60  # RQ's own pass over tickets whose worker died; its default is ten minutes
LONGEST_PAUSE_SECONDS = 2.0  # before RQ's worker is made anew


class Brief(logging.Filter):
    """Takes the tracebacks of a store's errors out of RQ's messages: a store that is away has many of them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets everything through; the error itself stands at the end of the line."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, RedisError):
            record.msg, record.args = f"{record.getMessage()} ({error})", ()
            record.exc_info = None
        return True


_BRIEF = Brief()  # one for all lives: a logger keeps the same filter once


class NoDeathPenalty(BaseDeathPenalty):
    """RQ's time limit for a job, left out."""

    def setup_death_penalty(self) -> None:
        """Sets no alarm."""

    def cancel_death_penalty(self) -> None:
        """There is none."""


@dataclass(frozen=True)
class Parts:
    """What a worker is made of, beside RQ."""

    slices: Slices
    rounds: Rounds
    duty: Duty
    child: Child


class TicketWorker(SimpleWorker):
    """RQ's worker, performing tickets in the parent's own process."""

    death_penalty_class = NoDeathPenalty
    log_result_lifespan = False
    max_connection_wait_time = LONGEST_PAUSE_SECONDS

    def __init__(self, client: redis.Redis, name: str, parts: Parts) -> None:
        super().__init__(
            [QUEUE],
            name=name,
            connection=client,
            job_class=_job_class(parts.slices),
            serializer=JSONSerializer,
            worker_ttl=WORKER_TTL_SECONDS,
            maintenance_interval=MAINTENANCE_SECONDS,
            log_job_description=False,
        )
        self._parts = parts
        self._holds_ticket = False
        # How much longer RQ's pauses get while the store is away: not the same for all workers.
        self.exponential_backoff_factor = random.uniform(1.2, 3)  # noqa: S311 - jitter
        self.log.addFilter(_BRIEF)

    @property
    def connection_timeout(self) -> int:
        """RQ allows ten seconds more than the pop takes: too long for a worker that has to stop."""
        return int(self.dequeue_timeout) + 1

    def _install_signal_handlers(self) -> None:
        """The process has its own, which only set a flag."""

    def subscribe(self) -> None:
        """RQ's commands are not listened to: that takes a connection and a thread of every worker."""

    def unsubscribe(self) -> None:
        """There is nothing to leave."""

    def heartbeat(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - RQ's signature
        """RQ calls this before every blocking pop: the moment for our own rounds, and for stopping.

        Ours come first: in a full store RQ's own heartbeat fails.
        """
        if self._parts.duty.stopping and not self._holds_ticket:
            self._parts.rounds.become("gone")
            raise StopRequested
        self._parts.rounds.turn()
        self._parts.child.start()
        super().heartbeat(*args, **kwargs)

    def run_maintenance_tasks(self) -> None:
        """RQ's own, once a minute. Before it, a worker that a store which came back empty forgot is listed again.

        RQ goes by the clock of whichever worker clears up first; failed tickets go by the store's.
        """
        if not self.connection.hexists(self.key, "birth"):
            self.connection.delete(self.key)  # a heartbeat may have left a part of it
            self.register_birth()  # type: ignore[no-untyped-call] # RQ leaves it so
        for queue in self.queues:
            # RQ's lock lasts for fifteen minutes, also when the worker that has it was killed: nobody clears up then.
            self.connection.expire(queue.registry_cleaning_key, MAINTENANCE_SECONDS, lt=True)
            self._forget_failed(queue.failed_job_registry)
        super().run_maintenance_tasks()  # type: ignore[no-untyped-call]

    def _forget_failed(self, registry: FailedJobRegistry) -> None:
        now = self.connection.time()[0]
        registry.cleanup(now)
        self.connection.zremrangebyscore(registry.key, now + FAILURE_TTL_SECONDS + 1, "+inf")  # by a clock that is fast

    def reorder_queues(self, reference_queue: Any) -> None:  # noqa: ANN401 - RQ's signature
        """RQ calls this right after a pop: from here on there is a ticket that must not be dropped.

        What waits in the inboxes is predicted now: RQ's bookkeeping before a ticket takes longer than that.
        """
        self._holds_ticket = True
        try:
            self._parts.slices.work_on_inboxes()
        except Exception as error:  # the ticket's slice meets it again, where RQ expects it
            log.error("could not work on the inboxes: %s", type(error).__name__)
        super().reorder_queues(reference_queue)

    def execute_job(self, job: Any, queue: Any) -> None:  # noqa: ANN401 - RQ's signature
        """Spends the slice of time that the ticket asks for."""
        self._parts.rounds.become("busy")
        try:
            super().execute_job(job, queue)
        finally:
            self._parts.rounds.become("idle")
            self._holds_ticket = False


def _job_class(slices: Slices) -> type[TicketJob]:
    class WorkerTicketJob(TicketJob):
        functions = {  # noqa: RUF012 - declared as a ClassVar in TicketJob
            WORK_ON_JOB: _tolerating(slices.work_on_job),
            WORK_ON_INBOX: _tolerating(slices.work_on_inbox),
        }

    return WorkerTicketJob


def _tolerating(work: Callable[..., None]) -> Callable[..., None]:
    """A store that is away, or no process to be had, ends a slice early; it is not the ticket's failure.

    The sweep brings the work back.
    """

    def tolerant(*arguments: str | int) -> None:
        try:
            work(*arguments)
        except (StoreAway, StoreFull, OSError) as error:
            log.warning("a slice ended early: %s", error)

    return tolerant


def keep_working(make_client: Callable[[], redis.Redis], name: str, parts: Parts) -> None:
    """Performs tickets until the worker has to stop, with a new RQ worker whenever the old one gave up."""
    lives = 0
    while not parts.duty.stopping:
        lives += 1
        client = make_client()
        try:
            TicketWorker(client, f"{name}.{lives}", parts).work(logging_level="WARNING")
        except (RedisError, OSError) as error:
            log.warning("the store stopped the worker: %s", error)
        finally:
            _let_go(client)
        if not parts.duty.stopping:
            parts.rounds.turn()
            _tolerating(parts.slices.work_without_tickets)()
            parts.duty.pause(random.uniform(0.2, LONGEST_PAUSE_SECONDS))  # noqa: S311 - jitter: not all at once


def _let_go(client: redis.Redis) -> None:
    """Closes the connections that a work() that ended badly leaves behind."""
    try:
        client.close()
        client.connection_pool.disconnect()
    except (RedisError, OSError) as error:
        log.warning("could not close a connection: %s", error)
