"""What the API asks of the store: here for jobs that are there, in jobs/intake.py for those that come.

The list of jobs is in jobs/listing.py; jobs/leases.py is what workers ask of the store.

Every key, what it holds, and when it goes away. `<id>` is a job's, `<model>` a `ModelVersion.key`.

| key | holds | goes away |
| --- | --- | --- |
| `qc:generation` | string: this life of the store: its name, with which ids begin, and the ids' secret | never |
| `qc:job:<id>` | hash: the record | a week after its last touch (a single's: after it came); its ttl after its end |
| `qc:job:<id>:waiting` | list: indexes of chunks that nobody holds | with the record, and at the end |
| `qc:job:<id>:inputs` | hash: index → compressed input | with the record; CSV chunks when they are done |
| `qc:job:<id>:rows` | hash: index → number of rows | with the record |
| `qc:job:<id>:leases` | hash: index → "token worker started_at" of the last lease | with the record, and at the end |
| `qc:job:<id>:results` | hash: index → compressed CSV records | with the record |
| `qc:job:<id>:failures` | hash: index → failed rows with reasons | with the record |
| `qc:job:<id>:done` | hash: index → "ok failed csv_bytes" | with the record |
| `qc:job:<id>:attempts` | list: the last attempts as JSON | with the record |
| `qc:job:<id>:parts` | hash: the search for poison rows by index, and finished parts | as leases, or when it is over |
| `qc:job:<id>:patches` | hash: what results of a retried chunk are merged into | with the record, and when it is done |
| `qc:job:<id>:slots` | hash: slot → "ticket touched_at" | with the record, and at the end |
| `qc:tombstone:<id>` | string: "reason at tenant", for a 410 | `tombstone_ttl_seconds`, with a key 24 h at least |
| `qc:idempotency:<tenant>:<digest>` | string: "id fingerprint", "id" until acceptance | with the tombstone |
| `qc:jobs:<tenant>:<kind>` | sorted set: ids by created_at | a week, at least `tombstone_ttl_seconds`, after the last |
| `qc:batches`, `qc:singles` | sorted set: unended jobs by created_at | empty when nothing is unended |
| `qc:receiving` | sorted set: uploads by deadline | empty when none is open or to be taken back |
| `qc:leases` | sorted set: "id index" by deadline | empty when nothing is leased |
| `qc:inboxes` | set: models whose inbox may hold something | empty when none does |
| `qc:inbox:<model>` | list: single predictions that wait | empty when none waits; a week at most |
| `qc:inbox:<model>:mark` | string: the ticket that is on its way | some seconds |
| `qc:inbox:<model>:batches` | list: small batches that wait there | empty when none waits; a week at most |
| `qc:inbox:<model>:bell` | list: rung for the worker that lingers there | some seconds, or when it was heard |
| `qc:promised` | hash: id → bytes that its results will still take | empty when nothing is unended |
| `qc:plenty` | string: there is plenty of room | 50 ms |
| `qc:rate:<model>` | string: rows per second of one worker, measured | a week after the last batch |
| `qc:turn` | string: whose ticket was last, inbox or batch | a minute |
| `qc:workers` | sorted set: live workers by last announcement | empty ten seconds after the last worker |
| `qc:worker:<name>` | string: "idle" or "busy" | ten seconds |
| `qc:stopped:<name>` | string: the worker said that it stops | ten minutes |
| `qc:served:<model>` | string: some live worker has it | ten seconds |
| `qc:unserved:<model>` | string: since when no live worker has it | minutes |
| `qc:news` | channel: what the scripts have changed | holds nothing |
| `qc:swept` | string: time of the last sweep | a week |

The ttl of a batch is `results_ttl_seconds`, that of a single prediction `single_ttl_seconds`. A single prediction has a
tombstone only if it was deleted or came with an idempotency key: its id says by itself that it was there.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic
from typing import cast

import redis

from jobs.codec.patch import Patch
from jobs.errors import MoveRefused
from jobs.inbox_intake import MARK_MILLISECONDS
from jobs.intake import Intake
from jobs.keys import PREFIX, job_key, text
from jobs.listing import Listing
from jobs.lookup import Lookup
from jobs.record import Attempt, Job, read_attempt
from jobs.scripts import Limits, Scripts, translated
from jobs.seldom import Seldom
from jobs.status import Status
from jobs.tickets import Ticket, asked_tickets

LOOK_SECONDS = 2.0  # between two looks after the same job


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

    `seconds` is what one worker would take for the rows, None when nothing is known; `tickets` wait for `workers`,
    each of which does `rate` rows per second of the job's model, None when nobody has measured it.
    """

    jobs: int
    rows: int
    seconds: float | None
    tickets: int
    workers: int
    rate: float | None


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


class Store:
    """What the API asks of the store. Every method may raise StoreAway or StoreFull."""

    def __init__(self, client: redis.Redis, limits: Limits) -> None:
        self._client = client
        self._limits = limits
        self._scripts = Scripts(client, limits)
        self._lookup = Lookup(client, limits)
        self._looks = Seldom(LOOK_SECONDS)
        self._swept_until = 0.0
        self.intake = Intake(self._scripts, self._lookup)
        self.listing = Listing(client, limits)

    def find(self, job_id: str, tenant: str) -> Job:
        """The job. Raises UnknownJob (another tenant's as well) or JobGone."""
        return self._lookup.find(job_id, tenant)

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

    def ahead(self, job: Job) -> Ahead:
        """What was accepted before this job and has not ended."""
        answer = self._scripts.call("ahead", job.created_at, job.model.key)
        jobs, rows, seconds, _, _, tickets, workers, rate = answer
        return Ahead(
            jobs=int(jobs),
            rows=int(rows),
            seconds=float(seconds) if seconds else None,
            tickets=int(tickets),
            workers=int(workers),
            rate=float(rate) if rate else None,
        )

    def look_after(self, job_id: str) -> list[Ticket] | None:
        """Does a sweep's work for one unended job while no worker sweeps; None when others do, or it is too soon again.

        Returns the tickets to put. Leases are not collected: nobody is there to take them.
        """
        if monotonic() < self._swept_until or not self._looks.is_due(job_id):
            return None
        answer = self._scripts.call("sweep", 0, 0, secrets.token_hex(4), MARK_MILLISECONDS, job_id)
        if answer == b"swept":  # somebody does it: no other job has to be asked for either
            self._swept_until = monotonic() + LOOK_SECONDS
            return None
        return asked_tickets(answer)

    def hold(self, job_id: str, seconds: int) -> bool:
        """Keeps an ended job for so many seconds more at least; False when it is gone."""
        return bool(self._scripts.call("hold", job_id, seconds))

    def queue_state(self) -> QueueState:
        """The whole backlog, and the live workers."""
        jobs, rows, seconds, oldest, now, *_ = self._scripts.call("ahead", "+inf", "")
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
