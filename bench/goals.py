"""What a run must show, and what it should."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from bench.measured import Key, Measured

LARGE_ROWS = 10_000_000
M = TypeVar("M")


@dataclass(frozen=True)
class Goal(Generic[M]):
    """A figure, its limits, and how it is found in what was measured (an M): the smaller, the better, unless it has
    to reach them from below."""

    says: str
    must: float
    should: float
    unit: str
    value: Callable[[M], float | None]
    at_least: bool = False

    def meets(self, value: float, limit: float) -> bool:
        """Whether the figure keeps to one of its limits with this value."""
        return value >= limit if self.at_least else value <= limit


def _per_row(measured: Measured) -> float | None:
    large, usual = Key("ours", "join", "linear", LARGE_ROWS), Key("ours", "join", "linear", measured.rows)
    ratio = measured.ratio(large, usual)
    return None if ratio is None else ratio * measured.rows / LARGE_ROWS


def _redis(measured: Measured) -> float | None:
    peaks = measured.memory.get(Key("ours", "join", "linear", measured.rows))
    return None if peaks is None else float(peaks["redis"])


GOALS: tuple[Goal[Measured], ...] = (
    Goal(
        "linear, join: wall against the naive script",
        0.25,
        0.15,
        "",
        lambda m: m.against("naive_pandas", "join", "linear"),
    ),
    Goal(
        "linear, join: wall against the pyarrow script",
        1.3,
        0.9,
        "",
        lambda m: m.against("pyarrow_stream", "join", "linear"),
    ),
    Goal(
        "linear, predictions: against the pyarrow script",
        1.8,
        1.2,
        "",
        lambda m: m.against("pyarrow_stream", "predictions", "linear"),
    ),
    Goal(
        "linear, predictions: against Ray Data, warm",
        0.55,
        0.35,
        "",
        lambda m: m.against("ray_data", "predictions", "linear"),
    ),
    Goal(
        "HGB, predictions: against the pyarrow script",
        1.1,
        0.9,
        "",
        lambda m: m.against("pyarrow_stream", "predictions", "hgb"),
    ),
    Goal("first row readable, upload at 5 MB/s", 0.3, 0.1, "s", lambda m: m.figure(f"first row of {m.rows}")),
    Goal("10k rows, join, wall", 0.1, 0.05, "s", lambda m: m.wall(Key("ours", "join", "linear", 10_000))),
    Goal("100k rows, join, wall", 0.3, 0.18, "s", lambda m: m.wall(Key("ours", "join", "linear", 100_000))),
    Goal("time per row, 10M against 1M rows", 1.2, 1.1, "", _per_row),
    Goal("memory of a web process, any size", 90, 60, "MB", lambda m: m.largest("web process")),
    Goal("memory of a worker, any size", 270, 230, "MB", lambda m: m.largest("worker")),
    Goal("Redis at its peak, largest file but 10M rows", 60, 40, "MB", _redis),
    Goal("100 rows behind 1M rows (HGB), worst", 2.0, 0.5, "s", lambda m: m.worst("small behind large")),
    Goal("a single prediction behind 1M rows (HGB), worst", 1.0, 1.0, "s", lambda m: m.worst("single behind large")),
)
