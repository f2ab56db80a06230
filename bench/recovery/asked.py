"""What the command line asked of a measurement."""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Asked:
    """`times` and `rows` are None where the measurement's own default counts."""

    seed: int
    times: int | None = None
    rows: int | None = None

    def chance(self) -> Random:
        """The same numbers for the same seed."""
        return Random(self.seed)

    def times_or(self, default: int) -> int:
        return default if self.times is None else self.times

    def rows_or(self, default: int) -> int:
        return default if self.rows is None else self.rows
