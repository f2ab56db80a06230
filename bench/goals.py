"""What a run must show, and what it should: the figures, their limits, and how each is found in what was measured."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.measured import Key, Measured

LARGE_ROWS = 10_000_000


@dataclass(frozen=True)
class Figure:
    """One figure; the smaller, the better."""

    says: str
    must: float
    goal: float
    unit: str
    value: Callable[[Measured], float | None]


def _per_row(measured: Measured) -> float | None:
    large, usual = Key("ours", "join", "linear", LARGE_ROWS), Key("ours", "join", "linear", measured.rows)
    ratio = measured.ratio(large, usual)
    return None if ratio is None else ratio * measured.rows / LARGE_ROWS


def _redis(measured: Measured) -> float | None:
    peaks = measured.memory.get(Key("ours", "join", "linear", measured.rows))
    return None if peaks is None else float(peaks["redis"])


FIGURES = (
    Figure(
        "linear, join: wall against the naive script",
        0.25,
        0.15,
        "",
        lambda m: m.against("naive_pandas", "join", "linear"),
    ),
    Figure(
        "linear, join: wall against the pyarrow script",
        1.3,
        0.9,
        "",
        lambda m: m.against("pyarrow_stream", "join", "linear"),
    ),
    Figure(
        "linear, predictions: against the pyarrow script",
        1.8,
        1.2,
        "",
        lambda m: m.against("pyarrow_stream", "predictions", "linear"),
    ),
    Figure(
        "linear, predictions: against Ray Data, warm",
        0.55,
        0.35,
        "",
        lambda m: m.against("ray_data", "predictions", "linear"),
    ),
    Figure(
        "HGB, predictions: against the pyarrow script",
        1.1,
        0.9,
        "",
        lambda m: m.against("pyarrow_stream", "predictions", "hgb"),
    ),
    Figure("first row readable, upload at 5 MB/s", 0.3, 0.1, "s", lambda m: m.figure(f"first row of {m.rows}")),
    Figure("10k rows, join, wall", 0.1, 0.05, "s", lambda m: m.wall(Key("ours", "join", "linear", 10_000))),
    Figure("100k rows, join, wall", 0.3, 0.18, "s", lambda m: m.wall(Key("ours", "join", "linear", 100_000))),
    Figure("time per row, 10M against 1M rows", 1.2, 1.1, "", _per_row),
    Figure("memory of a web process, any size", 90, 60, "MB", lambda m: m.largest("web process")),
    Figure("memory of a worker, any size", 270, 230, "MB", lambda m: m.largest("worker")),
    Figure("Redis at its peak, largest file but 10M rows", 60, 40, "MB", _redis),
    Figure("100 rows behind 1M rows (HGB), worst", 2.0, 0.5, "s", lambda m: m.worst("small behind large")),
    Figure("a single prediction behind 1M rows (HGB), worst", 1.0, 1.0, "s", lambda m: m.worst("single behind large")),
)
