"""One slice of time on one job or one inbox: lease, predict, commit, next; then the ticket goes to the back."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import TypeVar

from jobs.codec.layout import Layout
from jobs.errors import StoreAway, StoreFull
from jobs.leases import ChunkResult, Lease, LeasedChunk, LeasedSingles, Leases, SingleResult
from jobs.record import ModelVersion
from jobs.tickets import Ticket, TicketQueue
from models.catalog import Catalog
from worker.child import Child, ChildDied
from worker.frames import Frame
from worker.rounds import Rounds

log = logging.getLogger(__name__)

RENEW_SECONDS = 1.0
SINGLES_AT_ONCE = 256
TURN_SECONDS = 0.2  # a slice is over so soon when another ticket waits: its job has its turn then
LINGER_SECONDS = 0.05  # an inbox's slice waits so long for the next single before it ends
LINGER_STEP_SECONDS = 0.005
WITHOUT_VERSION_SECONDS = 0.1  # the pause before a ticket that this worker cannot serve goes to the back
LONGEST_PAUSE_SECONDS = 2.0  # between two tries while the store is away

T = TypeVar("T")


class Stopping(Exception):
    """Raised out of a wait when the worker was told to stop."""


class LeaseLost(Exception):
    """Raised out of a wait when nothing that is worked on is held any more: canceled, deleted or taken over."""


@dataclass
class Duty:
    """What the worker holds at this moment, and the ticket it holds it for."""

    slot: int = -1
    ticket_id: str = ""
    leases: list[Lease] = field(default_factory=list)
    renew_at: float = 0.0


class Slices:
    """Does the work that tickets ask for. One ticket at a time; it never raises because a store is away."""

    def __init__(
        self,
        *,
        leases: Leases,
        tickets: TicketQueue,
        child: Child,
        catalog: Catalog,
        rounds: Rounds,
        slice_seconds: float,
        max_attempts: int,
    ) -> None:
        self._leases = leases
        self._tickets = tickets
        self._child = child
        self._models = {manifest.key: manifest for manifest in catalog.manifests}
        self._rounds = rounds
        self._slice_seconds = slice_seconds
        self._max_attempts = max_attempts
        self._duty = Duty()
        self.stopping = False

    def work_on_job(self, job_id: str, slot: int, ticket_id: str) -> None:
        """Spends a slice on a batch. Returns when the slice is over, nothing waits, or the worker has to stop."""
        self._duty = Duty(slot, ticket_id)
        described = self._leases.describe(job_id)
        if described is None:
            return
        model, layout = described
        try:
            if model.key in self._models:
                self._work_on_chunks(job_id, model, layout)
            else:
                self._pause(WITHOUT_VERSION_SECONDS)
        except Stopping:
            log.info("stopping: what was unfinished is handed back")
        self._put(self._leases.hand_on_slot(job_id, slot, ticket_id, front=self.stopping))

    def work_on_inbox(self, model_key: str, ticket_id: str) -> None:
        """Predicts what waits in an inbox, lingers a moment for more, and ends when nothing came."""
        self._duty = Duty(ticket_id=ticket_id)
        if model_key not in self._models:
            self._pause(WITHOUT_VERSION_SECONDS)
            return  # the mark lapses, and the sweep asks again: some other worker may have the version
        try:
            if not self._work_on_inbox(model_key, ticket_id):
                return
        except Stopping:
            log.info("stopping: what was unfinished is handed back")
        self._put(self._leases.hand_on_inbox(model_key, ticket_id, front=self.stopping))

    def _work_on_inbox(self, model_key: str, ticket_id: str) -> bool:
        """False when nothing waits any more, True when the slice is over before."""
        until = monotonic() + self._slice_seconds
        while not self.stopping and monotonic() < until:
            busy = self._work_on_singles([model_key]) or self._linger(model_key)
            if not busy and not self._leases.keep_inbox(model_key, ticket_id):
                return False
        return True

    def _work_on_chunks(self, job_id: str, model: ModelVersion, layout: Layout) -> None:
        began = monotonic()
        spent, waiting = 0.0, 0
        while not self.stopping and spent < (
            min(TURN_SECONDS, self._slice_seconds) if waiting else self._slice_seconds
        ):
            chunk = self._leases.lease(job_id, self._duty.slot, self._duty.ticket_id)
            if chunk is None:
                return
            self._work_on_chunk(chunk, model, layout)
            self._look_at_inboxes()
            spent, waiting = monotonic() - began, chunk.tickets_waiting

    def _work_on_chunk(self, chunk: LeasedChunk, model: ModelVersion, layout: Layout) -> None:
        with self._holding([chunk.lease]):
            try:
                answer = self._child.ask(self._chunk_frame(chunk, model, layout), self._tick, self._look_at_inboxes)
            except ChildDied:
                self._insist(lambda: self._leases.give_back([chunk.lease], counted=True))
                return
            except Stopping:
                self._leases.give_back([chunk.lease], counted=False)
                raise
            except LeaseLost:
                return
            if answer.head["is"] == "refused":
                self._refuse([chunk.lease], answer)
                return
            result = _chunk_result(answer)
            keep_input = layout.format == "json" and bool(layout.keep)
            if self._insist(lambda: self._leases.commit(chunk.lease, result, keep_input)):
                log.debug("committed chunk %s of job %s", chunk.lease.index, chunk.lease.job_id)

    def _chunk_frame(self, chunk: LeasedChunk, model: ModelVersion, layout: Layout) -> Frame:
        head = {"do": "chunk", "model": _named(model), "layout": layout.to_json(), "rows": chunk.rows}
        if chunk.crashes >= self._max_attempts:
            head["verdict"] = ["worker_crashed", None, f"the predictor died {chunk.crashes} times over these rows"]
        return Frame(head, (chunk.blob,))

    def _refuse(self, leases: Sequence[Lease], answer: Frame) -> None:
        """The predictor cannot load the model: the job cannot go on, unless another worker has the version."""
        code, message = answer.head["code"], answer.head["message"]
        log.error("the predictor refused: %s: %s", code, message)
        if code == "model_unavailable":
            self._insist(lambda: self._leases.give_back(leases, counted=False))
            self._pause(WITHOUT_VERSION_SECONDS)
        else:
            self._insist(lambda: self._leases.fail([lease.job_id for lease in leases], code, message))

    # Single predictions

    def _look_at_inboxes(self) -> None:
        """Makes room for single predictions between two chunks, or two sub-blocks of one."""
        try:
            self._work_on_singles(list(self._models))
        except (StoreAway, StoreFull) as error:
            log.warning("could not look at the inboxes: %s", error)

    def _work_on_singles(self, model_keys: Sequence[str]) -> bool:
        """Predicts what waits for one of these models; False when nothing does."""
        singles = self._leases.lease_singles(model_keys, SINGLES_AT_ONCE, self._duty.ticket_id)
        if singles is None:
            return False
        manifest = self._models[singles.model_key]
        model = ModelVersion(manifest.name, manifest.version, manifest.sha256)
        with self._holding(singles.leases):
            try:
                self._predict_singles(singles, model)
            except Stopping:
                self._leases.give_back(singles.leases, counted=False)
                raise
            except LeaseLost:
                pass
        return True

    def _predict_singles(self, singles: LeasedSingles, model: ModelVersion) -> None:
        try:
            self._ask_singles(singles, model, singles.inputs)
        except ChildDied:
            # One of them killed the predictor: each on its own, so that it takes nobody with it.
            for job_id, text in singles.inputs.items():
                self._predict_alone(singles, model, job_id, text)

    def _predict_alone(self, singles: LeasedSingles, model: ModelVersion, job_id: str, text: str) -> None:
        for _ in range(2):
            try:
                self._ask_singles(singles, model, {job_id: text})
            except ChildDied:
                continue
            return
        outcome = SingleResult(None, "worker_crashed", "predicting this row killed the predicting process twice")
        self._insist(lambda: self._leases.commit_singles(singles.token, {job_id: outcome}))

    def _ask_singles(self, singles: LeasedSingles, model: ModelVersion, inputs: dict[str, str]) -> None:
        body = json.dumps(list(inputs.values())).encode()
        answer = self._child.ask(Frame({"do": "singles", "model": _named(model)}, (body,)), self._tick)
        if answer.head["is"] == "refused":
            self._refuse([lease for lease in singles.leases if lease.job_id in inputs], answer)
            return
        results = dict(zip(inputs, map(_single_result, json.loads(answer.bodies[0])), strict=True))
        self._insist(lambda: self._leases.commit_singles(singles.token, results))

    def _linger(self, model_key: str) -> bool:
        """Waits a moment for the next single; True as soon as there was one."""
        until = monotonic() + LINGER_SECONDS
        while not self.stopping and monotonic() < until:
            sleep(LINGER_STEP_SECONDS)
            if self._work_on_singles([model_key]):
                return True
        return False

    # While waiting

    def _holding(self, leases: list[Lease]) -> "_Holding":
        return _Holding(self._duty, leases)

    def _tick(self) -> None:
        """Called all the time while the predictor works. Raises Stopping or LeaseLost."""
        if self.stopping:
            raise Stopping
        self._rounds.turn()
        if monotonic() < self._duty.renew_at:
            return
        self._duty.renew_at = monotonic() + RENEW_SECONDS
        try:
            lost = self._leases.renew(self._duty.leases, self._duty.slot, self._duty.ticket_id)
        except (StoreAway, StoreFull) as error:
            log.warning("could not renew leases: %s", error)
            return
        if self._duty.leases and len(lost) == len(self._duty.leases):
            raise LeaseLost

    def _insist(self, call: Callable[[], T]) -> T | None:
        """Repeats a call that is safe to repeat until the store takes it; None when the worker has to stop first."""
        pause = 0.05
        while True:
            try:
                return call()
            except (StoreAway, StoreFull) as error:
                log.warning("holding the result: %s", error)
            if self.stopping:
                return None
            sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _pause(self, seconds: float) -> None:
        if not self.stopping:
            sleep(seconds)

    def _put(self, ticket: Ticket | None) -> None:
        if ticket:
            self._tickets.put([ticket])


class _Holding:
    """Adds leases to the worker's duty for a while: all that is held is renewed together."""

    def __init__(self, duty: Duty, leases: list[Lease]) -> None:
        self._duty = duty
        self._leases = leases

    def __enter__(self) -> None:
        self._duty.leases = self._duty.leases + self._leases
        self._duty.renew_at = min(self._duty.renew_at or monotonic() + RENEW_SECONDS, monotonic() + RENEW_SECONDS)

    def __exit__(self, *_: object) -> None:
        gone = set(self._leases)
        self._duty.leases = [lease for lease in self._duty.leases if lease not in gone]


def _named(model: ModelVersion) -> list[str]:
    return [model.name, model.version, model.sha256]


def _chunk_result(answer: Frame) -> ChunkResult:
    head = answer.head
    return ChunkResult(
        head["ok"],
        head["failed"],
        head["csv_bytes"],
        head["has_surplus"],
        answer.bodies[0],
        answer.bodies[1],
        head["seconds"],
    )


def _single_result(outcome: dict[str, object]) -> SingleResult:
    if "result" in outcome:
        return SingleResult(json.dumps(outcome["result"], ensure_ascii=False, separators=(",", ":")))
    return SingleResult(None, str(outcome["code"]), str(outcome["message"]))
