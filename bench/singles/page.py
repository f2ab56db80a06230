"""What was measured, as Markdown."""

from collections.abc import Iterator, Sequence

from bench.goals import Goal
from bench.report import machine, markdown_table
from bench.singles.goals import GOALS
from bench.singles.measured import Key, Measured
from bench.singles.peers import LABELS, PEERS

WAYS = {
    "predict": "`POST /predict`",
    "jobs": "`POST /jobs`, `?wait=`",
    "inputs": "`POST /jobs` of 100 rows, `?wait=`",
    "queue": "queue only",
}


def page(title: str, measured: Measured) -> str:
    """The whole page: where it ran, what must hold, and everything that was measured."""
    present = {key.who for key in measured.speeds}
    environments = sorted({PEERS[who].environment for who in present & PEERS.keys()})
    return "\n".join(
        [
            f"# {title}\n",
            *(f"* {line}" for line in machine(environments)),
            "\n## What must hold\n",
            *markdown_table(("figure", "must", "goal", "measured", "holds", "goal"), _verdicts(measured)),
            "\n## Over HTTP\n",
            *_speeds(measured, [key for key in measured.speeds if key.way != "queue"]),
            "\n## Queue only\n",
            *_speeds(measured, [key for key in measured.speeds if key.way == "queue"]),
            *(f"\nNot measured: {LABELS[who]}: {why}" for who, why in measured.absent.items()),
            "\n## Ours alone\n",
            *markdown_table(("ms", "p50", "p95", "p99", "worst", "samples"), _samples(measured)),
            "",
            *markdown_table(("under load", ""), _busy(measured)),
            "",
        ]
    )


def _verdicts(measured: Measured) -> Iterator[list[str]]:
    for goal in GOALS:
        sign = "≥" if goal.at_least else "≤"
        limits = [f"{sign} {limit:g} {goal.unit}" for limit in (goal.must, goal.should)]
        value = goal.value(measured)
        yield [goal.says, *limits, *(("not measured", "", "") if value is None else _verdict(goal, value))]


def _verdict(goal: Goal[Measured], value: float) -> tuple[str, str, str]:
    holds = "yes" if goal.meets(value, goal.must) else "**no**"
    reached = "reached" if goal.meets(value, goal.should) else f"{value / goal.should:.2f} times it"
    return f"{value:.3g} {goal.unit}", holds, reached


def _speeds(measured: Measured, keys: Sequence[Key]) -> Iterator[str]:
    head = ("who", "how", "clients", "per s", "p50 ms", "p95 ms", "p99 ms", "errors")
    rows = [
        [LABELS[key.who], WAYS.get(key.way, ""), str(key.clients), *_figures(measured, key), _errors(measured, key)]
        for key in sorted(keys, key=lambda key: (key.who != "ours", list(LABELS).index(key.who), key.way, key.clients))
    ]
    return markdown_table(head, rows)


def _figures(measured: Measured, key: Key) -> Iterator[str]:
    yield f"{measured.of(key, 'per_second') or 0:,.0f}"
    for what in ("p50", "p95", "p99"):
        yield f"{measured.of(key, what) or 0:,.2f}"


def _errors(measured: Measured, key: Key) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in measured.errors(key).items())


def _samples(measured: Measured) -> Iterator[list[str]]:
    for name, seconds in measured.samples.items():
        figures = [1000 * (measured.percentile(name, percent) or 0) for percent in (50, 95, 99, 100)]
        yield [name, *(f"{each:,.1f}" for each in figures), str(len(seconds))]


def _busy(measured: Measured) -> Iterator[list[str]]:
    for name, count in measured.connections.items():
        yield [f"connections to the store: {name}", str(count)]
    for name, size in measured.memory.items():
        yield [f"peak MB: {name}", f"{size:.0f}"]
    if measured.kept_bytes is not None:
        yield ["bytes of the store that a finished single keeps", f"{measured.kept_bytes:.0f}"]
