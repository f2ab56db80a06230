"""A chunk's records, read for the model: columns of values, and the rows that are wrong.

CSV goes through pyarrow, which parses numbers exactly as Python's float() does, at 250 MB/s; what it cannot settle
by the contract's rules is decided cell by cell by models.rows, each distinct cell once (docs/performance.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from jobs.codec import cells, inputs, json_text
from jobs.codec.layout import Layout
from models.catalog import Manifest
from models.predictor import Column, columns_of
from models.rows import RowError, Value, arrange, read_row
from worker.columns import MISSING, read_column
from worker.records import Records, check_count

_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Reading:
    """A chunk as it was read.

    `columns` has the values of the rows that are right, `rows` their places in the chunk (None: all of them);
    `errors` has what is wrong with the others. `kept` gives each row's kept cells, joined; `line_ends` are each row's
    line end, or the one that all have. `records` gives all input records, without line ends.

    Where nothing is quoted and every record has its cells, the kept cells are there in bulk too: `lines` is the chunk
    itself when all are kept, `joined` an array of each row's when some are.
    """

    count: int
    columns: list[Column]
    rows: npt.NDArray[np.intp] | None
    errors: dict[int, RowError]
    kept: Callable[[], Sequence[bytes]]
    line_ends: Sequence[bytes] | bytes
    records: Callable[[], Sequence[bytes]]
    has_surplus: bool
    lines: bytes | None = None
    joined: pa.Array | None = None


def read_chunk(chunk: bytes, count: int, layout: Layout, manifest: Manifest) -> Reading:
    """Reads a chunk of `count` records. Raises RecordCountDiffers."""
    if layout.format == "json":
        return _read_json(chunk, count, layout, manifest)
    return _CsvChunk(chunk, count, layout, manifest).read()


def _read_json(chunk: bytes, count: int, layout: Layout, manifest: Manifest) -> Reading:
    records = [line.rstrip(b"\r\n") for line in cells.split_lines(chunk)]
    check_count(len(records), count)
    delimiter = layout.delimiter.encode()
    kept, surplus = [], False
    for record in records:
        fitted, beyond = inputs.fitted(layout, record)
        kept.append(delimiter.join([fitted[index] for index in layout.keep]))
        surplus = surplus or bool(beyond)
    values: list[list[Value]] = []
    rows, errors = [], {}
    for place, record in enumerate(records):
        try:
            values.append(read_row(arrange(json_text.loads(record), manifest), manifest))
            rows.append(place)
        except RowError as error:
            errors[place] = error
    return Reading(
        count=count,
        columns=columns_of(values, manifest),
        rows=np.array(rows, dtype=np.intp) if errors else None,
        errors=errors,
        kept=lambda: kept,
        line_ends=layout.line_end.encode(),
        records=lambda: records,
        has_surplus=surplus,
    )


class _CsvChunk:
    """One chunk of CSV records on its way to a Reading."""

    def __init__(self, chunk: bytes, count: int, layout: Layout, manifest: Manifest) -> None:
        self._chunk = chunk
        self._count = count
        self._layout = layout
        self._manifest = manifest
        self._quoted = b'"' in chunk
        self._width = len(layout.columns)
        self._uneven: dict[int, int] = {}  # place of a record → how many cells it has
        self._places = [layout.columns.index(name) for name in manifest.feature_names]

    def read(self) -> Reading:
        table = self._parse()
        records = Records(self._chunk, self._count, self._layout, self._uneven)
        even = self._even_rows(table.num_rows)
        errors: dict[int, RowError] = {place: self._wrong_count(found) for place, found in self._uneven.items()}
        columns = []
        for feature, place in zip(self._manifest.features, self._places, strict=True):
            column, wrong = read_column(
                table.column(str(place)), feature, self._manifest.accepts_infinite, partial(self._texts, place)
            )
            columns.append(column)
            for row, error in wrong.items():
                errors.setdefault(int(even[row]) if even is not None else row, error)
        right, keep = None, self._layout.keep
        plain = not errors and not self._quoted
        if errors:
            places = even if even is not None else np.arange(self._count)
            chosen = np.array([place not in errors for place in places.tolist()], dtype=bool)
            columns = [column[chosen] for column in columns]
            right = places[chosen]
        return Reading(
            count=self._count,
            columns=columns,
            rows=right,
            errors=errors,
            kept=lambda: records.kept(table, even),
            line_ends=records.line_ends,
            records=lambda: records.bodies,
            has_surplus=any(found > self._width for found in self._uneven.values()),
            lines=self._chunk if plain and len(keep) == self._width else None,
            joined=records.joined(table) if plain and 0 < len(keep) < self._width else None,
        )

    def _parse(self) -> pa.Table:
        """The records with the right number of cells; numbers are texts in it when some are odd."""
        try:
            table = self._parse_columns(numbers_as_text=False)
        except pa.ArrowInvalid:
            table = self._as_text
        check_count(table.num_rows + len(self._uneven), self._count)
        return table

    def _parse_columns(self, numbers_as_text: bool) -> pa.Table:
        self._uneven = {}
        types = {str(index): pa.binary() for index in self._kept_by_parser}
        for feature, place in zip(self._manifest.features, self._places, strict=True):
            text = feature.type == "text" or numbers_as_text or place in self._kept_by_parser
            types[str(place)] = pa.string() if text else pa.float64()
        # A byte order mark at the start is taken away, whatever the options say; within a body it is a character.
        mark = _MARK if self._chunk.startswith(_MARK) else b""
        return csv.read_csv(
            pa.BufferReader(mark + self._chunk),
            csv.ReadOptions(
                column_names=[str(index) for index in range(self._width)],
                use_threads=False,
                block_size=len(mark) + len(self._chunk) + 1,
            ),
            csv.ParseOptions(
                delimiter=self._layout.delimiter,
                quote_char='"' if self._quoted else False,
                newlines_in_values=self._quoted,
                ignore_empty_lines=False,
                invalid_row_handler=self._note_uneven,
            ),
            csv.ConvertOptions(
                include_columns=list(types), column_types=types, null_values=MISSING, strings_can_be_null=False
            ),
        )

    @cached_property
    def _kept_by_parser(self) -> frozenset[int]:
        """The kept columns whose cells the parser gives byte for byte: none when all are kept, or some are quoted."""
        keep = self._layout.keep
        return frozenset() if self._quoted or len(keep) == self._width else frozenset(keep)

    def _note_uneven(self, row: csv.InvalidRow) -> str:
        self._uneven[row.number - 1] = row.actual_columns
        return "skip"

    def _even_rows(self, count: int) -> npt.NDArray[np.intp] | None:
        """The places of the parsed rows in the chunk; None when they are all."""
        if not self._uneven:
            return None
        places = np.ones(self._count, dtype=bool)
        places[list(self._uneven)] = False
        return np.flatnonzero(places)

    def _wrong_count(self, found: int) -> RowError:
        return RowError("wrong_cell_count", None, f"{found} cells where the header has {self._width}")

    @cached_property
    def _as_text(self) -> pa.Table:
        return self._parse_columns(numbers_as_text=True)

    def _texts(self, place: int) -> pa.ChunkedArray:
        """The cells of a column, none of them read as a number."""
        return self._as_text.column(str(place))
