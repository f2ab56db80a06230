"""What a run must show, and what it should."""

from collections.abc import Callable

from bench.goals import Goal
from bench.singles.measured import Key, Measured
from bench.singles.peers import FLASK


def _against_flask(clients: int) -> Callable[[Measured], float | None]:
    return lambda measured: measured.ratio(Key("ours", "predict", clients), Key(FLASK, "flask", clients))


def _milliseconds(name: str, percent: float) -> Callable[[Measured], float | None]:
    def value(measured: Measured) -> float | None:
        found = measured.percentile(name, percent)
        return None if found is None else 1000 * found

    return value


GOALS: tuple[Goal[Measured], ...] = (
    Goal(
        "`POST /predict`, 16 clients, against Flask with the model in process", 0.75, 1.0, "", _against_flask(16), True
    ),
    Goal("the same, 64 clients", 0.75, 1.0, "", _against_flask(64), True),
    Goal("its p50, 1 client, warm", 4, 2.5, "ms", lambda m: m.of(Key("ours", "predict", 1), "p50")),
    Goal("its p50, first after idle", 8, 5, "ms", _milliseconds("first after idle", 50)),
    Goal(
        "`POST /jobs` and `?wait=`, 16 clients, against the Flask + RQ template",
        2,
        4,
        "times",
        lambda m: m.ratio(Key("ours", "jobs", 16), Key("rq_template", "rq_template", 16)),
        True,
    ),
    Goal(
        "queue only, 64 clients, against huey",
        1.5,
        2.5,
        "times",
        lambda m: m.ratio(Key("ours", "queue", 64), Key("huey", "queue", 64)),
        True,
    ),
    Goal("p99 behind a batch (HGB), 1 client", 150, 50, "ms", _milliseconds("behind a batch, clients: 1", 99)),
    Goal("p99 behind a batch (HGB), 4 clients", 150, 50, "ms", _milliseconds("behind a batch, clients: 4", 99)),
    Goal("connections to the store under load", 18, 12, "", lambda m: max(m.connections.values(), default=None)),
    Goal("memory of the store that a finished single keeps", 600, 350, "B", lambda m: m.kept_bytes),
    Goal("start of a worker to its first prediction", 3, 2, "s", lambda m: m.percentile("start of a worker", 50)),
)


def misses(measured: Measured, complete: bool) -> list[str]:
    """The goals that must be met and are not; in a complete run those too that were not measured."""
    found = []
    for goal in GOALS:
        value = goal.value(measured)
        if (value is None and complete) or (value is not None and not goal.meets(value, goal.must)):
            found.append(goal.says)
    return found
