"""Tickets: RQ jobs that say "there is work, spend one slice of time on it", and nothing else.

RQ's own fields in the store are not trusted: whoever can write there could name any importable function, callbacks,
webhooks or a pickled meta. So a ticket restores its data, origin, status, times and ttls only, and runs a function
only if it is on the allow-list that the worker handed in.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer

from jobs.scripts import LIFE_SECONDS, TICKETS_KEY, translated

QUEUE = TICKETS_KEY.rpartition(":")[2]
WORK_ON_JOB = "work_on_job"
WORK_ON_INBOX = "work_on_inbox"
TIMEOUT_SECONDS = 60  # RQ's bookkeeping only: the parent keeps all time limits itself
FAILURE_TTL_SECONDS = 60  # RQ's own default is a year

RESTORED = frozenset({"data", "origin", "status", "created_at", "enqueued_at", "started_at", "ended_at", "timeout"})


@dataclass(frozen=True, slots=True)
class Ticket:
    """One ticket to put: what it asks for and whether it goes to the front."""

    id: str
    function: str
    arguments: tuple[str | int, ...]
    front: bool = False


def job_ticket(ticket_id: str, front: bool = False) -> Ticket:
    """The ticket of a slot: its id is `<job id>-<slot>-<nonce>`, as the scripts make it."""
    job_id, slot, _ = ticket_id.split("-")
    return Ticket(ticket_id, WORK_ON_JOB, (job_id, int(slot)), front)


def inbox_ticket(ticket_id: str, model_key: str, front: bool) -> Ticket:
    """The ticket of an inbox."""
    return Ticket(ticket_id, WORK_ON_INBOX, (model_key,), front)


def asked_tickets(answer: Sequence[bytes]) -> list[Ticket]:
    """The tickets that a sweep asks for: three items for each, 'job', id, ticket or 'inbox', model key, ticket."""
    texts = [item.decode() for item in answer]
    return [
        job_ticket(ticket_id, front=True) if kind == "job" else inbox_ticket(ticket_id, name, front=True)
        for kind, name, ticket_id in zip(texts[::3], texts[1::3], texts[2::3], strict=True)
    ]


class TicketJob(RQJob):
    """An RQ job that can only be a ticket."""

    functions: ClassVar[Mapping[str, Callable[..., None]]] = {}  # a worker's subclass fills in its two

    def restore(self, raw_data: Mapping[bytes, bytes]) -> Any:  # noqa: ANN401 - RQ's signature
        """Reads back what a ticket is made of, and nothing that someone else may have planted beside it."""
        kept = {field: value for field, value in raw_data.items() if _text(field) in RESTORED}
        try:
            restored = super().restore(kept)
        except Exception as error:  # whatever was planted there: RQ drops the id of a job that is not there
            raise NoSuchJobError(f"{self.id} is no ticket") from error
        self.result_ttl = 0
        self.failure_ttl = FAILURE_TTL_SECONDS
        return restored

    @property
    def func(self) -> Callable[..., None]:
        """The allowed function of this name. Raises LookupError for every other name."""
        name = self.func_name or ""
        if self.instance is not None or name not in self.functions:
            raise LookupError("this ticket asks for a function that is not on the allow-list")
        return self.functions[name]

    def _execute(self) -> None:
        """Runs the function with the ticket's own id behind its arguments: it is the proof of owning the slot."""
        self.func(*self.args, self.id)


class TicketQueue:
    """Where tickets are put: one RQ queue, JSON only."""

    def __init__(self, client: redis.Redis) -> None:
        self._queue = Queue(QUEUE, connection=client, job_class=TicketJob, serializer=JSONSerializer)

    def put(self, tickets: Iterable[Ticket]) -> None:
        """Puts tickets. One that gets lost on the way costs a sweep's period, nothing more."""
        with translated(), self._queue.connection.pipeline() as pipeline:
            for ticket in tickets:
                put = self._queue.enqueue_call(
                    func=ticket.function,
                    args=ticket.arguments,
                    job_id=ticket.id,
                    at_front=ticket.front,
                    timeout=TIMEOUT_SECONDS,
                    result_ttl=0,
                    failure_ttl=FAILURE_TTL_SECONDS,
                    description="ticket",  # else RQ stores and logs the arguments
                    pipeline=pipeline,
                )
                pipeline.expire(put.key, LIFE_SECONDS)  # RQ keeps one whose id got lost for ever
            pipeline.execute()


def _text(field: bytes | str) -> str:
    return field.decode("utf-8", "replace") if isinstance(field, bytes) else field
