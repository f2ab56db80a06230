"""One slice of time on one job or one inbox: lease, predict, commit, next; then the ticket goes to the back."""

import logging
from dataclasses import dataclass
from functools import cached_property
from time import monotonic, sleep

from jobs.codec.layout import Layout
from jobs.errors import StoreAway, StoreFull
from jobs.leases import ChunkResult, LeasedChunk, Leases
from jobs.record import ModelVersion
from jobs.tickets import Ticket, TicketQueue
from worker.child import Child, ChildDied, Question
from worker.duty import Duty, LeaseLost, Stopping
from worker.frames import Frame
from worker.served import Served
from worker.singles import Singles, named

log = logging.getLogger(__name__)

TURN_SECONDS = 0.2  # a slice is over so soon when another ticket waits: its job has its turn then
LINGER_SECONDS = 0.05  # an inbox's slice waits so long for the next single before it ends
LINGER_STEP_SECONDS = 0.005
LOOK_SECONDS = 0.01  # between two looks at the inboxes at least
WITHOUT_VERSION_SECONDS = 0.1  # the pause before a ticket that this worker cannot serve goes to the back


@dataclass(frozen=True)
class Batch:
    """The job that a slice is spent on."""

    job_id: str
    model: ModelVersion
    layout: Layout

    @cached_property
    def layout_json(self) -> str:
        """The layout as frames carry it."""
        return self.layout.to_json()


@dataclass(frozen=True, slots=True)
class Asked:
    """A leased chunk that the predictor was asked for."""

    chunk: LeasedChunk
    question: Question


class Slices:
    """Does the work that tickets ask for, one ticket at a time. Raises StoreAway or StoreFull between two chunks only:
    what is held when the store goes away is kept until the store takes it."""

    def __init__(
        self,
        *,
        leases: Leases,
        tickets: TicketQueue,
        child: Child,
        served: Served,
        duty: Duty,
        slice_seconds: float,
        max_attempts: int,
    ) -> None:
        self._leases = leases
        self._tickets = tickets
        self._child = child
        self._served = served
        self._duty = duty
        self._singles = Singles(leases, child, served, duty)
        self._looked_at = 0.0
        self._slice_seconds = slice_seconds
        self._max_attempts = max_attempts

    def work_on_job(self, job_id: str, slot: int, ticket_id: str) -> None:
        """Spends a slice on a batch. Returns when the slice is over, nothing waits, or the worker has to stop."""
        self._duty.begin(ticket_id, slot)
        described = self._leases.describe(job_id)
        if described is None:
            return
        batch = Batch(job_id, *described)
        try:
            if batch.model.key in self._served:
                self._work_on_chunks(batch)
            else:
                self._duty.pause(WITHOUT_VERSION_SECONDS)
        except Stopping:
            log.info("stopping: what was unfinished is handed back")
        self._put(self._leases.hand_on_slot(job_id, slot, ticket_id, front=self._duty.stopping))

    def work_on_inbox(self, model_key: str, ticket_id: str) -> None:
        """Predicts what waits in an inbox, lingers a moment for more, and ends when nothing came."""
        self._duty.begin(ticket_id)
        try:
            if model_key not in self._served:
                self._duty.pause(WITHOUT_VERSION_SECONDS)
            elif not self._work_on_inbox(model_key, ticket_id):
                return
        except Stopping:
            log.info("stopping: what was unfinished is handed back")
        self._put(self._leases.hand_on_inbox(model_key, ticket_id, front=self._duty.stopping))

    def work_without_tickets(self) -> None:
        """Does a slice of whatever there is: for a store that is so full that RQ cannot take a ticket from it.

        Commits may grow a full store, tickets may not; and only ended jobs make room again.
        """
        for job_id in self._leases.unended_batches():
            if not self._duty.stopping:
                self.work_on_job(job_id, -1, "none")
        self._duty.begin("none")
        self._look_at_inboxes()

    def _work_on_inbox(self, model_key: str, ticket_id: str) -> bool:
        """False when nothing waits any more, True when the slice is over before."""
        until = monotonic() + self._slice_seconds
        busy = self._singles.work([model_key])
        while not self._duty.stopping and monotonic() < until:
            # A superfluous ticket finds nothing, and must not linger for it.
            busy = busy and (self._singles.work([model_key]) or self._linger(model_key))
            if not busy:
                if not self._leases.keep_inbox(model_key, ticket_id):
                    return False
                busy = self._singles.work([model_key])
        return True

    def _linger(self, model_key: str) -> bool:
        """Waits a moment for the next single; True as soon as there was one."""
        until = monotonic() + LINGER_SECONDS
        while not self._duty.stopping and monotonic() < until:
            sleep(LINGER_STEP_SECONDS)
            if self._singles.work([model_key]):
                return True
        return False

    def _work_on_chunks(self, batch: Batch) -> None:
        """Works on chunk after chunk. The next one is leased and asked for before the present one is done, so that
        the predictor never waits for the store."""
        began = monotonic()
        present = self._ask_next(batch)
        while present:
            following = self._ask_ahead(batch, present, began)
            try:
                alive = self._finish(present, batch)
            except BaseException:
                self._give_back(following)
                raise
            if not alive:
                self._give_back(following)
                return
            present = following or (None if self._is_over(batch, present, began) else self._ask_next(batch))
            self._look_at_inboxes()

    def _is_over(self, batch: Batch, present: Asked, began: float) -> bool:
        """Whether the slice ends with the present chunk: sooner when another ticket waits for a worker."""
        length = min(TURN_SECONDS, self._slice_seconds) if present.chunk.tickets_waiting else self._slice_seconds
        return self._duty.stopping or monotonic() - began > length or batch.model.key not in self._served

    def _ask_ahead(self, batch: Batch, present: Asked, began: float) -> Asked | None:
        """The next chunk, unless the slice is over by then, or the present one may kill the predictor."""
        if present.chunk.crashes or self._is_over(batch, present, began):
            return None
        try:
            return self._ask_next(batch, ahead=True)
        except (StoreAway, StoreFull) as error:
            log.warning("could not lease the next chunk: %s", error)
            return None

    def _ask_next(self, batch: Batch, ahead: bool = False) -> Asked | None:
        """Leases the next chunk and asks for it; None when there is none."""
        chunk = self._leases.lease(batch.job_id, self._duty.slot, self._duty.ticket_id, ahead)
        if chunk is None:
            return None
        if chunk.crashes > self._max_attempts + 1:  # even its rows could not be given their error
            message = "reading the rows of a chunk killed the predicting process again and again"
            self._duty.insist(lambda: self._leases.fail([batch.job_id], "worker_crashed", message))
            return None
        self._duty.hold([chunk.lease])
        return Asked(chunk, self._child.send(self._chunk_frame(chunk, batch)))

    def _finish(self, asked: Asked, batch: Batch) -> bool:
        """Waits for a chunk's answer and hands it in; False when the predictor died over it."""
        lease = asked.chunk.lease
        self._singles.proved_guilty = False
        try:
            answer = self._child.wait(asked.question, self._duty.tick, self._look_at_inboxes)
        except ChildDied:
            counted = not self._singles.proved_guilty
            self._duty.insist(lambda: self._leases.give_back([lease], counted=counted))
            return False
        except Stopping:
            self._leases.give_back([lease], counted=False)
            raise
        except LeaseLost:
            log.info("chunk %s of job %s was taken over", lease.index, lease.job_id)
            return False
        else:
            self._hand_in(asked.chunk, answer, batch)
            return True
        finally:
            self._duty.release([lease])

    def _give_back(self, asked: Asked | None) -> None:
        """Gives back a chunk that was asked for and not begun."""
        if asked:
            self._child.stop(asked.question)
            self._duty.release([asked.chunk.lease])
            self._leases.give_back([asked.chunk.lease], counted=False)

    def _hand_in(self, chunk: LeasedChunk, answer: Frame, batch: Batch) -> None:
        if answer.head["is"] == "refused":
            self._refuse(chunk, answer, batch.model)
            return
        result = _chunk_result(answer)
        keep_input = batch.layout.format == "json" and bool(batch.layout.keep)
        if self._duty.insist(lambda: self._leases.commit(chunk.lease, result, keep_input)):
            log.debug("committed chunk %s of job %s", chunk.lease.index, chunk.lease.job_id)

    def _refuse(self, chunk: LeasedChunk, answer: Frame, model: ModelVersion) -> None:
        """The predictor cannot load the model: the job cannot go on, unless another worker has the version."""
        code, message = answer.head["code"], answer.head["message"]
        if self._served.refused(model.key, code, message):
            self._duty.insist(lambda: self._leases.give_back([chunk.lease], counted=False))
        else:
            self._duty.insist(lambda: self._leases.fail([chunk.lease.job_id], code, message))

    def _chunk_frame(self, chunk: LeasedChunk, batch: Batch) -> Frame:
        head = {"do": "chunk", "model": named(batch.model), "layout": batch.layout_json, "rows": chunk.rows}
        if chunk.crashes >= self._max_attempts:
            head["verdict"] = ["worker_crashed", None, f"the predictor died {chunk.crashes} times over these rows"]
        return Frame(head, (chunk.blob,))

    def _look_at_inboxes(self) -> None:
        """Makes room for single predictions between two chunks, or two sub-blocks of one."""
        if monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = monotonic()
        try:
            self._singles.work(self._served.keys)
        except (StoreAway, StoreFull) as error:
            log.warning("could not look at the inboxes: %s", error)

    def _put(self, ticket: Ticket | None) -> None:
        if ticket:
            self._tickets.put([ticket])


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
