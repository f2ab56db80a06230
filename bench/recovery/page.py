"""What was found, as JSON and as Markdown: figures with their limits, and histograms in text."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.report import machine, markdown_table
from bench.work import ROOT

RESULTS = ROOT / "bench" / "results"
BARS = 40  # the longest bar of a histogram, in characters
BINS = 12


@dataclass(frozen=True)
class Figure:
    """One figure; the smaller, the better. Without a `must` there is no limit, without a `goal` nothing beyond it."""

    says: str
    measured: float
    unit: str
    must: float | None = None
    goal: float | None = None

    @property
    def holds(self) -> bool:
        return self.must is None or self.measured <= self.must


@dataclass(frozen=True)
class Section:
    """What one measurement found. `times` are histograms: seconds by what they say."""

    title: str
    figures: list[Figure]
    times: dict[str, list[float]] = field(default_factory=dict)
    facts: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return all(figure.holds for figure in self.figures)


def lost_nothing(wrong: Sequence[str], failed: int) -> list[Figure]:
    """The figures that every measurement ends with."""
    return [Figure("rows that are not right", len(wrong), "", 0, 0), Figure("failed rows", failed, "", 0, 0)]


def longest(says: str, seconds: Sequence[float], must: float, goal: float | None = None) -> Figure:
    """The largest of some times; none at all does not hold."""
    return Figure(says, max(seconds, default=math.inf), "s", must, goal)


def add(path: Path, name: str, section: Section) -> None:
    """Puts a section into the results file, and writes the page beside it anew."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"sections": {}}
    found["machine"] = list(machine())
    found["sections"][name] = asdict(section)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    lines = ["# Recovery", "", *(f"* {line}" for line in found["machine"])]
    for each in read(path).values():
        lines += ["", *page(each)]
    path.with_suffix(".md").write_text("\n".join([*lines, ""]), encoding="utf-8")


def read(path: Path) -> dict[str, Section]:
    """The sections of a results file, by name."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["sections"]
    return {
        name: Section(**{**section, "figures": [Figure(**figure) for figure in section["figures"]]})
        for name, section in found.items()
    }


def page(section: Section) -> Iterator[str]:
    """One section as Markdown."""
    yield f"## {section.title}"
    yield ""
    yield from _table(section.figures)
    for says, seconds in section.times.items():
        yield ""
        yield f"{says}: {len(seconds)} times{_summary(seconds)}"
        if seconds:
            yield from ("", "```", *histogram(seconds), "```")
    if section.facts:
        yield ""
        yield from (f"* {fact}" for fact in section.facts)


def last_results() -> Path | None:
    """The newest results file that is kept; None when there is none."""
    return max(RESULTS.glob("*-recovery.json"), default=None)


def recovery_times(path: Path | None) -> str:
    """What docs/guarantees.md shows of a results file: every figure that is a time, and where it is from."""
    if path is None:
        return "Not measured yet on the present code."
    rows = []
    for section in read(path).values():
        times = [figure for figure in section.figures if figure.unit == "s"]
        titles = [section.title, *[""] * (len(times) - 1)]
        rows += [
            [title, figure.says, _shown(figure.measured, "s"), _limit(figure.must, "s")]
            for title, figure in zip(titles, times, strict=True)
        ]
    table = "\n".join(markdown_table(("fault", "time", "longest measured", "limit"), rows))
    page = path.with_suffix(".md").name
    return f"{table}\n\nFrom [{page}](../bench/results/{page}), which has the histograms and the machine."


def histogram(seconds: Sequence[float]) -> Iterator[str]:
    """Bars of so many cases between two round times."""
    width = _width(max(seconds))
    counts = [0] * (int(max(seconds) / width) + 1)
    for value in seconds:
        counts[int(value / width)] += 1
    first = next(place for place, count in enumerate(counts) if count)
    for place, count in list(enumerate(counts))[first:]:
        bar = "#" * math.ceil(count * BARS / max(counts))
        yield f"{place * width:7.2f} to {(place + 1) * width:7.2f} s  {count:3d}  {bar}".rstrip()


def _width(largest: float) -> float:
    """A round width that makes BINS bins at most."""
    widths = (step * 10.0**power for power in range(-3, 4) for step in (1, 2, 5))
    return next(width for width in widths if largest / width < BINS)


def _summary(seconds: Sequence[float]) -> str:
    if not seconds:
        return ""
    return f", shortest {min(seconds):.2f} s, median {median(seconds):.2f} s, longest {max(seconds):.2f} s"


def _table(figures: Sequence[Figure]) -> Iterator[str]:
    rows = []
    for figure in figures:
        must, goal = _limit(figure.must, figure.unit), _limit(figure.goal, figure.unit)
        reached = "" if figure.goal is None else "reached" if figure.measured <= figure.goal else "not reached"
        holds = "" if figure.must is None else "holds" if figure.holds else "**does not hold**"
        rows.append([figure.says, must, goal, _shown(figure.measured, figure.unit), holds, reached])
    yield from markdown_table(("figure", "must ≤", "goal ≤", "measured", "must", "goal"), rows)


def _limit(value: float | None, unit: str) -> str:
    return "" if value is None else _shown(value, unit)


def _shown(value: float, unit: str) -> str:
    if not unit:
        return f"{value:g}"
    return f"{value:.2f} {unit}" if value < 10 else f"{value:.1f} {unit}"
