"""Which rows of a chunk may be the ones that kill the predictor, hang it or take all its memory.

What the predictor had finished is innocent; only the rows it was at are suspect. A suspect part is divided at once; a
row that stands alone gets a second try, and then the error is its own. All of this is kept in the store under the
chunk's index, so that the search goes on where it was when its worker is lost.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

# Into so many pieces a suspect part is divided. Each division costs a death, or the second that a hanging row may take;
# to predict a piece that is innocent costs some milliseconds. So few large divisions are better than halves.
PIECES = 8
ROW_TRIES = 2  # a row that stands alone is to blame when it did it so often
# Whole machines stop for reasons of their own: a row over which workers were lost is tried once more than that.
LOST_TRIES = 3
LOST = "worker_lost"
ERRORS = {
    "crashed": ("worker_crashed", "predicting this row alone killed the predicting process"),
    "timeout": ("timeout", "predicting this row alone took longer than it may"),
    "out_of_memory": ("out_of_memory", "predicting this row alone took more memory than there is for it"),
    LOST: ("worker_crashed", "several workers were lost while they predicted this row alone"),
}
# A model that dies of every row would be searched row by row for hours. When so many rows of a chunk were to blame and
# none has a prediction, rows all over the chunk are tried first.
FIRST_DOUBT = 3
# When so many were, the chunk is put behind all others; the second number is for the second such chunk of a job of
# which no row has a prediction, and so on. (Of a chunk with one good row in ten, 30 rows are all bad once in 25 times.)
DOUBT = (30, 10, 3, 1)
DOUBTED_CHUNKS = 20  # so many such chunks, or all that there are, speak against the model


@dataclass(slots=True)
class Part:
    """Some rows of a chunk that have no outcome yet.

    `deaths` counts those of a row that stands alone; `reason` is of the last.
    """

    start: int
    stop: int
    deaths: int = 0
    reason: str = ""

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.stop - self.start

    @property
    def is_guilty(self) -> bool:
        """Whether its one row is to blame."""
        return self.deaths >= (LOST_TRIES if self.reason == LOST else ROW_TRIES)


@dataclass(slots=True)
class Suspects:
    """What is known of the rows of a chunk. `parts` are those without an outcome, in input order."""

    parts: list[Part]
    guilty: int = 0  # rows that were to blame
    predicted: bool = False  # some row has a prediction, here or elsewhere in the job
    doubted: bool = False  # it was put behind all others once, for the model's sake
    loads: int = 0  # deaths in a row while the model was loaded
    losses: int = 0  # workers lost over the chunk that were taken into account
    trying: list[int] | None = None  # the part that is tried, where workers are lost over it

    @classmethod
    def begin(cls, rows: int) -> Self:
        """Nothing is known yet."""
        return cls([Part(0, rows)])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        values = json.loads(text)
        values["parts"] = [Part(*part) for part in values["parts"]]
        return cls(**values)

    def to_json(self) -> str:
        """All of it as JSON."""
        names = ("guilty", "predicted", "doubted", "loads", "losses", "trying")
        parts = [(part.start, part.stop, part.deaths, part.reason) for part in self.parts]
        return json.dumps({"parts": parts, **{name: getattr(self, name) for name in names}}, separators=(",", ":"))

    def next_part(self) -> Part | None:
        """The part to try next, or to give its error; None when every row has its outcome."""
        begun = next((part for part in self.parts if part.deaths), None)
        if begun or not self.parts:
            return begun
        if self.guilty >= FIRST_DOUBT and not self.predicted:
            return self._single_out(max(self.parts, key=lambda part: part.rows))
        return self.parts[0]

    def is_doubtful(self, doubted_chunks: int) -> bool:
        """Whether it may be the model that is to blame; of so many other chunks of the job that was said already."""
        enough = DOUBT[min(doubted_chunks, len(DOUBT) - 1)]
        return self.guilty >= enough and not self.predicted and not self.doubted

    def died(self, part: Part, reason: str, suspect: tuple[int, int] | None = None) -> None:
        """The predictor died over a part, at the rows from `suspect[0]` up to `suspect[1]` if it is known at which."""
        self.loads = 0
        start, stop = suspect if suspect and suspect[0] < suspect[1] else (part.start, part.stop)
        start, stop = max(start, part.start), min(stop, part.stop)
        if stop - start == 1:
            pieces = [Part(start, stop, (part.deaths if part.rows == 1 else 0) + 1, reason)]
        else:
            edges = [start + (stop - start) * piece // PIECES for piece in range(PIECES + 1)]
            pieces = [Part(*edge) for edge in pairwise(edges)]
        self._replace(part, [Part(part.start, start), *pieces, Part(stop, part.stop)])

    def finish(self, part: Part, ok: int) -> None:
        """The rows of a part have their outcomes, `ok` of them a prediction."""
        self.loads = 0
        if ok:
            self.acquit_model()
        self._replace(part, [])
        if part.is_guilty:
            self.guilty += 1
            self._join()  # the one row explains all; of the others nothing is known any more

    def acquit_model(self) -> None:
        """Some row of the job has a prediction: it is not the model that is to blame."""
        self.predicted, self.doubted = True, False

    def reopen(self, done: Iterable[tuple[int, int]], rows: int) -> None:
        """Rows of the chunk that are in none of the parts which are said to be done have no outcome after all."""
        end = 0
        for start, stop in [*sorted(done), (rows, rows)]:
            if start > end:
                self.parts.append(Part(end, start))
            end = stop

    def account_for_losses(self, losses: int) -> None:
        """So many workers were lost over the chunk: what the last of them was trying is suspect."""
        if losses > self.losses and self.trying:
            tried = [part for part in self.parts if [part.start, part.stop] == self.trying]
            if tried:
                self.died(tried[0], LOST)
        self.losses, self.trying = losses, None

    def _single_out(self, part: Part) -> Part:
        """Makes the middle row of a part one of its own."""
        if part.rows == 1:
            return part
        middle = (part.start + part.stop) // 2
        single = Part(middle, middle + 1)
        self._replace(part, [Part(part.start, middle), single, Part(middle + 1, part.stop)])
        return single

    def _replace(self, part: Part, pieces: list[Part]) -> None:
        place = self.parts.index(part)
        self.parts[place : place + 1] = [piece for piece in pieces if piece.rows]

    def _join(self) -> None:
        """Joins parts that lie side by side and of which nothing is known."""
        joined: list[Part] = []
        for part in self.parts:
            before = joined[-1] if joined else None
            if before and before.stop == part.start and not before.deaths and not part.deaths:
                before.stop = part.stop
            else:
                joined.append(part)
        self.parts = joined
