"""What came out of a chunk, as CSV records and as JSON rows."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.codec import cells, inputs
from jobs.codec.chunk import Failure
from jobs.codec.json_text import dumps
from jobs.codec.layout import Layout, class_text
from jobs.codec.patch import Patch
from jobs.codec.records import input_records, refused_records

_JSON_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false")
NOT_PROCESSED = "the job ended before this row was reached"
_NOT_PROCESSED = Failure(0, "not_processed", None, NOT_PROCESSED, "")


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What came out of one chunk.

    `records` has one CSV record a row, its kept cells and then ours; `failures` has the rows without a prediction,
    by their number in the chunk; `lines` are the inputs as they were sent, for what was sent as JSON.
    """

    records: bytes
    failures: Mapping[int, Failure]
    lines: bytes | None = None


def unreached(layout: Layout, chunk: bytes) -> Outcomes:
    """The outcomes of an input chunk that no worker got to: every row is there, with the error `not_processed`."""
    records = input_records(layout, chunk)
    return Outcomes(
        records=refused_records(layout, records, _NOT_PROCESSED.code, _NOT_PROCESSED.message),
        failures=dict.fromkeys(range(len(records)), _NOT_PROCESSED),
        lines=None if layout.format == "csv" else chunk,
    )


def unreached_again(layout: Layout, patch: Patch, lines: bytes | None) -> Outcomes:
    """The outcomes of a retried chunk that no worker got to: what was not to be predicted anew is as it was."""
    records = patch.records(layout)
    rows = patch.rows(len(records))
    error = cells.quote(f"{_NOT_PROCESSED.code}: {_NOT_PROCESSED.message}", _delimiter(layout))
    for row in rows:
        body, line_end = cells.split_line_end(records[row])
        kept = cells.split_cells(body, _delimiter(layout))[: -len(layout.outputs)]
        ours = [b""] * (len(layout.outputs) - 1) + [error]
        records[row] = _delimiter(layout).join([*kept, *ours]) + line_end
    return Outcomes(b"".join(records), dict.fromkeys(rows, _NOT_PROCESSED), lines)


def escaped(records: bytes, delimiter: bytes) -> bytes:
    """CSV records in which no cell is a formula to a spreadsheet."""
    return b"".join([_escaped_record(record, delimiter) for record in cells.split_records(records, delimiter)])


class RowWriter:
    """Writes outcomes of one layout as JSON objects."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._delimiter = _delimiter(layout)
        self._ours = len(layout.outputs)
        self._keys = [dumps(layout.columns[index]) + ":" for index in layout.keep]
        self._classes = {class_text(item): dumps(item) for item in layout.classes or ()}
        self._class_keys = [dumps(text) + ":" for text in self._classes] if layout.has_probabilities else None

    def rows(self, outcomes: Outcomes, first: int, wanted: slice = slice(None)) -> list[str]:
        """The `wanted` rows of a chunk, one JSON object each; `first` is the number of the chunk's first row."""
        records = cells.split_records(outcomes.records, self._delimiter)
        places = range(len(records))[wanted]
        sent = self._sent(outcomes, len(records))[wanted]
        return [
            self._row(first + place, record, line, outcomes.failures.get(place))
            for place, record, line in zip(places, records[wanted], sent, strict=True)
        ]

    def _sent(self, outcomes: Outcomes, count: int) -> Sequence[bytes | None]:
        return [None] * count if outcomes.lines is None else input_records(self._layout, outcomes.lines)

    def _row(self, number: int, record: bytes, line: bytes | None, failure: Failure | None) -> str:
        found = cells.split_cells(cells.split_line_end(record)[0], self._delimiter)
        kept, ours = found[: -self._ours], found[-self._ours :]
        sent = self._object(self._keys, kept) if line is None else dumps(inputs.shown(self._layout, line))
        return (
            f'{{"row":{number},"input":{sent},"prediction":{self._prediction(ours[0], failure)}'
            f'{self._probabilities(ours[1:-1], failure)},"error":{_error(failure)}}}'
        )

    def _object(self, keys: Sequence[str], found: Sequence[bytes]) -> str:
        pairs = [key + dumps(cells.unquote(cell)) for key, cell in zip(keys, found, strict=True)]
        return "{" + ",".join(pairs) + "}"

    def _prediction(self, cell: bytes, failure: Failure | None) -> str:
        if failure is not None:
            return "null"
        text = cells.unquote(cell)
        known = self._classes.get(text)
        # What is no class is mostly a number, and stands in the cell as JSON; but a model may answer text all the same.
        return known or (text if _JSON_SCALAR.fullmatch(text) else dumps(text))

    def _probabilities(self, found: Sequence[bytes], failure: Failure | None) -> str:
        if self._class_keys is None:
            return ""
        if failure is not None:
            return ',"probabilities":null'
        pairs = [key + cell.decode() for key, cell in zip(self._class_keys, found, strict=True)]
        return ',"probabilities":{' + ",".join(pairs) + "}"


def _delimiter(layout: Layout) -> bytes:
    return layout.delimiter.encode()


def _error(failure: Failure | None) -> str:
    if failure is None:
        return "null"
    return dumps({"code": failure.code, "column": failure.column, "message": failure.message})


def _escaped_record(record: bytes, delimiter: bytes) -> bytes:
    body, line_end = cells.split_line_end(record)
    return delimiter.join([_escaped_cell(cell, delimiter) for cell in cells.split_cells(body, delimiter)]) + line_end


def _escaped_cell(cell: bytes, delimiter: bytes) -> bytes:
    text = cells.unquote(cell)
    safe = cells.escape_formula(text)
    return cell if safe == text else cells.quote(safe, delimiter)
