"""A CSV of sample rows, from which `models add` learns the columns' names, types and ranges."""

import csv
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.catalog import Feature, ModelsError
from models.rows import RowError, Value, read_cell

DELIMITERS = (",", ";", "\t", "|")


class BadSample(ModelsError):
    """Raised when a sample cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Sample:
    """A header and rows of cells, all of one length."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def cells(self, name: str) -> list[str]:
        """One column; raises BadSample when there is none of that name."""
        if name not in self.columns:
            raise BadSample(f"The sample has no column {name!r}; it has: {', '.join(self.columns)}.")
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def read(file: Path) -> Sample:
    """The sample in a CSV file in UTF-8, with a header; raises BadSample."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return parse(lines)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadSample(f"The sample {file} cannot be read: {error}.") from error


def parse(lines: Iterable[str]) -> Sample:
    """The sample in lines of CSV; the delimiter is the one that cuts the header into most columns."""
    rest = iter(lines)
    header = next(rest, "")
    delimiter = max(DELIMITERS, key=header.count)
    records = csv.reader(itertools.chain([header], rest), delimiter=delimiter)
    columns = next(records, [])
    rows = [row for row in records if row]
    _check(columns, rows)
    return Sample(tuple(columns), tuple(tuple(row) for row in rows))


def numbers(cells: Sequence[str]) -> list[float] | None:
    """The numbers in a column, without what is missing; None when it holds anything else, read as a batch's cells."""
    try:
        values: list[Value] = [read_cell(cell, _ANY_NUMBER, False) for cell in cells]
    except RowError:
        return None
    return [value for value in values if isinstance(value, float)]


_ANY_NUMBER = Feature("", "number", accepts_missing=True)


def _check(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not columns or "" in columns or len(set(columns)) < len(columns):
        raise BadSample("The sample needs a header line whose names differ and are not empty.")
    if not rows:
        raise BadSample("The sample has a header and no rows.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise BadSample(f"Row {number} of the sample has {len(row)} cells where the header has {len(columns)}.")
