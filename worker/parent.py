"""The parent of a worker: RQ's worker on our one queue, kept alive through whatever the store does.

What it changes in RQ, and why: signals only set a flag, because RQ's handlers raise in the middle of whatever runs;
no death penalty, because SIGALRM cannot interrupt C code and the parent keeps all time limits itself; a short
blocking pop, so that sweeps and the end come in time; and `work()` runs in a loop of ours, because a store that is
full or away makes it raise or return.
"""

import logging
import random
from collections.abc import Callable
from time import sleep
from typing import Any

import redis
from redis.exceptions import RedisError
from rq import SimpleWorker
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty

from jobs.errors import StoreAway, StoreFull
from jobs.tickets import QUEUE, WORK_ON_INBOX, WORK_ON_JOB, TicketJob
from worker.rounds import Rounds
from worker.slice import Slices

log = logging.getLogger(__name__)

BLOCKING_POP_SECONDS = 2
WORKER_TTL_SECONDS = BLOCKING_POP_SECONDS + 15  # RQ pops for 15 s less than this
LONGEST_PAUSE_SECONDS = 2.0  # before RQ's worker is made anew


class NoDeathPenalty(BaseDeathPenalty):
    """RQ's time limit for a job, left out."""

    def setup_death_penalty(self) -> None:
        """Sets no alarm."""

    def cancel_death_penalty(self) -> None:
        """There is none."""


class TicketWorker(SimpleWorker):
    """RQ's worker, performing tickets in the parent's own process."""

    death_penalty_class = NoDeathPenalty
    log_result_lifespan = False
    max_connection_wait_time = LONGEST_PAUSE_SECONDS

    def __init__(self, client: redis.Redis, name: str, slices: Slices, rounds: Rounds) -> None:
        super().__init__(
            [QUEUE],
            name=name,
            connection=client,
            job_class=_job_class(slices),
            serializer=JSONSerializer,
            worker_ttl=WORKER_TTL_SECONDS,
            log_job_description=False,
        )
        self._slices = slices
        self._rounds = rounds
        self._holds_ticket = False

    def _install_signal_handlers(self) -> None:
        """The process has its own, which only set a flag."""

    def heartbeat(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - RQ's signature
        """RQ calls this before every blocking pop: the moment for our own rounds, and for stopping."""
        if self._slices.stopping and not self._holds_ticket:
            raise StopRequested
        super().heartbeat(*args, **kwargs)
        self._rounds.turn()

    def reorder_queues(self, reference_queue: Any) -> None:  # noqa: ANN401 - RQ's signature
        """RQ calls this right after a pop: from here on there is a ticket that must not be dropped."""
        self._holds_ticket = True
        super().reorder_queues(reference_queue)

    def execute_job(self, job: Any, queue: Any) -> None:  # noqa: ANN401 - RQ's signature
        """Spends the slice of time that the ticket asks for."""
        self._rounds.become("busy")
        try:
            super().execute_job(job, queue)
        finally:
            self._rounds.become("idle")
            self._holds_ticket = False

    def let_go(self) -> None:
        """Closes what a work() that ended badly leaves behind: its subscription thread and connections."""
        try:
            if self.pubsub_thread:
                self.pubsub_thread.stop()
                self.pubsub.close()
            self.connection.close()
            self.connection.connection_pool.disconnect()
        except RedisError as error:
            log.warning("could not close a connection: %s", error)


def _job_class(slices: Slices) -> type[TicketJob]:
    class WorkerTicketJob(TicketJob):
        functions = {  # noqa: RUF012 - declared as a ClassVar in TicketJob
            WORK_ON_JOB: _tolerating(slices.work_on_job),
            WORK_ON_INBOX: _tolerating(slices.work_on_inbox),
        }

    return WorkerTicketJob


def _tolerating(work: Callable[..., None]) -> Callable[..., None]:
    """A store that is away ends a slice early; it is not the ticket's failure. The sweep brings the work back."""

    def tolerant(*arguments: str | int) -> None:
        try:
            work(*arguments)
        except (StoreAway, StoreFull) as error:
            log.warning("a slice ended early: %s", error)

    return tolerant


def keep_working(make_client: Callable[[], redis.Redis], name: str, slices: Slices, rounds: Rounds) -> None:
    """Performs tickets until the worker has to stop, with a new RQ worker whenever the old one gave up."""
    lives = 0
    while not slices.stopping:
        lives += 1
        worker = None
        try:
            worker = TicketWorker(make_client(), f"{name}.{lives}", slices, rounds)
            worker.work(logging_level="WARNING")
        except (RedisError, OSError) as error:
            log.warning("the store stopped the worker: %s", error)
        finally:
            if worker:
                worker.let_go()
        if not slices.stopping:
            sleep(random.uniform(0.2, LONGEST_PAUSE_SECONDS))  # noqa: S311 - jitter, so that not all come back at once
