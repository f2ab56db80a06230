"""One slice of time on one job or one inbox: lease, predict, commit, next; then the ticket goes to the back."""

import logging
from time import monotonic, sleep

from jobs.codec.layout import Layout
from jobs.errors import StoreAway, StoreFull
from jobs.leases import ChunkResult, LeasedChunk, Leases
from jobs.record import ModelVersion
from jobs.tickets import Ticket, TicketQueue
from worker.child import Child, ChildDied
from worker.duty import Duty, LeaseLost, Stopping
from worker.frames import Frame
from worker.served import Served
from worker.singles import Singles, named

log = logging.getLogger(__name__)

TURN_SECONDS = 0.2  # a slice is over so soon when another ticket waits: its job has its turn then
LINGER_SECONDS = 0.05  # an inbox's slice waits so long for the next single before it ends
LINGER_STEP_SECONDS = 0.005
WITHOUT_VERSION_SECONDS = 0.1  # the pause before a ticket that this worker cannot serve goes to the back


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
        self._slice_seconds = slice_seconds
        self._max_attempts = max_attempts

    def work_on_job(self, job_id: str, slot: int, ticket_id: str) -> None:
        """Spends a slice on a batch. Returns when the slice is over, nothing waits, or the worker has to stop."""
        self._duty.begin(ticket_id, slot)
        described = self._leases.describe(job_id)
        if described is None:
            return
        model, layout = described
        try:
            if model.key in self._served:
                self._work_on_chunks(job_id, model, layout)
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

    def _work_on_chunks(self, job_id: str, model: ModelVersion, layout: Layout) -> None:
        began, length = monotonic(), self._slice_seconds
        while not self._duty.stopping and monotonic() - began < length and model.key in self._served:
            chunk = self._leases.lease(job_id, self._duty.slot, self._duty.ticket_id)
            if chunk is None:
                return
            self._work_on_chunk(chunk, model, layout)
            self._look_at_inboxes()
            length = min(TURN_SECONDS, self._slice_seconds) if chunk.tickets_waiting else self._slice_seconds

    def _work_on_chunk(self, chunk: LeasedChunk, model: ModelVersion, layout: Layout) -> None:
        if chunk.crashes > self._max_attempts + 1:  # even its rows could not be given their error
            message = "reading the rows of a chunk killed the predicting process again and again"
            self._duty.insist(lambda: self._leases.fail([chunk.lease.job_id], "worker_crashed", message))
            return
        self._singles.proved_guilty = False
        with self._duty.holding([chunk.lease]):
            try:
                frame = self._chunk_frame(chunk, model, layout)
                answer = self._child.ask(frame, self._duty.tick, self._look_at_inboxes)
            except ChildDied:
                counted = not self._singles.proved_guilty
                self._duty.insist(lambda: self._leases.give_back([chunk.lease], counted=counted))
            except Stopping:
                self._leases.give_back([chunk.lease], counted=False)
                raise
            except LeaseLost:
                log.info("chunk %s of job %s was taken over", chunk.lease.index, chunk.lease.job_id)
            else:
                self._hand_in(chunk, answer, model, layout)

    def _hand_in(self, chunk: LeasedChunk, answer: Frame, model: ModelVersion, layout: Layout) -> None:
        if answer.head["is"] == "refused":
            self._refuse(chunk, answer, model)
            return
        result = _chunk_result(answer)
        keep_input = layout.format == "json" and bool(layout.keep)
        if self._duty.insist(lambda: self._leases.commit(chunk.lease, result, keep_input)):
            log.debug("committed chunk %s of job %s", chunk.lease.index, chunk.lease.job_id)

    def _refuse(self, chunk: LeasedChunk, answer: Frame, model: ModelVersion) -> None:
        """The predictor cannot load the model: the job cannot go on, unless another worker has the version."""
        code, message = answer.head["code"], answer.head["message"]
        if self._served.refused(model.key, code, message):
            self._duty.insist(lambda: self._leases.give_back([chunk.lease], counted=False))
        else:
            self._duty.insist(lambda: self._leases.fail([chunk.lease.job_id], code, message))

    def _chunk_frame(self, chunk: LeasedChunk, model: ModelVersion, layout: Layout) -> Frame:
        head = {"do": "chunk", "model": named(model), "layout": layout.to_json(), "rows": chunk.rows}
        if chunk.crashes >= self._max_attempts:
            head["verdict"] = ["worker_crashed", None, f"the predictor died {chunk.crashes} times over these rows"]
        return Frame(head, (chunk.blob,))

    def _look_at_inboxes(self) -> None:
        """Makes room for single predictions between two chunks, or two sub-blocks of one."""
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
