"""The records and bytes of all jobs: what the API asks of the store. (jobs/leases.py is what workers ask of it.)

Every key, what it holds, and when it goes away. `<id>` is a job's, `<model>` a `ModelVersion.key`.

| key | holds | goes away |
| --- | --- | --- |
| `qc:generation` | string: names this life of the store; every id begins with it | never |
| `qc:job:<id>` | hash: the record | a week after the last touch; once ended, with the results |
| `qc:job:<id>:waiting` | list: indexes of chunks that nobody holds | with the record, and at the end |
| `qc:job:<id>:inputs` | hash: index → compressed input | with the record; CSV chunks when they are done |
| `qc:job:<id>:rows` | hash: index → number of rows | with the record |
| `qc:job:<id>:leases` | hash: index → token of the last lease | with the record, and at the end |
| `qc:job:<id>:results` | hash: index → compressed CSV records | with the record |
| `qc:job:<id>:failures` | hash: index → failed rows with reasons | with the record |
| `qc:job:<id>:done` | hash: index → "ok failed csv_bytes" | with the record |
| `qc:job:<id>:attempts` | list: the last attempts as JSON | with the record |
| `qc:job:<id>:parts` | hash: the search for poison rows by index, and finished parts | as leases, or when it is over |
| `qc:job:<id>:patches` | hash: what results of a retried chunk are merged into | with the record, and when it is done |
| `qc:job:<id>:slots` | hash: slot → "ticket touched_at" | with the record, and at the end |
| `qc:tombstone:<id>` | string: "reason at tenant", for a 410 | `tombstone_ttl_seconds`, with a key 24 h at least |
| `qc:idempotency:<tenant>:<digest>` | string: "id fingerprint", "id" until acceptance | with the tombstone |
| `qc:jobs:<tenant>:<kind>` | sorted set: ids by created_at | a week after the tenant's last job |
| `qc:batches`, `qc:singles` | sorted set: unended jobs by created_at | empty when nothing is unended |
| `qc:receiving` | sorted set: uploads by deadline | empty when none is open |
| `qc:leases` | sorted set: "id index" by deadline | empty when nothing is leased |
| `qc:inboxes` | set: models whose inbox may hold something | empty when none does |
| `qc:inbox:<model>` | list: single predictions that wait | empty when none waits; a week at most |
| `qc:inbox:<model>:mark` | string: the ticket that is on its way | some seconds |
| `qc:promised` | hash: id → bytes that its results will still take | empty when nothing is unended |
| `qc:rate:<model>` | string: rows per second of one worker, measured | a week after the last batch |
| `qc:turn` | string: whose ticket was last, inbox or batch | a minute |
| `qc:workers` | sorted set: live workers by last announcement | empty ten seconds after the last worker |
| `qc:worker:<name>` | string: "idle" or "busy" | ten seconds |
| `qc:stopped:<name>` | string: the worker said that it stops | ten minutes |
| `qc:served:<model>` | string: some live worker has it | ten seconds |
| `qc:unserved:<model>` | string: since when no live worker has it | minutes |
| `qc:swept` | string: time of the last sweep | a week |
"""

import base64
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import redis

from jobs.codec.layout import Layout
from jobs.codec.patch import Patch
from jobs.errors import JobGone, KeyRefused, MoveRefused, SameRequest, StoreFull, UnknownJob, UploadRefused
from jobs.record import Attempt, Job, ModelVersion, read_attempt, read_record
from jobs.scripts import Limits, Scripts, translated
from jobs.seldom import Seldom
from jobs.status import Status
from jobs.tickets import Ticket, asked_tickets, inbox_ticket, job_ticket

PREFIX = "qc:"
GENERATION = PREFIX + "generation"
GENERATION_LENGTH = 6
ID_LENGTH = GENERATION_LENGTH + 26  # 26 characters of base 32 carry 130 bits, 128 of them random
ID_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz234567")
LOOK_SECONDS = 2.0  # between two looks after the same job
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
class Bound:
    """The job that an idempotency key is bound to, and the fingerprint of the request that made it."""

    job_id: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ChunkState:
    """One received chunk of a batch. `ok`, `failed` and `csv_bytes` are 0 until it is done."""

    index: int
    rows: int
    done: bool
    ok: int = 0
    failed: int = 0
    csv_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Ahead:
    """What was accepted before a job and has not ended, and how it is worked on.

    `seconds` is what one worker would take for the rows, None when nothing is known; `tickets` wait for `workers`.
    """

    jobs: int
    rows: int
    seconds: float | None
    tickets: int
    workers: int


@dataclass(frozen=True, slots=True)
class QueueState:
    """The backlog and who works on it; moments in milliseconds by the store's clock, `seconds` of one worker."""

    jobs: int
    rows: int
    seconds: float | None
    oldest_created_at: int | None
    workers_busy: int
    workers_idle: int
    now: int


def job_key(job_id: str, part: str | None = None) -> str:
    """The key of a job's record, or of one of its parts."""
    return f"{PREFIX}job:{job_id}:{part}" if part else f"{PREFIX}job:{job_id}"


def new_token() -> str:
    """A proof of holding something: nobody else can guess it."""
    return secrets.token_hex(8)


def new_inbox_ticket_id() -> str:
    """The id of a ticket for an inbox; while the ticket is on its way it is also the inbox's mark."""
    return "inbox-" + secrets.token_hex(8)


class Store:
    """What the API asks of the store. Every method may raise StoreAway or StoreFull."""

    def __init__(self, client: redis.Redis, limits: Limits) -> None:
        self._client = client
        self._scripts = Scripts(client, limits)
        self._generation: str | None = None
        self._looks = Seldom(LOOK_SECONDS)

    # Accepting

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
        facts = (tenant, form, *_named(model), layout.to_json(), token)
        job_id = self._accept("open", *facts, f"{row_bytes:.3f}", expected_rows, key)[0]
        return Upload(job_id, token)

    def append(self, upload: Upload, index: int, blob: bytes, rows: int) -> Appended:
        """Adds one chunk; the same index twice changes nothing.

        Raises UploadRefused when the job was canceled, deleted or taken back meanwhile or has failed, and StoreFull
        when there is no room for the chunk and its results at this moment.
        """
        answer = self._scripts.call("append", upload.job_id, upload.token, index, rows, blob, secrets.token_hex(4))
        reason, *found = _texts(answer)
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
        return self._read(upload.job_id)

    def take_back(self, upload: Upload) -> None:
        """Erases a batch whose upload failed. One that was canceled, deleted or closed meanwhile is left alone."""
        self._scripts.call("take_back", upload.job_id, upload.token)

    def accept_single(
        self, tenant: str, model: ModelVersion, input_json: str, *, key: str = "", fingerprint: str = ""
    ) -> tuple[Job, list[Ticket]]:
        """Accepts a single prediction; returns the job and the tickets to put.

        `key` is the digest of the idempotency key, if there is one, and `fingerprint` that of the request. Raises
        SameRequest and KeyRefused.
        """
        ticket_id = new_inbox_ticket_id()
        facts = (tenant, *_named(model), input_json, ticket_id, MARK_MILLISECONDS)
        job_id, answer = self._accept("accept_single", *facts, key, fingerprint)
        tickets = [] if answer == "ok" else [inbox_ticket(ticket_id, model.key, front=answer == "front")]
        return self._read(job_id), tickets

    def find_key(self, tenant: str, key: str) -> Bound | None:
        """What the idempotency key with the digest `key` is bound to; None when it is free. Raises KeyRefused."""
        answer = _texts(self._scripts.call("find_key", tenant, key))
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
        job_id, answer = self._accept("open_retry", job.tenant, job.id, token)
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
            reason, *ticket_ids = _texts(answer)
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
        job_id, answer = self._accept("retry_single", job.tenant, job.id, ticket_id, MARK_MILLISECONDS)
        if answer == "gone":
            raise self._gone(job)
        tickets = [] if answer == "ok" else [inbox_ticket(ticket_id, job.model.key, front=answer == "front")]
        return self._read(job_id), tickets

    def _gone(self, job: Job) -> JobGone:
        """What is known of a job that was there a moment ago."""
        self.find(job.id, job.tenant)  # raises it, mostly
        return JobGone(job.id, "job_expired", None)

    def _accept(self, script: str, *arguments: str | int) -> tuple[str, str]:
        """Makes an id of the store's present generation and runs an accepting script with it."""
        while True:
            generation = self._generation or self._read_generation()
            job_id = generation + _random_id()
            answer = text(self._scripts.call(script, job_id, generation, *arguments))
            _check_room(answer)
            _check_key(answer)
            if answer != "generation":
                return job_id, answer
            self._generation = None  # the store has begun another life since we asked

    def _read_generation(self) -> str:
        """The store's generation, begun here if it has none yet."""
        begun = _random_id()[:GENERATION_LENGTH]
        with translated():
            found = self._client.set(GENERATION, begun, nx=True, get=True)
        self._generation = text(found) if found else begun
        return self._generation

    # Looking

    def find(self, job_id: str, tenant: str) -> Job:
        """The job. Raises UnknownJob (another tenant's as well) or JobGone."""
        if not looks_like_id(job_id):
            raise UnknownJob(job_id)
        with translated(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(job_key(job_id))
            pipeline.get(f"{PREFIX}tombstone:{job_id}")
            pipeline.get(GENERATION)
            record, tombstone, generation = pipeline.execute()
        if record:
            job = read_record(job_id, _fields(record))
            if job.tenant == tenant:
                return job
            raise UnknownJob(job_id)
        if tombstone:
            reason, at, owner = text(tombstone).split(" ", 2)
            if owner == tenant:
                raise JobGone(job_id, reason, int(at))
        elif not job_id.startswith(text(generation) if generation else self._read_generation()):
            raise JobGone(job_id, "job_lost", None)
        raise UnknownJob(job_id)

    def attempts(self, jobs: Iterable[Job]) -> dict[str, list[Attempt]]:
        """The last attempts of each of these jobs that has any, by id; asks the store only if there is one."""
        troubled = [job.id for job in jobs if job.attempts]
        if not troubled:
            return {}
        with translated(), self._client.pipeline(transaction=False) as pipeline:
            for job_id in troubled:
                pipeline.lrange(job_key(job_id, "attempts"), 0, -1)
            lists = pipeline.execute()
        return {job_id: list(map(read_attempt, found)) for job_id, found in zip(troubled, lists, strict=True)}

    def jobs(
        self, tenant: str, status: Status | None, model: str | None, limit: int, cursor: str | None
    ) -> tuple[list[Job], str | None]:
        """The tenant's jobs, newest first, and the cursor of the next page. Raises ValueError for a bad cursor."""
        before = _read_cursor(cursor) if cursor else None
        found: list[Job] = []
        while True:
            page = self._page(tenant, before, most=max(limit, 100))
            for created_at, job_id, job in page:
                before = (created_at, job_id)
                if job and status in (None, job.status) and model in (None, job.model.name):
                    found.append(job)
                    if len(found) == limit:
                        return found, _write_cursor(before)
            if not page:
                return found, None

    def _page(self, tenant: str, before: tuple[int, str] | None, most: int) -> list[tuple[int, str, Job | None]]:
        """Up to `most` jobs of both kinds that come after the cursor, newest first; None is one that is gone."""
        # Strictly older ones: did some of `most` come before the cursor, the one kind's would end too early, and jobs
        # of that kind be left out behind older ones of the other.
        bound = f"({before[0]}" if before else "+inf"
        with translated(), self._client.pipeline(transaction=False) as pipeline:
            for kind in ("batch", "single"):
                key = f"{PREFIX}jobs:{tenant}:{kind}"
                # Jobs of the cursor's own millisecond may be on both sides of it, so all of them are read.
                pipeline.zrevrangebyscore(key, bound, "-inf", start=0, num=most, withscores=True)
                if before:
                    pipeline.zrangebyscore(key, before[0], before[0], withscores=True)
            listed = {(int(at), text(job_id)) for entries in pipeline.execute() for job_id, at in entries}
        order = sorted((entry for entry in listed if before is None or entry < before), reverse=True)[:most]
        with translated(), self._client.pipeline(transaction=False) as pipeline:
            for _, job_id in order:
                pipeline.hgetall(job_key(job_id))
            records = pipeline.execute()
        return [
            (at, job_id, read_record(job_id, _fields(record)) if record else None)
            for (at, job_id), record in zip(order, records, strict=True)
        ]

    def ahead(self, job: Job) -> Ahead:
        """What was accepted before this job and has not ended."""
        jobs, rows, seconds, _, _, tickets, workers = self._scripts.call("ahead", job.created_at)
        return Ahead(int(jobs), int(rows), float(seconds) if seconds else None, int(tickets), int(workers))

    def look_after(self, job_id: str) -> list[Ticket] | None:
        """Does a sweep's work for one unended job while no worker sweeps; None when it is too soon to look again.

        Returns the tickets to put. Leases are not collected: nobody is there to take them.
        """
        if not self._looks.is_due(job_id):
            return None
        return asked_tickets(self._scripts.call("sweep", 0, 0, secrets.token_hex(4), MARK_MILLISECONDS, job_id))

    def hold(self, job_id: str, seconds: int) -> bool:
        """Keeps an ended job for so many seconds more at least; False when it is gone."""
        return bool(self._scripts.call("hold", job_id, seconds))

    def queue_state(self) -> QueueState:
        """The whole backlog, and the live workers."""
        jobs, rows, seconds, oldest, now, _, _ = self._scripts.call("ahead", "+inf")
        with translated():
            workers = [text(name) for name in self._client.zrange(PREFIX + "workers", 0, -1)]
            states = self._client.mget([f"{PREFIX}worker:{name}" for name in workers]) if workers else []
        return QueueState(
            jobs=int(jobs),
            rows=int(rows),
            seconds=float(seconds) if seconds else None,
            oldest_created_at=int(oldest) if oldest else None,
            workers_busy=states.count(b"busy"),
            workers_idle=states.count(b"idle"),
            now=int(now),
        )

    def ping(self) -> None:
        """Returns when the store answers."""
        with translated():
            self._client.ping()

    # Ending

    def cancel(self, job_id: str, tenant: str) -> Job:
        """Stops a job. Raises MoveRefused when it succeeded or failed, UnknownJob or JobGone."""
        self.find(job_id, tenant)
        answer = text(self._scripts.call("cancel", job_id, tenant))
        if answer not in ("ok", "unknown"):
            raise MoveRefused(job_id, Status(answer), Status.CANCELED)
        return self.find(job_id, tenant)

    def delete(self, job_id: str, tenant: str) -> None:
        """Erases a job's input and results now. Raises UnknownJob or JobGone."""
        self.find(job_id, tenant)
        self._scripts.call("delete", job_id, tenant)

    # Bytes

    def chunks(self, job: Job) -> list[ChunkState]:
        """Every received chunk of a batch, in input order."""
        with translated(), self._client.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(job_key(job.id, "rows"))
            pipeline.hgetall(job_key(job.id, "done"))
            rows, done = pipeline.execute()
        outcomes = {int(index): [int(number) for number in counts.split()] for index, counts in done.items()}
        return [
            ChunkState(index, int(rows[field]), index in outcomes, *outcomes.get(index, ()))
            for index, field in sorted((int(field), field) for field in rows)
        ]

    def result(self, job_id: str, index: int) -> bytes | None:
        """The compressed CSV records of a chunk that is done; None when they are gone."""
        return self._part(job_id, "results", index)

    def failures(self, job_id: str, index: int) -> bytes | None:
        """The failed rows of a chunk that is done (jobs.codec.chunk); None when it has none."""
        return self._part(job_id, "failures", index)

    def input(self, job_id: str, index: int) -> bytes | None:
        """The compressed input of a chunk that is not done, or of any chunk that came as JSON."""
        return self._part(job_id, "inputs", index)

    def patch(self, job_id: str, index: int) -> Patch | None:
        """What the results of a chunk that is not done are merged into; None when it is not retried."""
        fields = [str(index), f"{index}:result", f"{index}:failures"]
        with translated():
            found = cast(list[bytes | None], self._client.hmget(job_key(job_id, "patches"), fields))
        mark, result, failures = (value or b"" for value in found)
        return Patch.read(mark, result, failures)

    def _part(self, job_id: str, part: str, index: int) -> bytes | None:
        with translated():
            return cast(bytes | None, self._client.hget(job_key(job_id, part), str(index)))

    def _read(self, job_id: str) -> Job:
        with translated():
            record = self._client.hgetall(job_key(job_id))
        if not record:
            raise JobGone(job_id, "job_deleted", None)
        return read_record(job_id, _fields(record))


def looks_like_id(text: str) -> bool:
    """Whether a job could have this id; what comes from outside is checked before it becomes part of a key."""
    return len(text) == ID_LENGTH and ID_ALPHABET.issuperset(text)


def _random_id() -> str:
    return base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()


def _named(model: ModelVersion) -> tuple[str, str, str, str]:
    return model.name, model.version, model.sha256, model.key


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


def _write_cursor(before: tuple[int, str]) -> str:
    return f"{before[0]}-{before[1]}"


def _read_cursor(cursor: str) -> tuple[int, str]:
    at, _, job_id = cursor.partition("-")
    if not at.isascii() or not at.isdigit() or len(at) > 15 or not looks_like_id(job_id):
        raise ValueError("the cursor is not one that this server gave out")
    return int(at), job_id


def text(value: Any) -> str:  # noqa: ANN401 - the client library says so too
    """What the store holds as bytes, as text."""
    return value.decode() if isinstance(value, bytes) else value


def _texts(values: Iterable[bytes]) -> list[str]:
    return [text(value) for value in values]


def _fields(record: Mapping[Any, Any]) -> dict[str, str]:
    return {text(name): text(value) for name, value in record.items()}
