"""Accepting what waits in inboxes: single predictions, and small batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from jobs.accepting import Accepting
from jobs.codec.layout import Layout
from jobs.combined import Combined
from jobs.errors import StoreFull
from jobs.keys import new_inbox_ticket_id, text
from jobs.lookup import Lookup
from jobs.pieces import pieces
from jobs.record import Job, ModelVersion, new_single, packed_sha256
from jobs.scripts import Argument, Scripts
from jobs.tickets import Ticket, inbox_ticket

MARK_MILLISECONDS = 5000  # how long an inbox's ticket may be on its way before another is asked for


@dataclass(frozen=True, slots=True)
class SmallBatch:
    """A batch of one chunk. It must not be more than `most_seconds` of a worker's time, or `unmeasured_rows`."""

    chunk: bytes
    rows: int
    row_bytes: float
    most_seconds: float
    unmeasured_rows: int


@dataclass(frozen=True, slots=True)
class NewSingle:
    """A single prediction to be accepted: `key` and `fingerprint` as `InboxIntake.accept_single` has them."""

    job_id: str
    generation: str
    tenant: str
    model: ModelVersion
    input_json: str
    ticket_id: str
    key: str = ""
    fingerprint: str = ""

    def arguments(self) -> list[Argument]:
        """As the script wants it."""
        facts = (self.job_id, self.generation, self.tenant, self.model.key, packed_sha256(self.model.sha256))
        binding = (self.key, self.fingerprint, len(self.input_json.encode()))
        return [*facts, self.ticket_id, *binding, *pieces("input", self.input_json)]


class InboxIntake(Accepting):
    """The part of jobs.intake.Intake that is about inboxes."""

    def __init__(self, scripts: Scripts, lookup: Lookup) -> None:
        super().__init__(scripts, lookup)
        self._singles = Combined(self.accept_singles)

    def accept_single(
        self,
        tenant: str,
        model: ModelVersion,
        input_json: str,
        *,
        key: str = "",
        fingerprint: str = "",
        on_id: Callable[[str], None] | None = None,
    ) -> tuple[Job, list[Ticket]]:
        """Accepts a single prediction; returns the job and the tickets to put.

        `key` is the digest of the idempotency key, if there is one, and `fingerprint` that of the request. `on_id` is
        told the job's id before the store is. Raises SameRequest and KeyRefused.
        """
        while True:
            single = self.new_single(tenant, model, input_json, key, fingerprint)
            if on_id:
                on_id(single.job_id)
            accepted = self.accepted(single, self._singles.call(single))
            if accepted:
                return accepted

    def new_single(
        self, tenant: str, model: ModelVersion, input_json: str, key: str = "", fingerprint: str = ""
    ) -> NewSingle:
        """A single prediction with an id of its own, to be accepted with others by `accept_singles`."""
        facts = (*self._lookup.new_id(tenant), tenant, model, input_json, new_inbox_ticket_id())
        return NewSingle(*facts, key, fingerprint)

    def accept_singles(self, singles: Sequence[NewSingle]) -> list[bytes | BaseException]:
        """Accepts single predictions in one round trip; the answer to each is for `accepted`, also a StoreFull."""
        arguments: list[Argument] = [MARK_MILLISECONDS]
        for single in singles:
            items = single.arguments()
            arguments += (len(items), *items)
        try:
            answers: list[bytes | BaseException] = self._scripts.call("accept_singles", *arguments)
        except StoreFull:
            return self._said_before([single.job_id for single in singles])
        return answers

    def accepted(self, single: NewSingle, answer: bytes | BaseException) -> tuple[Job, list[Ticket]] | None:
        """The job and the tickets to put; None when the store has begun another life: then it needs another id.

        Raises StoreFull, SameRequest and KeyRefused, or what the answer is.
        """
        if isinstance(answer, BaseException):
            raise answer
        if not self._is_accepted(said := text(answer)):
            return None
        where, created_at = said.split()
        job = new_single(single.job_id, single.tenant, single.model, int(created_at), single.input_json)
        return job, _inbox_tickets(where, single.ticket_id, single.model)

    def accept_batch(
        self,
        tenant: str,
        model: ModelVersion,
        layout: Layout,
        batch: SmallBatch,
        *,
        key: str = "",
        fingerprint: str = "",
    ) -> tuple[Job, list[Ticket]] | None:
        """Accepts a whole batch of JSON inputs at once; None when it is too much work for one chunk.

        Returns the job and the tickets to put; `key`, `fingerprint` and what is raised are those of `accept_single`.
        """
        ticket_id = new_inbox_ticket_id()
        facts = (model.key, model.sha256, layout.to_json(), f"{batch.row_bytes:.3f}", batch.rows, batch.chunk)
        limits = (batch.unmeasured_rows, batch.most_seconds)
        call = partial(self._scripts.call, "accept_batch")
        job_id, answer = self._accept(tenant, call, *facts, *limits, *_mark(ticket_id), key, fingerprint)
        if answer == "large":
            return None
        return self._lookup.read(job_id), _inbox_tickets(answer.split()[0], ticket_id, model)

    def retry_single(self, job: Job) -> tuple[Job, list[Ticket]]:
        """Accepts the input of an ended single prediction anew; returns the new job and the tickets to put.

        Raises JobGone when the ended one is not there any more.
        """
        ticket_id = new_inbox_ticket_id()
        call = partial(self._scripts.call, "retry_single")
        job_id, answer = self._accept(job.tenant, call, job.id, *_mark(ticket_id))
        if answer == "gone":
            raise self._gone(job)
        return self._lookup.read(job_id), _inbox_tickets(answer.split()[0], ticket_id, job.model)


def _mark(ticket_id: str) -> tuple[str, int]:
    return ticket_id, MARK_MILLISECONDS


def _inbox_tickets(where: str, ticket_id: str, model: ModelVersion) -> list[Ticket]:
    """The ticket to put for an inbox; none when a worker is on its way there."""
    return [] if where == "ok" else [inbox_ticket(ticket_id, model.key, front=where == "front")]
