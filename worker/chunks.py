"""One chunk of a batch after the other: leased, predicted, handed in."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from jobs.lease import Lease
from jobs.leases import ChunkResult, LeasedChunk, Leases
from jobs.record import ModelVersion
from worker.batch import Batch, chunk_frame, chunk_result, patched
from worker.child import Child, ChildDied, Question
from worker.duty import Duty, LeaseLost, Stopping
from worker.frames import Frame
from worker.pace import Pace
from worker.search import Case, Innocent, Search
from worker.served import Served

log = logging.getLogger(__name__)

AHEAD_SECONDS = 0.5  # a chunk that takes longer needs no other in waiting: the store takes some milliseconds
STILLBORN_SECONDS = 1.0  # the pause after a predictor that died before it began with anything


@dataclass(frozen=True, slots=True)
class Asked:
    """A leased chunk, and what the predictor was asked for it: nothing yet when it is searched part by part."""

    chunk: LeasedChunk
    question: Question | None
    asked_at: float


class Chunks:
    """Has chunks predicted. What is asked for is held, and given back when it cannot be finished."""

    def __init__(
        self, leases: Leases, child: Child, served: Served, duty: Duty, pace: Pace, *, max_load_attempts: int
    ) -> None:
        self._leases = leases
        self._child = child
        self._served = served
        self._duty = duty
        self._pace = pace
        self._search = Search(leases, child, duty, pace, max_load_attempts)

    def ask_next(self, batch: Batch, ahead: bool = False) -> Asked | None:
        """Leases the next chunk and asks for it; None when there is none."""
        chunk = self._leases.lease(batch.job_id, self._duty.slot, self._duty.ticket_id, ahead)
        if chunk is None:
            return None
        self._duty.hold([chunk.lease])
        self._pace.hear(batch.model.key, chunk.rows_per_second)
        try:
            return self._ask(chunk.to_predict(batch.layout), batch)
        except BaseException:  # no process can be started, say: others may have more luck
            self._duty.release([chunk.lease])
            self._hand_back(chunk.lease)
            raise

    def may_ask_ahead(self, present: Asked, batch: Batch) -> bool:
        """Whether the next chunk may be leased already: another worker would take it sooner than a slow one.

        A predictor that leaks has to be replaced first, and can be only when it is idle.
        """
        expected = self._pace.expected(batch.model.key, present.chunk.rows)
        is_quick = expected is not None and expected <= AHEAD_SECONDS
        return present.question is not None and is_quick and not self._child.leaks

    def finish(self, asked: Asked, batch: Batch, progress: Callable[[], None], is_over: Callable[[], bool]) -> bool:
        """Waits for a chunk's answer and hands it in; False when it was handed back instead, or is another's now.

        `progress` is called between two sub-blocks. A search for a poison row that has not come to its end when
        `is_over` goes on in the next slice. Raises Stopping, with the chunk handed back.
        """
        lease = asked.chunk.lease
        try:
            outcome = self._answer(asked, batch, progress, is_over)
            if outcome is not None:
                return self._hand_in(asked.chunk, outcome, batch)
            self._hand_back(lease)
        except Innocent as innocent:
            self._excuse(lease, innocent)
        except Stopping:
            self._hand_back(lease, "shutdown")
            raise
        except LeaseLost:
            log.info("chunk %s of job %s was taken over", lease.index, lease.job_id)
        except Exception:  # no process can be started, say: others may have more luck
            self._hand_back(lease)
            raise
        finally:
            self._duty.release([lease])
        return False

    def give_back(self, asked: Asked) -> None:
        """Gives back a chunk that was asked for and not begun."""
        if asked.question:
            self._child.stop(asked.question)
        self._duty.release([asked.chunk.lease])
        self._hand_back(asked.chunk.lease)

    def _ask(self, chunk: LeasedChunk, batch: Batch) -> Asked:
        question = None
        if not self._search.is_due(chunk):
            question = self._child.send(chunk_frame(chunk, batch), self._pace.limit(batch.model.key))
        return Asked(chunk, question, monotonic())

    def _hand_back(self, lease: Lease, reason: str = "") -> None:
        self._duty.insist(lambda: self._leases.give_back([lease], reason))

    def _excuse(self, lease: Lease, innocent: Innocent) -> None:
        """Hands back a chunk that was being predicted when something else killed the predictor."""
        death = innocent.__cause__
        if isinstance(death, ChildDied):  # a single prediction did: next time they have to wait for this chunk
            self._hand_back(lease, death.reason)
        else:
            log.warning("a predictor died before it began with anything")
            self._hand_back(lease)
            self._duty.pause(STILLBORN_SECONDS)

    def _answer(
        self, asked: Asked, batch: Batch, progress: Callable[[], None], is_over: Callable[[], bool]
    ) -> ChunkResult | Frame | None:
        """The chunk's result, or the frame that refuses it; None when the slice or the job is over before."""
        undisturbed = None if asked.chunk.disturbed else progress
        case = Case(asked.chunk, batch, self._search.suspects(asked.chunk), undisturbed, is_over)
        if asked.question is not None:
            try:
                return self._child.wait(asked.question, self._duty.tick, undisturbed)
            except ChildDied as death:
                if death.doing and death.doing.number != asked.question.number:
                    raise Innocent from death
                # The next chunk was asked for already: the search begins when that one has been given back.
                self._search.blame(case, case.suspects.parts[0], death, monotonic() - asked.asked_at)
                return None
        return self._search.go_on(case)

    def _hand_in(self, chunk: LeasedChunk, outcome: ChunkResult | Frame, batch: Batch) -> bool:
        if isinstance(outcome, Frame):
            if outcome.head["is"] == "refused":
                self._refuse(chunk, outcome, batch.model)
                return False
            outcome = chunk_result(outcome)
            self._pace.learn(batch.model.key, chunk.rows, outcome.seconds)
        result = patched(chunk, outcome, batch.layout)
        keep_input = batch.layout.format == "json" and bool(batch.layout.keep)
        taken = self._duty.insist(lambda: self._leases.commit(chunk.lease, result, keep_input))
        if taken is False:
            raise LeaseLost
        log.debug("committed chunk %s of job %s", chunk.lease.index, chunk.lease.job_id)
        return bool(taken)

    def _refuse(self, chunk: LeasedChunk, answer: Frame, model: ModelVersion) -> None:
        """The predictor cannot load the model: the job cannot go on, unless another worker has the version."""
        code, message = answer.head["code"], answer.head["message"]
        if self._served.refused(model.key, code, message):
            self._duty.insist(lambda: self._leases.give_back([chunk.lease]))
        else:
            self._duty.insist(lambda: self._leases.fail([chunk.lease.job_id], code, message))
