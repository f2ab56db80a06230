"""What a run has measured, and what follows from it."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Key:
    """What was done: who scored how many rows with which model, and what came out."""

    who: str
    output: str
    model: str
    rows: int


@dataclass
class Measured:
    """Seconds by round, so that ratios are taken between neighbours; memory in MB, from runs of its own."""

    rows: int
    walls: dict[Key, dict[int, float]] = field(default_factory=dict)
    phases: dict[Key, list[dict[str, float]]] = field(default_factory=dict)
    figures: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[Key, dict[str, Any]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def add(self, key: Key, turn: int, walls: Sequence[float]) -> None:
        self.walls.setdefault(key, {})[turn] = statistics.median(walls)

    def wall(self, key: Key) -> float | None:
        """The median of the rounds."""
        return median(self.walls.get(key, {}).values())

    def ratio(self, key: Key, other: Key) -> float | None:
        """The median of the rounds' ratios."""
        mine, others = self.walls.get(key, {}), self.walls.get(other, {})
        return median(mine[turn] / others[turn] for turn in mine.keys() & others.keys())

    def against(self, who: str, output: str, model: str) -> float | None:
        """Our time as a part of another's."""
        return self.ratio(Key("ours", output, model, self.rows), Key(who, output, model, self.rows))

    def figure(self, name: str) -> float | None:
        return median(self.figures.get(name, []))

    def worst(self, name: str) -> float | None:
        return max(self.figures.get(name, []), default=None)

    def largest(self, part: str) -> float | None:
        """The largest peak of a part of ours, whatever the size of the file."""
        return max((peaks[part] for key, peaks in self.memory.items() if key.who == "ours"), default=None)

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "walls": [{**asdict(key), "seconds": list(turns.values())} for key, turns in self.walls.items()],
            "phases": [{**asdict(key), "seconds": each} for key, each in self.phases.items()],
            "figures": self.figures,
            "memory": [{**asdict(key), "megabytes": peaks} for key, peaks in self.memory.items()],
            "absent": self.absent,
        }


def median(values: Iterable[float]) -> float | None:
    """None of nothing."""
    found = list(values)
    return statistics.median(found) if found else None
