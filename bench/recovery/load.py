"""What keeps the workers busy while they are harmed, and what came out of it."""

from dataclasses import dataclass
from random import Random
from typing import Any

from bench.recovery.stage import Batch, Stage, wait_for
from bench.surroundings import Process

BUSY_SECONDS = 60
MEASURED_SECONDS = 0.5  # of work, after which the speed of a model is known


@dataclass(frozen=True)
class Busy:
    """A worker that holds chunks of a batch, and the name under which it does."""

    worker: Process
    name: str
    batch: Batch


@dataclass(frozen=True)
class Outcome:
    """What came out of some batches; `wrong` says which rows are not as they must be."""

    rows: int
    wrong: list[str]
    failed: int
    attempts: list[dict[str, Any]]

    @property
    def counted(self) -> int:
        return sum(attempt["counted"] for attempt in self.attempts)


class Load:
    """Keeps the workers busy: a new batch before the last one has ended."""

    def __init__(self, stage: Stage, model: str, rows: int, row_seconds: float) -> None:
        """`row_seconds` is what one row takes, sleeping or computing.

        A small batch goes before, so that the model's speed is known: only then have chunks their usual size.
        """
        self.batches: list[Batch] = []
        self._stage = stage
        self._model = model
        self._rows = rows
        self._batch_seconds = rows * row_seconds
        stage.ended(stage.begin(model, range(max(1, int(MEASURED_SECONDS / row_seconds)))), BUSY_SECONDS)

    def present(self) -> Batch:
        """A batch of which a tenth at least is to be done."""
        if not self.batches or self._is_nearly_done(self.batches[-1]):
            self.batches.append(self._stage.begin(self._model, range(self._rows)))
        return self.batches[-1]

    def _is_nearly_done(self, batch: Batch) -> bool:
        job = self._stage.job(batch)
        return bool(job) and job["progress"]["rows_done"] > 0.9 * self._rows

    def busy(self, chance: Random) -> Busy:
        """Some worker that holds a chunk at this moment."""
        return wait_for(lambda: self._busy(chance), BUSY_SECONDS, "no worker holds anything")

    def _busy(self, chance: Random) -> Busy | None:
        batch, worker = self.present(), chance.choice(self._stage.stack.workers)
        name = self._stage.name_of(worker)
        return Busy(worker, name, batch) if name and self._stage.held_by(batch, name) else None

    def finish(self) -> Outcome:
        """Waits for the batches and looks at the results of all."""
        seconds = 60 + 5 * self._batch_seconds
        jobs = [self._stage.ended(batch, seconds) for batch in self.batches]
        return Outcome(
            rows=sum(len(batch.values) for batch in self.batches),
            wrong=[line for batch in self.batches for line in self._stage.wrong_rows(batch)],
            failed=sum(job["progress"]["rows_failed"] for job in jobs),
            attempts=[attempt for job in jobs for attempt in job["attempts"]],
        )
