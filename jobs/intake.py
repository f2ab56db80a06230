"""Accepting: how jobs and their rows come into the store."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from jobs.codec.layout import Layout
from jobs.combined import Combined
from jobs.errors import JobGone, KeyRefused, SameRequest, StoreFull, UploadRefused
from jobs.keys import new_inbox_ticket_id, new_token, text, texts
from jobs.lookup import Lookup
from jobs.pieces import pieces
from jobs.record import Job, ModelVersion, new_single, packed_sha256
from jobs.scripts import Argument, Scripts
from jobs.tickets import Ticket, inbox_ticket, job_ticket

MARK_MILLISECONDS = 5000  # how long an inbox's ticket may be on its way before another is asked for


@dataclass(frozen=True, slots=True)
class Upload:
    """The right to append to, and to close, one batch that is being received."""

    job_id: str
    token: str


@dataclass(frozen=True, slots=True)
class Appended:
    """What follows from a chunk that was added.

    `rows_per_second` is what one worker does of this model (None: nobody has measured), `backlog_bytes` is input of
    this batch that is not done, `tickets` are to be put.
    """

    rows_per_second: float | None
    backlog_bytes: int
    tickets: list[Ticket]


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
    """A single prediction to be accepted: `key` and `fingerprint` as `Intake.accept_single` has them."""

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


@dataclass(frozen=True, slots=True)
class Bound:
    """The job that an idempotency key is bound to, and the fingerprint of the request that made it."""

    job_id: str
    fingerprint: str


class Intake:
    """What accepts jobs. Every method may raise StoreAway or StoreFull."""

    def __init__(self, scripts: Scripts, lookup: Lookup) -> None:
        self._scripts = scripts
        self._lookup = lookup
        self._singles = Combined(self.accept_singles)

    def open_batch(
        self,
        tenant: str,
        form: str,
        model: ModelVersion,
        layout: Layout,
        *,
        row_bytes: float = 0.0,
        expected_rows: int = 0,
        key: str = "",
    ) -> Upload:
        """Creates the record of a batch whose body is still arriving.

        `row_bytes` is what a row of results will take in the store; `expected_rows` is 0 when nobody knows; `key` is
        the digest of the idempotency key, if there is one. Raises KeyRefused when another job has it, and StoreFull
        when the results of so many rows could not be kept.
        """
        token = new_token()
        facts = (form, model.key, model.sha256, layout.to_json(), token, f"{row_bytes:.3f}", expected_rows, key)
        job_id, _ = self._accept(tenant, partial(self._scripts.call, "open"), *facts)
        return Upload(job_id, token)

    def append(self, upload: Upload, index: int, blob: bytes, rows: int) -> Appended:
        """Adds one chunk; the same index twice changes nothing.

        Raises UploadRefused when the job was canceled, deleted or taken back meanwhile or has failed, and StoreFull
        when there is no room for the chunk and its results at this moment.
        """
        answer = self._scripts.call("append", upload.job_id, upload.token, index, rows, blob, secrets.token_hex(4))
        reason, *found = texts(answer)
        _check_upload(upload, reason)
        rate, backlog_bytes, *ticket_ids = found
        return Appended(
            float(rate) if rate else None, int(backlog_bytes), [job_ticket(ticket_id) for ticket_id in ticket_ids]
        )

    def renew_upload(self, upload: Upload) -> None:
        """Moves the deadline of an upload that is slow but alive. Raises UploadRefused."""
        _check_upload(upload, text(self._scripts.call("renew_upload", upload.job_id, upload.token)))

    def close(self, upload: Upload, chunks: int, fingerprint: str = "") -> Job:
        """Closes an upload of so many chunks: from here on the job is accepted. Raises UploadRefused.

        The `fingerprint` of the request is what its idempotency key is bound to, if it came with one.
        """
        answer = self._scripts.call("close", upload.job_id, upload.token, chunks, fingerprint)
        _check_upload(upload, text(answer))
        return self._lookup.read(upload.job_id)

    def take_back(self, upload: Upload) -> None:
        """Erases a batch whose upload failed. One that was canceled, deleted or closed meanwhile is left alone."""
        self._scripts.call("take_back", upload.job_id, upload.token)

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
        """Accepts single predictions in one round trip; the answer to each is for `accepted`."""
        arguments: list[Argument] = [MARK_MILLISECONDS]
        for single in singles:
            items = single.arguments()
            arguments += (len(items), *items)
        answers: list[bytes | BaseException] = self._scripts.call("accept_singles", *arguments)
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

    def find_key(self, tenant: str, key: str) -> Bound | None:
        """What the idempotency key with the digest `key` is bound to; None when it is free. Raises KeyRefused."""
        answer = texts(self._scripts.call("find_key", tenant, key))
        if not answer:
            return None
        _check_key(answer[0])
        job_id, fingerprint = answer
        return Bound(job_id, fingerprint)

    def free_key(self, job: Job) -> None:
        """Frees the idempotency key that a job came with, so that the same request makes a new job."""
        self._scripts.call("free_key", job.id)

    # Retrying

    def open_retry(self, job: Job) -> Upload:
        """Creates the record of a batch that retries an ended one; `copy_chunks` and `close` follow.

        Raises JobGone when that one is not there any more, and StoreFull when what is copied could not be kept.
        """
        token = new_token()
        job_id, answer = self._accept(job.tenant, partial(self._scripts.call, "open_retry"), job.id, token)
        if answer == "gone":
            raise self._gone(job)
        return Upload(job_id, token)

    def copy_chunks(self, upload: Upload, job: Job, indexes: Iterable[int], rows: str) -> list[Ticket]:
        """Copies chunks of an ended batch into the one that retries its `rows`; returns the tickets to put.

        `rows` is "failed", "unprocessed", "both" or "all". The same index twice changes nothing. Raises JobGone,
        UploadRefused and StoreFull.
        """
        facts = [(upload.job_id, upload.token, index, job.id, rows, secrets.token_hex(4)) for index in indexes]
        tickets: list[Ticket] = []
        for answer in self._scripts.call_all("copy_chunk", facts):
            reason, *ticket_ids = texts(answer)
            if reason == "gone":
                raise self._gone(job)
            _check_upload(upload, reason)
            tickets += map(job_ticket, ticket_ids)
        return tickets

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

    def _gone(self, job: Job) -> JobGone:
        """What is known of a job that was there a moment ago."""
        self._lookup.find(job.id, job.tenant)  # raises it, mostly
        return JobGone(job.id, "job_expired", None)

    def _accept(self, tenant: str, call: Callable[..., Any], *arguments: Argument) -> tuple[str, str]:
        """Makes an id of the store's present generation and calls an accepting script with it."""
        while True:
            job_id, generation = self._lookup.new_id(tenant)
            answer = text(call(job_id, generation, tenant, *arguments))
            if self._is_accepted(answer):
                return job_id, answer

    def _is_accepted(self, answer: str) -> bool:
        """False when the store has begun another life since we asked. Raises what the answer refuses with."""
        _check_room(answer)
        _check_key(answer)
        if answer == "generation":
            self._lookup.forget_generation()
        return answer != "generation"


def _mark(ticket_id: str) -> tuple[str, int]:
    return ticket_id, MARK_MILLISECONDS


def _inbox_tickets(where: str, ticket_id: str, model: ModelVersion) -> list[Ticket]:
    """The ticket to put for an inbox; none when a worker is on its way there."""
    return [] if where == "ok" else [inbox_ticket(ticket_id, model.key, front=where == "front")]


def _check_upload(upload: Upload, reason: str) -> None:
    _check_room(reason)
    if reason != "ok":
        raise UploadRefused(upload.job_id, reason)


def _check_room(answer: str) -> None:
    """Raises StoreFull when that is what a script says."""
    if answer.startswith("full "):
        _, needed, free = answer.split()
        raise StoreFull(int(needed), int(free))


def _check_key(answer: str) -> None:
    """Raises KeyRefused or SameRequest when a script says that another job has the idempotency key."""
    if answer.startswith("idempotency_key_"):
        raise KeyRefused(answer)
    if answer.startswith("same "):
        raise SameRequest(answer.removeprefix("same "))
