"""Searches a chunk that kills the predictor for the rows that do it, part by part; all other rows are predicted."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from time import monotonic

from jobs.codec.cells import split_line_end
from jobs.codec.chunk import Failure, compress, decompress, pack_failures
from jobs.codec.records import has_surplus, input_records, refused_records
from jobs.leases import ChunkResult, LeasedChunk, Leases, SearchStep
from worker.batch import Batch, chunk_frame, chunk_result, joined, pack_part, unpack_part
from worker.child import Child, ChildDied
from worker.duty import Duty, LeaseLost, Stopping
from worker.frames import Frame
from worker.pace import Pace
from worker.suspects import DOUBTED_CHUNKS, ERRORS, Part, Suspects

log = logging.getLogger(__name__)

LOSSES_BEFORE_SEARCH = 2  # workers are lost for other reasons too: only then may a row of the chunk be the reason
SECOND_TRY_TIMES = 3  # a row that is tried again may take so many times as long: the machine may have been busy

LOAD_FAILURE = (
    "Loading the model killed the predicting process, took longer than two minutes or took more memory than a "
    "predictor may have, again and again: check that it loads where the workers run."
)


class Innocent(Exception):
    """Raised when the predictor died, but not of the chunk that was asked for."""


@dataclass(frozen=True)
class Case:
    """What a search goes on with in one slice."""

    chunk: LeasedChunk
    batch: Batch
    suspects: Suspects
    progress: Callable[[], None] | None  # called between two sub-blocks
    is_over: Callable[[], bool]  # whether the slice is

    @cached_property
    def records(self) -> list[bytes]:
        """The chunk's records."""
        return input_records(self.batch.layout, decompress(self.chunk.blob))


class Search:
    """Goes on with searches. Raises Stopping, LeaseLost or Innocent, with nothing handed back."""

    def __init__(self, leases: Leases, child: Child, duty: Duty, pace: Pace, max_loads: int) -> None:
        """`max_loads` is how often loading a model may kill the predictor before its job fails."""
        self._leases = leases
        self._child = child
        self._duty = duty
        self._pace = pace
        self._max_loads = max_loads

    def is_due(self, chunk: LeasedChunk) -> bool:
        """Whether a chunk is not to be asked for as a whole any more."""
        return chunk.search is not None or chunk.losses >= LOSSES_BEFORE_SEARCH

    def suspects(self, chunk: LeasedChunk) -> Suspects:
        """What is known of a chunk's rows."""
        suspects = Suspects.from_json(chunk.search) if chunk.search else Suspects.begin(chunk.rows)
        suspects.account_for_losses(chunk.losses)
        return suspects

    def go_on(self, case: Case) -> ChunkResult | Frame | None:
        """The chunk's result, or the frame that refuses it; None when the slice, or the job, is over before.

        One step is taken in any case, or a search would never end where each slice is over at once.
        """
        suspects, stepped = case.suspects, False
        while True:
            if suspects.loads >= self._max_loads:
                self._fail_to_load(case)
                return None
            if stepped and case.is_over():
                return None
            stepped = True
            if suspects.is_doubtful(case.chunk.doubted) and not self._has_predictions(case):
                return None
            part = suspects.next_part()
            if part is None:
                result = self._collect(case)
                if result is not None:
                    return result
            elif part.is_guilty:
                self._sentence(case, part)
            else:
                answer = self._try(case, part)
                if answer is not None and answer.head["is"] == "refused":
                    return answer
                if answer is not None:
                    self._finish(case, part, chunk_result(answer))

    def blame(self, case: Case, part: Part, death: ChildDied, seconds: float) -> None:
        """Takes into account that the predictor died over a part."""
        suspects, doing = case.suspects, death.doing
        if doing is None:
            raise Innocent
        if doing.stage == "load":
            suspects.loads += 1
        elif doing.stage == "predict":
            suspects.died(part, death.reason, (part.start + doing.start, part.start + doing.stop))
        else:
            suspects.died(part, death.reason)
        log.info("searching chunk %s of job %s: %s", case.chunk.lease.index, case.batch.job_id, death.reason)
        self._keep(case, SearchStep(suspects.to_json(), reason=death.reason, seconds=seconds))

    def _try(self, case: Case, part: Part) -> Frame | None:
        """Has a part predicted; None when the predictor died over it."""
        if case.chunk.losses >= LOSSES_BEFORE_SEARCH:
            case.suspects.trying = [part.start, part.stop]
            self._keep(case, SearchStep(case.suspects.to_json()))
        frame = chunk_frame(case.chunk, case.batch, (part.start, part.stop))
        times = SECOND_TRY_TIMES if part.deaths else 1
        question = self._child.send(frame, self._pace.limit(case.batch.model.key, times))
        began = monotonic()
        try:
            return self._child.wait(question, self._duty.tick, case.progress)
        except ChildDied as death:
            if death.doing and death.doing.number != question.number:
                raise Innocent from death
            self.blame(case, part, death, monotonic() - began)
            return None

    def _finish(self, case: Case, part: Part, result: ChunkResult) -> None:
        case.suspects.finish(part, result.ok)
        if part.rows > 1:
            self._pace.learn(case.batch.model.key, part.rows, result.seconds)
        self._keep(case, SearchStep(case.suspects.to_json(), part.start, part.stop, pack_part(result)))

    def _sentence(self, case: Case, part: Part) -> None:
        """Gives a row the error that it is to blame for."""
        layout = case.batch.layout
        code, message = ERRORS[part.reason]
        record = case.records[part.start]
        written = refused_records(layout, [record], code, message)
        failure = Failure(0, code, None, message, split_line_end(record)[0].decode())
        result = ChunkResult(
            0, 1, len(written), has_surplus(layout, record), compress(written), pack_failures([failure])
        )
        case.suspects.finish(part, 0)
        self._keep(case, SearchStep(case.suspects.to_json(), part.start, part.stop, pack_part(result)))

    def _has_predictions(self, case: Case) -> bool:
        """Whether some row of the job has a prediction; if none has, the chunk is another's turn now."""
        suspects, lease = case.suspects, case.chunk.lease
        suspects.doubted = True
        state = suspects.to_json()
        answer = self._duty.insist(lambda: self._leases.doubt(lease, state, DOUBTED_CHUNKS))
        if answer is None:
            raise Stopping
        if answer == "refused":
            raise LeaseLost
        log.warning("every row of chunk %s of job %s that was tried failed: %s", lease.index, lease.job_id, answer)
        if answer == "searched":
            suspects.acquit_model()
        return answer == "searched"

    def _collect(self, case: Case) -> ChunkResult | None:
        """The whole chunk's result, from those of its parts; None when some of them are not there."""
        packed = self._duty.insist(lambda: self._leases.finished_parts(case.chunk.lease))
        if packed is None:
            raise Stopping
        case.suspects.reopen(packed, case.chunk.rows)
        if case.suspects.parts:
            self._keep(case, SearchStep(case.suspects.to_json()))  # raises LeaseLost if it is for that
            log.error("parts of chunk %s of job %s are missing", case.chunk.lease.index, case.batch.job_id)
            return None
        return joined([(start, unpack_part(packed[start, stop])) for start, stop in sorted(packed)])

    def _keep(self, case: Case, step: SearchStep) -> None:
        held = self._duty.insist(lambda: self._leases.keep_search(case.chunk.lease, step))
        if held is None:
            raise Stopping
        if not held:
            raise LeaseLost

    def _fail_to_load(self, case: Case) -> None:
        self._duty.insist(lambda: self._leases.fail([case.batch.job_id], "model_load_failed", LOAD_FAILURE))
