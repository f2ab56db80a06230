"""What a run has measured, and what follows from it."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any

from bench.measured import median


@dataclass(frozen=True, slots=True)
class Key:
    """Who was asked, in which way, by how many clients at once."""

    who: str
    way: str
    clients: int


@dataclass(frozen=True, slots=True)
class Speed:
    """What a load got: answers a second, and milliseconds that answers took; errors by their reasons."""

    per_second: float
    p50: float
    p95: float
    p99: float
    worst: float
    answers: int
    errors: Mapping[str, int]


@dataclass
class Measured:
    """By round, so that ratios are taken between neighbours; `samples` in seconds, `memory` in MB."""

    speeds: dict[Key, dict[int, Speed]] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    connections: dict[str, int] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    kept_bytes: float | None = None
    absent: dict[str, str] = field(default_factory=dict)

    def add(self, key: Key, turn: int, speed: Speed) -> None:
        self.speeds.setdefault(key, {})[turn] = speed

    def add_samples(self, name: str, seconds: Iterable[float]) -> None:
        self.samples.setdefault(name, []).extend(seconds)

    def of(self, key: Key, what: str) -> float | None:
        """The median of the rounds of one figure of a speed."""
        return median(getattr(speed, what) for speed in self.speeds.get(key, {}).values())

    def errors(self, key: Key) -> dict[str, int]:
        """Those of all rounds together."""
        found: dict[str, int] = {}
        for speed in self.speeds.get(key, {}).values():
            for reason, count in speed.errors.items():
                found[reason] = found.get(reason, 0) + count
        return found

    def ratio(self, key: Key, other: Key) -> float | None:
        """Answers a second against another's: the median of the rounds' ratios."""
        mine, others = self.speeds.get(key, {}), self.speeds.get(other, {})
        return median(mine[turn].per_second / others[turn].per_second for turn in mine.keys() & others.keys())

    def percentile(self, name: str, percent: float) -> float | None:
        """Of all rounds' samples together, in seconds."""
        found = self.samples.get(name)
        return percentile(found, percent) if found else None

    def to_json(self) -> dict[str, Any]:
        return {
            "speeds": [
                {**asdict(key), "round": turn, **asdict(speed)}
                for key, turns in self.speeds.items()
                for turn, speed in turns.items()
            ],
            "samples": self.samples,
            "connections": self.connections,
            "memory": self.memory,
            "kept_bytes": self.kept_bytes,
            "absent": self.absent,
        }


def speed_of(seconds: Sequence[float], during: float, errors: Mapping[str, int]) -> Speed:
    """The speed of a load whose answers came within `during` seconds."""
    milliseconds = [1000 * each for each in seconds]
    return Speed(
        per_second=round(len(seconds) / during, 2),
        p50=round(statistics.median(milliseconds), 3),
        p95=round(percentile(milliseconds, 95), 3),
        p99=round(percentile(milliseconds, 99), 3),
        worst=round(max(milliseconds), 3),
        answers=len(seconds),
        errors=dict(errors),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent are not above."""
    return sorted(values)[max(ceil(len(values) * percent / 100) - 1, 0)]
