"""What workers ask of the store: holding work for a time, handing in its results, and the sweep that repairs.

What is about inboxes stands in jobs/inbox_leases.py.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import redis

from jobs.codec.layout import Layout
from jobs.codec.patch import Patch
from jobs.inbox_intake import MARK_MILLISECONDS
from jobs.inbox_leases import InboxLeases
from jobs.keys import PREFIX, job_key, new_token, text
from jobs.lease import Lease
from jobs.record import ModelVersion
from jobs.scripts import TICKETS_KEY, Limits, Scripts, translated
from jobs.tickets import Ticket, asked_tickets, job_ticket


@dataclass(frozen=True, slots=True)
class LeasedChunk:
    """A chunk to predict.

    `losses` says how many workers were lost over it, `search` how far the search for a poison row in it has come
    (worker.suspects; None: there is none), `rows_per_second` what one worker does of the model (None: nobody knows),
    `doubted` how many chunks of the job were, as long as no row of it has a prediction, `disturbed` whether a single
    prediction has killed a predictor that was at it. `patch` holds what an earlier job made of the chunk, which has
    `rows_in_all`.
    """

    lease: Lease
    rows: int
    blob: bytes
    tickets_waiting: int
    losses: int
    search: str | None
    rows_per_second: float | None
    doubted: int
    disturbed: bool
    patch: Patch | None = None
    rows_in_all: int = 0

    def to_predict(self, layout: Layout) -> "LeasedChunk":
        """The chunk with the rows that are to be predicted: of one that an earlier job has predicted, some."""
        if self.patch is None:
            return self
        blob, rows = self.patch.chunk(layout)
        return replace(self, blob=blob, rows=rows)


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What came out of a chunk: blobs as jobs.codec.chunk makes them; `failures` is empty when no row failed.

    `seconds` is how long the predictor worked on it, 0 where that tells nothing of the model's speed.
    """

    ok: int
    failed: int
    csv_bytes: int
    has_surplus: bool
    result: bytes
    failures: bytes
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class SearchStep:
    """One step of the search for a poison row in a chunk.

    `state` is what it has come to, empty when that stays; `part` the result of the rows from `start` up to `stop`, if
    they were finished; `reason` and `seconds` are of the attempt that ended badly, if one did.
    """

    state: str = ""
    start: int = 0
    stop: int = 0
    part: bytes = b""
    reason: str = ""
    seconds: float = 0.0
    nonce: str = field(default_factory=new_token)  # by which a step that is repeated is known


class Leases(InboxLeases):
    """What a worker asks of the store. Every method may raise StoreAway or StoreFull."""

    def __init__(self, client: redis.Redis, limits: Limits, worker: str) -> None:
        """`worker` is the name that leases and attempts carry."""
        self._client = client
        self._worker = worker
        self._scripts = Scripts(client, limits)
        self._lease_milliseconds = int(limits.lease_seconds * 1000)

    def describe(self, job_id: str) -> tuple[ModelVersion, Layout] | None:
        """Which model a batch is for and how it is laid out; None when it is gone."""
        with translated():
            fields = self._client.hmget(job_key(job_id), ["model_key", "sha256", "layout"])
        if None in fields:
            return None
        model_key, sha256, layout = map(text, fields)
        return ModelVersion.of(model_key, sha256), Layout.from_json(layout)

    def unended_batches(self) -> list[str]:
        """The ids of up to a hundred batches that have not ended, the oldest first."""
        with translated():
            return [text(job_id) for job_id in self._client.zrange(f"{PREFIX}batches", 0, 99)]

    def lease(self, job_id: str, slot: int, ticket_id: str, ahead: bool = False) -> LeasedChunk | None:
        """The next waiting chunk of a batch; None when there is none, or the job has ended or is gone.

        `ahead`: the worker is not free yet, so only if enough wait for all the others.
        """
        token = new_token()
        holding = (token, self._worker, self._lease_milliseconds)
        answer = self._scripts.call("lease", job_id, *holding, slot, ticket_id, int(ahead))
        if answer[0] != b"chunk":
            return None
        _, index, rows, blob, waiting, losses, search, rate, doubted, disturbed, *patch = answer
        return LeasedChunk(
            lease=Lease(job_id, index.decode(), token),
            rows=int(rows),
            rows_in_all=int(rows),
            blob=blob,
            tickets_waiting=int(waiting),
            losses=int(losses),
            search=search.decode() or None,
            rows_per_second=float(rate) if rate else None,
            doubted=int(doubted),
            disturbed=bool(disturbed),
            patch=Patch.read(*patch),
        )

    def renew(self, leases: Sequence[Lease], slot: int, ticket_id: str) -> list[Lease]:
        """Renews leases; returns those that are lost."""
        lost = self._scripts.call("renew", self._lease_milliseconds, slot, ticket_id, *_flat(leases))
        return [leases[int(position) - 1] for position in lost]

    def commit(self, lease: Lease, result: ChunkResult, keep_input: bool) -> bool:
        """Hands in the result of a chunk; False when the lease is not held any more. Safe to repeat."""
        answer = self._scripts.call(
            "commit",
            *(lease.job_id, lease.index, lease.token),
            *(result.ok, result.failed, result.csv_bytes, int(result.has_surplus), int(keep_input)),
            *(result.result, result.failures, f"{result.seconds:.6f}"),
        )
        return bool(answer == b"ok")

    def give_back(self, leases: Sequence[Lease], reason: str = "") -> None:
        """Hands leases back unfinished, to the front. `reason`: the attempt that this was, to be listed.

        It is "shutdown", or what a single prediction has done to the predictor, which disturbed the chunk.
        """
        self._scripts.call("give_back", reason, *_flat(leases))

    def keep_search(self, lease: Lease, step: SearchStep) -> bool:
        """Keeps how far the search for a poison row has come; False when the lease is not held any more."""
        field = f"{lease.index}:{step.start}-{step.stop}" if step.part else ""
        answer = self._scripts.call(
            "search",
            *(lease.job_id, lease.index, lease.token, step.state, field, step.part),
            *(step.reason, int(step.seconds * 1000), step.nonce),
        )
        return bool(answer == b"ok")

    def finished_parts(self, lease: Lease) -> dict[tuple[int, int], bytes]:
        """The parts of a chunk, by their first row and the one after their last, as `keep_search` got them."""
        prefix = f"{lease.index}:"
        with translated():
            found = dict(self._client.hscan_iter(job_key(lease.job_id, "parts"), match=prefix + "*", count=1000))
        parts = {}
        for name, part in found.items():
            start, _, stop = text(name).removeprefix(prefix).partition("-")
            parts[int(start), int(stop)] = part
        return parts

    def doubt(self, lease: Lease, state: str, enough: int) -> str:
        """Puts a chunk behind all others, since it may be the model that is to blame: see jobs/lua/doubt.lua."""
        answer = self._scripts.call("doubt", lease.job_id, lease.index, lease.token, state, enough)
        return cast(bytes, answer).decode()

    def fail(self, job_ids: Sequence[str], code: str, message: str) -> None:
        """Ends jobs that cannot go on as a whole."""
        self._scripts.call("fail", code, message, *job_ids)

    def hand_on_slot(self, job_id: str, slot: int, ticket_id: str, front: bool) -> Ticket | None:
        """At the end of a slice: the ticket to put for the next one; None when nothing waits or it is another's."""
        following = f"{job_id}-{slot}-{secrets.token_hex(4)}"
        if self._scripts.call("keep_slot", job_id, slot, ticket_id, following):
            return job_ticket(following, front)
        return None

    def tickets_wait(self) -> bool:
        """Whether other tickets wait for a worker."""
        with translated():
            return bool(self._client.llen(TICKETS_KEY))

    def announce(self, worker: str, state: str, model_keys: Sequence[str]) -> None:
        """Says that a worker lives, that it is "idle", "busy" or "gone", and which model versions it has."""
        self._scripts.call("announce", worker, state, *model_keys)

    def sweep(self, pause_seconds: float) -> list[Ticket]:
        """The repair pass, unless one was made less than `pause_seconds` ago; returns the tickets to put."""
        answer = self._scripts.call(
            "sweep",
            self._lease_milliseconds,
            int(pause_seconds * 1000),
            secrets.token_hex(4),
            MARK_MILLISECONDS,
        )
        return asked_tickets(answer)


def _flat(leases: Sequence[Lease]) -> list[str]:
    return [text for lease in leases for text in (lease.job_id, lease.index, lease.token)]
