"""How long the predictor may take for what it is at: the larger of a second and ten times what was measured."""

from worker.child import Doing, Limit

# Several rows are a sub-block, and the predictor makes those as large as fits into 0.04 s (worker/scoring.py): ten
# times that is below a second.
SUB_BLOCK_LIMIT_SECONDS = 1.0
# One row is also what a fresh predictor begins with, and the first prediction of all takes longer than the others.
ROW_LIMIT_SECONDS = 2.0
TIMES_MEASURED = 10
UNMEASURED_SECONDS = 10.0  # for what nobody has measured: one row, or the first single predictions
READ_SECONDS = 10.0  # to read or write a chunk; it takes some tenths of a second
LOAD_SECONDS = 120.0  # to load a model, from a slow disk on a busy machine


class Pace:
    """The seconds per row of each model, apart for chunks and for single predictions."""

    def __init__(self) -> None:
        self._measured: dict[tuple[str, bool], float] = {}

    def learn(self, model_key: str, rows: int, seconds: float, singles: bool = False) -> None:
        """What was measured last counts, since a model's speed hardly changes."""
        if rows and seconds > 0:
            self._measured[model_key, singles] = seconds / rows

    def hear(self, model_key: str, rows_per_second: float | None) -> None:
        """What other workers have measured, as long as this one has not."""
        if rows_per_second:
            self._measured.setdefault((model_key, False), 1 / rows_per_second)

    def expected(self, model_key: str, rows: int) -> float | None:
        """The seconds that so many rows of a chunk take; None while nobody knows."""
        measured = self._measured.get((model_key, False))
        return None if measured is None else rows * measured

    def limit(self, model_key: str, times: float = 1.0) -> Limit:
        """The seconds that a step may take, `times` as long as usual."""

        def limit(doing: Doing) -> float:
            if doing.stage == "load":
                return LOAD_SECONDS
            if doing.stage in ("read", "write"):
                return READ_SECONDS * times
            rows, singles = doing.stop - doing.start, doing.stage == "singles"
            if rows > 1 and not singles:
                return SUB_BLOCK_LIMIT_SECONDS * times
            measured = self._measured.get((model_key, singles))
            if measured is None:
                return UNMEASURED_SECONDS
            return max(ROW_LIMIT_SECONDS, TIMES_MEASURED * rows * measured) * times

        return limit
