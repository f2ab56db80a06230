"""One slice of time on one job or one inbox: lease, predict, commit, next; then the ticket goes to the back."""

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic

from jobs.errors import StoreAway, StoreFull
from jobs.leases import Leases
from jobs.tickets import Ticket, TicketQueue
from worker.batch import Batch
from worker.child import Child
from worker.chunks import Asked, Chunks
from worker.duty import Duty, Stopping
from worker.pace import Pace
from worker.served import Served
from worker.singles import Singles

log = logging.getLogger(__name__)

TURN_SECONDS = 0.2  # a slice is over so soon when another ticket waits: its job has its turn then
LINGER_SECONDS = 0.05  # an inbox's slice waits so long for the next single before it ends
# Where several singles come at a time, a moment later there are more: with each call that they share, each costs less.
GATHER_SECONDS = 0.001
LOOK_SECONDS = 0.01  # between two looks at the inboxes at least
AWAY_SECONDS = 1.0  # and when the store did not answer the last one
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
        max_load_attempts: int,
    ) -> None:
        self._leases = leases
        self._tickets = tickets
        self._served = served
        self._duty = duty
        pace = Pace()
        self._chunks = Chunks(leases, child, served, duty, pace, max_load_attempts=max_load_attempts)
        self._singles = Singles(leases, child, served, duty, pace, max_load_attempts=max_load_attempts)
        self._looked_at = 0.0
        self._greeted = ""  # the model whose inbox was worked on before the ticket's slice began
        self._slice_seconds = slice_seconds

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
        self._singles.last_count = 0
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
        self.work_on_inboxes()

    def work_on_inboxes(self) -> None:
        """Predicts the single predictions that wait in the first inbox that has any, whoever has its ticket."""
        self._duty.begin("none")
        self._singles.last_model = ""
        with suppress(Stopping):
            self._look_at_inboxes()
        self._greeted = self._singles.last_model

    def _work_on_inbox(self, model_key: str, ticket_id: str) -> bool:
        """False when nothing waits any more, True when the slice is over before."""
        until = monotonic() + self._slice_seconds
        # What was found before RQ's bookkeeping counts too.
        busy = self._work_on_waiting(model_key) or self._greeted == model_key
        self._greeted = ""
        while model_key in self._served and not self._duty.stopping and monotonic() < until:
            # A superfluous ticket finds nothing, and must not linger for it.
            busy = busy and (self._work_on_waiting(model_key) or self._linger(model_key))
            if not busy:
                if not self._leases.keep_inbox(model_key, ticket_id):
                    return False
                busy = self._work_on_waiting(model_key)
        return True

    def _work_on_waiting(self, model_key: str) -> bool:
        """Predicts all single predictions that wait in an inbox, then one small batch. False when nothing waits."""
        if self._singles.last_count > 1:
            self._duty.pause(GATHER_SECONDS)
        busy = self._singles.work([model_key])
        if busy and not self._singles.small_batches_wait:
            return True
        job_id = self._leases.next_small_batch(model_key)
        described = self._leases.describe(job_id) if job_id else None
        if job_id and described:
            self._work_on_chunks(Batch(job_id, *described))
        return busy or job_id is not None

    def _linger(self, model_key: str) -> bool:
        """Waits a moment for what comes next, unless others wait for this worker; True when there was something."""
        if self._leases.tickets_wait():
            return False
        return self._leases.hear_bell(model_key, LINGER_SECONDS) and self._work_on_waiting(model_key)

    def _work_on_chunks(self, batch: Batch) -> None:
        """Works on chunk after chunk. The next one is leased and asked for before the present one is done, so that
        the predictor never waits for the store."""
        began = monotonic()
        asked: deque[Asked | None] = deque([self._chunks.ask_next(batch)])  # the present chunk, and the next one
        try:
            while present := asked[0]:
                is_over = partial(self._is_over, batch, present, began)
                asked.append(self._ask_ahead(batch, present, is_over))
                asked.popleft()  # from here on it is handed back where it is worked on
                handed_in = self._chunks.finish(present, batch, self._look_at_inboxes, is_over)
                if not handed_in:
                    self._give_back(asked.pop())
                    asked.append(None)
                if asked[0] is None and not is_over():
                    asked = deque([self._chunks.ask_next(batch)])
                if not (asked[0] and asked[0].chunk.disturbed):  # it is in the predictor's hands already
                    self._look_at_inboxes()
        finally:
            while asked:
                self._give_back(asked.pop())

    def _is_over(self, batch: Batch, present: Asked, began: float) -> bool:
        """Whether the slice ends with the present chunk: sooner when another ticket waits for a worker."""
        length = min(TURN_SECONDS, self._slice_seconds) if present.chunk.tickets_waiting else self._slice_seconds
        return self._duty.stopping or monotonic() - began > length or batch.model.key not in self._served

    def _ask_ahead(self, batch: Batch, present: Asked, is_over: Callable[[], bool]) -> Asked | None:
        """The next chunk, unless the slice is over by then, or the present one is slow or kills the predictor."""
        if is_over() or not self._chunks.may_ask_ahead(present, batch):
            return None
        try:
            return self._chunks.ask_next(batch, ahead=True)
        except (StoreAway, StoreFull) as error:
            log.warning("could not lease the next chunk: %s", error)
            return None

    def _give_back(self, asked: Asked | None) -> None:
        if asked:
            self._chunks.give_back(asked)

    def _look_at_inboxes(self) -> None:
        """Makes room for single predictions between two chunks, or two sub-blocks of one."""
        if monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = monotonic()
        try:
            self._singles.work(self._served.keys)
        except (StoreAway, StoreFull) as error:
            log.warning("could not look at the inboxes: %s", error)
            self._looked_at = monotonic() + AWAY_SECONDS

    def _put(self, ticket: Ticket | None) -> None:
        if ticket:
            self._tickets.put([ticket])
