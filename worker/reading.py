"""A chunk's records, read for the model: columns of values, and the rows that are wrong.

CSV goes through pyarrow, which parses numbers exactly as Python's float() does, at 250 MB/s; what it cannot settle
by the contract's rules is decided cell by cell by models.rows, each distinct cell once (docs/performance.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute, csv

from jobs.codec import cells, inputs, json_text
from jobs.codec.layout import Layout
from models.catalog import Feature, Manifest
from models.predictor import Column, columns_of
from models.rows import MISSING_WORDS, RowError, Value, arrange, read_cell, read_row

_MARK = b"\xef\xbb\xbf"


class RecordCountDiffers(Exception):
    """Raised when a chunk holds other records than the splitter counted: a defect, never to be papered over."""


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
    _check_count(len(records), count)
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
        self._delimiter = layout.delimiter.encode()
        self._quoted = b'"' in chunk
        self._width = len(layout.columns)
        self._uneven: dict[int, int] = {}  # place of a record → how many cells it has
        self._places = [layout.columns.index(name) for name in manifest.feature_names]
        self._line_end = layout.line_end.encode()

    def read(self) -> Reading:
        table = self._parse()
        even = self._even_rows(table.num_rows)
        errors: dict[int, RowError] = {place: self._wrong_count(found) for place, found in self._uneven.items()}
        columns = []
        for feature, place in zip(self._manifest.features, self._places, strict=True):
            column, wrong = self._column(table.column(str(place)), feature, place)
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
            kept=lambda: self._kept(table, even),
            line_ends=self._line_ends,
            records=lambda: self._bodies,
            has_surplus=any(found > self._width for found in self._uneven.values()),
            lines=self._chunk if plain and len(keep) == self._width else None,
            joined=self._joined(table) if plain and 0 < len(keep) < self._width else None,
        )

    # Parsing

    def _parse(self) -> pa.Table:
        """The records with the right number of cells; numbers are texts in it when some are odd."""
        try:
            table = self._parse_columns(numbers_as_text=False)
        except pa.ArrowInvalid:
            table = self._as_text
        _check_count(table.num_rows + len(self._uneven), self._count)
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
                include_columns=list(types), column_types=types, null_values=_MISSING, strings_can_be_null=False
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

    # Values

    def _column(self, parsed: pa.ChunkedArray, feature: Feature, place: int) -> tuple[Column, dict[int, RowError]]:
        """A feature's values, and the rows in which its cell is wrong."""
        if feature.type == "text":
            return _each_distinct(parsed, feature, self._manifest.accepts_infinite)
        numbers = _numbers(parsed, feature, self._manifest.accepts_infinite)
        if numbers is not None:
            return numbers, {}
        if not pa.types.is_string(parsed.type):
            parsed = self._as_text.column(str(place))
        return _each_distinct(parsed, feature, self._manifest.accepts_infinite)

    @cached_property
    def _as_text(self) -> pa.Table:
        return self._parse_columns(numbers_as_text=True)

    # What comes out again

    @cached_property
    def _split(self) -> list[bytes]:
        """The records with their line ends."""
        return cells.split_records(self._chunk, self._delimiter)

    @cached_property
    def _bodies(self) -> list[bytes]:
        """The records without their line ends."""
        if not self._quoted and isinstance(self._line_ends, bytes):
            bodies = self._chunk.split(self._line_ends)
            bodies = bodies if bodies[-1] else bodies[:-1]
        else:
            bodies = [cells.split_line_end(record)[0] for record in self._split]
        _check_count(len(bodies), self._count)
        return bodies

    @cached_property
    def _line_ends(self) -> list[bytes] | bytes:
        if not self._quoted:
            line_feeds, returns = self._chunk.count(b"\n"), self._chunk.count(b"\r")
            if self._line_end == (b"\r\n" if returns else b"\n") and returns in (0, line_feeds):
                return self._line_end
        ends = [cells.split_line_end(record)[1] or self._line_end for record in self._split]
        return ends[0] if len(set(ends)) == 1 else ends

    def _kept(self, table: pa.Table, even: npt.NDArray[np.intp] | None) -> Sequence[bytes]:
        keep = self._layout.keep
        if not keep:
            return []
        if len(keep) == self._width:
            kept = self._bodies
            return self._with_uneven(kept) if self._uneven else kept
        if self._quoted:
            split = (cells.split_cells(body, self._delimiter) for body in self._bodies)
            uneven = self._uneven
            return self._with_uneven(
                [b"" if place in uneven else self._chosen(found) for place, found in enumerate(split)]
            )
        parsed: list[bytes] = self._joined(table).to_pylist()
        if even is None:
            return parsed
        kept = [b""] * self._count
        for place, text in zip(even.tolist(), parsed, strict=True):
            kept[place] = text
        return self._with_uneven(kept)

    def _joined(self, table: pa.Table) -> pa.Array:
        """The kept cells of each parsed row, which are as they were sent where nothing is quoted."""
        columns = [table.column(str(index)).combine_chunks().cast(pa.binary()) for index in self._layout.keep]
        return columns[0] if len(columns) == 1 else compute.binary_join_element_wise(*columns, self._delimiter)

    def _chosen(self, found: Sequence[bytes]) -> bytes:
        return self._delimiter.join([found[index] for index in self._layout.keep])

    def _with_uneven(self, kept: Sequence[bytes]) -> list[bytes]:
        """The kept cells of records with too few or too many cells: padded, or cut."""
        filled = list(kept)
        for place in self._uneven:
            fitted, _ = inputs.fitted(self._layout, self._bodies[place])
            filled[place] = self._chosen(fitted)
        return filled


def _numbers(parsed: pa.ChunkedArray, feature: Feature, accepts_infinite: bool) -> Column | None:
    """The column as numbers; None when some cell is not plainly one and has to be looked at."""
    if pa.types.is_string(parsed.type):
        try:
            parsed = parsed.cast(pa.float64())
        except pa.ArrowInvalid:
            return None
    if parsed.null_count and not feature.accepts_missing:
        return None
    numbers: Column = parsed.to_numpy()  # missing values become NaN
    finite = np.isfinite(numbers)
    if accepts_infinite:
        finite |= np.isinf(numbers)
    return numbers if int(np.count_nonzero(finite)) + parsed.null_count == len(numbers) else None


def _each_distinct(
    parsed: pa.ChunkedArray, feature: Feature, accepts_infinite: bool
) -> tuple[Column, dict[int, RowError]]:
    """The column cell by cell, each distinct one read once."""
    if len(parsed) == 0:
        return np.empty(0, dtype=object if feature.type == "text" else np.float64), {}
    encoded = parsed.combine_chunks().dictionary_encode()
    indices = encoded.indices.to_numpy()
    values: list[Value] = []
    errors: dict[int, RowError] = {}
    for index, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            values.append(read_cell(text, feature, accepts_infinite))
        except RowError as error:
            values.append(None)
            errors[index] = error
    column = np.empty(len(values), dtype=object)
    column[:] = values
    if feature.type == "number":
        column = column.astype(np.float64)  # None becomes NaN
    wrong = np.flatnonzero(np.isin(indices, list(errors))) if errors else ()
    return column[indices], {int(row): errors[int(indices[row])] for row in wrong}


def _check_count(found: int, count: int) -> None:
    if found != count:
        raise RecordCountDiffers(f"{count} records were counted and {found} were read")


# pyarrow compares bytes, the contract takes the words in any case.
_MISSING = sorted(
    {"".join(letters) for word in MISSING_WORDS for letters in product(*zip(word, word.upper(), strict=True))}
)
