"""Searches a chunk that kills the predictor for the rows that do it, part by part; all other rows are predicted."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
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
from worker.suspects import ERRORS, Part, Suspects

log = logging.getLogger(__name__)

LOSSES_BEFORE_SEARCH = 2  # workers are lost for other reasons too: only then may a row of the chunk be the reason
SECOND_TRY_TIMES = 3  # a row that is tried again may take so many times as long: the machine may have been busy


class Innocent(Exception):
    """Raised when the predictor died, but not of the chunk that was asked for."""


@dataclass(frozen=True, slots=True)
class Case:
    """What a search goes on with in one slice."""

    chunk: LeasedChunk
    batch: Batch
    suspects: Suspects
    progress: Callable[[], None]  # called between two sub-blocks
    is_over: Callable[[], bool]  # whether the slice is


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
        """The chunk's result, or the frame that refuses it; None when the slice, or the job, is over before."""
        suspects = case.suspects
        while part := suspects.next_part(case.chunk.given_up):
            if suspects.is_lost(part):
                self._sentence(case, part)
                continue
            if case.is_over() or suspects.loads >= self._max_loads:
                return None
            answer = self._try(case, part)
            if answer is not None and answer.head["is"] == "refused":
                return answer
            if answer is not None:
                self._finish(case, part, chunk_result(answer))
        return self._collect(case)

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
        if suspects.loads >= self._max_loads:
            self._fail_to_load(case, death)

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
        state = case.suspects.to_json()
        self._keep(case, SearchStep(state, part.start, part.stop, pack_part(result)))

    def _sentence(self, case: Case, part: Part) -> None:
        """Gives the rows of a part the error that they are to blame for, or that all the rest is given."""
        layout, suspects = case.batch.layout, case.suspects
        code, message = ERRORS[part.reason or suspects.given_up]
        if not part.is_guilty:
            message = "not tried alone: every row that was tried alone had this error"
        records = input_records(layout, decompress(case.chunk.blob))[part.start : part.stop]
        written = refused_records(layout, records, code, message)
        bodies = [split_line_end(record)[0].decode() for record in records]
        failures = [Failure(row, code, None, message, body) for row, body in enumerate(bodies)]
        surplus = any(has_surplus(layout, record) for record in records)
        result = ChunkResult(0, part.rows, len(written), surplus, compress(written), pack_failures(failures))
        given_up = not part.is_guilty and not any(other.done and not other.is_guilty for other in suspects.parts)
        suspects.finish(part, 0)
        step = SearchStep(suspects.to_json(), part.start, part.stop, pack_part(result), given_up=given_up)
        self._keep(case, step)

    def _collect(self, case: Case) -> ChunkResult:
        """The whole chunk's result, from those of its parts."""
        parts = case.suspects.parts
        places = [(part.start, part.stop) for part in parts]
        packed = self._duty.insist(lambda: self._leases.finished_parts(case.chunk.lease, places))
        if packed is None:
            raise Stopping
        found = [(part.start, unpack_part(each)) for part, each in zip(parts, packed, strict=True) if each]
        if len(found) < len(parts):  # the job has ended or is gone, and its parts with it
            raise LeaseLost
        return joined(found)

    def _keep(self, case: Case, step: SearchStep) -> None:
        held = self._duty.insist(lambda: self._leases.keep_search(case.chunk.lease, step))
        if held is None:
            raise Stopping
        if not held:
            raise LeaseLost

    def _fail_to_load(self, case: Case, death: ChildDied) -> None:
        message = load_failure(death)
        self._duty.insist(lambda: self._leases.fail([case.batch.job_id], "model_load_failed", message))


def load_failure(death: ChildDied) -> str:
    """Why a model that kills the predictor while it is loaded cannot be loaded."""
    how = {
        "crashed": "killed the predicting process",
        "timeout": "took longer than two minutes",
        "out_of_memory": "took more memory than a predictor may have",
    }
    return f"Loading the model {how[death.reason]} again and again: check that it loads where the workers run."
