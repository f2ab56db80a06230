"""The body of a batch, as it arrives: bytes in, chunks of whole records out.

Either the body is refused with a line number and the reason, or every record is in one chunk, in order, byte for byte.
Which of the two, and where chunks end, never depends on how the body was divided on its way.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NoReturn

from jobs.codec import json_text
from jobs.codec.cells import records_pattern, split_cells, split_line_end, split_lines, unquote
from jobs.codec.chunker import Chunk, Chunker
from jobs.codec.faults import SplitError, find_fault
from jobs.codec.layout import LayoutError, check_names
from jobs.codec.scan import scan
from jobs.codec.utf8 import Utf8

__all__ = ["Chunk", "CsvSplitter", "Header", "NdjsonSplitter", "SplitError"]

# What is looked at in one go: small enough for the processor's cache, large enough that calls cost nothing.
_BLOCK_BYTES = 128 * 1024
# Up to here an unfinished record is looked at again with every piece, above only when it has doubled.
_PATIENT_FROM_BYTES = 64 * 1024
_BLANK_LINES = re.compile(rb"(?:\r?\n)*+")
_JSON_SPACES = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Header:
    """A CSV's first record: its cells as sent, the names they hold, and the line end behind them."""

    cells: tuple[str, ...]
    names: tuple[str, ...]
    line_end: str


class _Splitter(ABC):
    def __init__(self, delimiter: bytes, max_record_bytes: int) -> None:
        self._max_record_bytes = max_record_bytes
        self._utf8 = Utf8()
        self._tail = bytearray()  # what has not been cut yet; it begins where a record does
        self._seen_bytes = 0  # of the tail, when it was last looked at
        self._lines = 0  # before the tail
        self._chunker = Chunker(delimiter)

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of the body; raises SplitError for the first thing that is wrong with it."""
        text, bad_offset = self._utf8.feed(data)
        text, nul, _ = text.partition(b"\0")
        for start in range(0, len(text), _BLOCK_BYTES):
            self._add(text[start : start + _BLOCK_BYTES])
        if nul:
            self._refuse("nul_byte", "holds a NUL byte; the file is not text, or not in UTF-8")
        if bad_offset is not None:
            self._refuse_encoding(bad_offset)

    def finish(self) -> None:
        """Takes the end of the body; raises SplitError when it is not where a body may end."""
        bad_offset = self._utf8.finish()
        if bad_offset is not None:
            self._refuse_encoding(bad_offset)
        self._cut()
        self._check_tail(final=True)
        if self._tail:
            self._add_last(bytes(self._tail))
        self._check_whole()

    def take(self, max_rows: int, max_bytes: int, flush: bool = False) -> Chunk | None:
        """The next chunk: as many records as both limits allow, and one at least.

        None while neither limit is reached; with `flush` only when there is no complete record.
        """
        if flush and len(self._tail) > self._seen_bytes:
            self._cut()
        return self._chunker.take(max_rows, max_bytes, flush)

    def _add(self, piece: bytes) -> None:
        self._tail += piece
        # A record of many lines is not worth a look at each of them: the time would grow with the square of its size.
        patient = self._seen_bytes >= _PATIENT_FROM_BYTES and len(self._tail) < 2 * self._seen_bytes
        if (b"\n" in piece and not patient) or len(self._tail) > self._max_record_bytes:
            self._cut()

    def _cut(self) -> None:
        block = bytes(self._tail)
        end, lines = self._cut_records(block)
        self._lines += lines
        del self._tail[:end]
        self._seen_bytes = len(self._tail)
        if self._seen_bytes > self._max_record_bytes or b"\n" in self._tail:
            self._check_tail(final=False)

    def _check_tail(self, final: bool) -> None:
        fault = self._tail and self._find_fault(bytes(self._tail), self._lines + 1, final)
        if fault:
            raise fault

    def _refuse(self, code: str, what: str, offset: int | None = None) -> NoReturn:
        # What stands before it in the body comes first, however the body was divided.
        self._cut()
        self._check_tail(final=False)
        line = self._lines + self._tail.count(b"\n") + 1
        raise SplitError(code, f"line {line} {what}", line, offset)

    def _refuse_encoding(self, offset: int) -> NoReturn:
        self._refuse(
            "encoding", f"is not UTF-8 at byte {offset} of the file; save it as UTF-8, or name its charset", offset
        )

    @abstractmethod
    def _cut_records(self, block: bytes) -> tuple[int, int]:
        """Hands the complete records at the block's start to the chunker, up to a bad one; their bytes and lines."""

    @abstractmethod
    def _find_fault(self, tail: bytes, line: int, final: bool) -> SplitError | None:
        """The first fault of the record that begins on the given line."""

    @abstractmethod
    def _add_last(self, record: bytes) -> None:
        """Takes the last record, which has no line end."""

    @abstractmethod
    def _check_whole(self) -> None:
        """Raises SplitError when the body held too little."""


class CsvSplitter(_Splitter):
    """Cuts a CSV body by the rules of the contract; the header belongs to no chunk.

    A header has at most `max_columns` columns; a record without its line end at most `max_record_bytes` bytes.
    """

    def __init__(self, delimiter: str, max_record_bytes: int, max_columns: int) -> None:
        super().__init__(delimiter.encode(), max_record_bytes)
        self.header: Header | None = None
        self._delimiter = delimiter.encode()
        self._max_columns = max_columns
        self._has_rows = False

    def _cut_records(self, block: bytes) -> tuple[int, int]:
        start = 0 if self.header else self._cut_header(block)
        lines = block.count(b"\n", 0, start)
        if not self.header:
            return start, lines
        found = scan(block[start:], self._delimiter, self._max_record_bytes)
        self._add_rows(Chunk(found.data, found.rows))
        return start + found.end, lines + found.lines

    def _cut_header(self, block: bytes) -> int:
        blank = _BLANK_LINES.match(block)
        start = blank.end() if blank else 0
        record = records_pattern(self._delimiter).match(block, start)
        if not record or len(split_line_end(record[0])[0]) > self._max_record_bytes:
            return start
        self._read_header(record[0], self._lines + block.count(b"\n", 0, start) + 1)
        return record.end()

    def _read_header(self, record: bytes, line: int) -> None:
        body, line_end = split_line_end(record)
        cells = split_cells(body, self._delimiter)
        if len(cells) > self._max_columns:
            detail = f"the header has {len(cells)} columns; {self._max_columns} are allowed"
            raise SplitError("too_many_columns", detail, line)
        names = tuple(unquote(cell) for cell in cells)
        try:
            check_names(names)
        except LayoutError as error:
            raise SplitError(error.code, error.detail, line) from None
        self.header = Header(tuple(cell.decode() for cell in cells), names, line_end.decode() or "\n")

    def _add_rows(self, run: Chunk) -> None:
        self._has_rows = self._has_rows or run.rows > 0
        self._chunker.add(run)

    def _find_fault(self, tail: bytes, line: int, final: bool) -> SplitError | None:
        return find_fault(tail, self._delimiter, self._max_record_bytes, line, final)

    def _add_last(self, record: bytes) -> None:
        if self.header:
            self._add_rows(Chunk(record, 1))
        else:
            self._read_header(record, self._lines + 1)

    def _check_whole(self) -> None:
        if not self.header:
            raise SplitError("empty_body", "the file is empty; send a header line and at least one row")
        if not self._has_rows:
            raise SplitError("no_rows", "the file has a header and no rows; send at least one row")


class NdjsonSplitter(_Splitter):
    """Cuts a body of one JSON object or array a line; lines of nothing but spaces are no records."""

    def __init__(self, max_record_bytes: int) -> None:
        super().__init__(b"\n", max_record_bytes)
        self.first: dict[str, object] | list[object] | None = None

    def _cut_records(self, block: bytes) -> tuple[int, int]:
        end = block.rfind(b"\n") + 1
        lines = split_lines(block[:end])
        numbered = enumerate(lines, start=self._lines + 1)
        self._add_lines([line for number, line in numbered if self._is_record(line, number)])
        return end, len(lines)

    def _add_lines(self, lines: list[bytes]) -> None:
        self._chunker.add(Chunk(b"".join(lines), len(lines)))

    def _is_record(self, line: bytes, number: int) -> bool:
        """Whether a line holds an input; raises SplitError when it holds anything else."""
        body = split_line_end(line)[0]
        if len(body) > self._max_record_bytes:
            raise self._too_large(number)
        if not body.strip(_JSON_SPACES):
            return False
        try:
            value = json_text.loads(body)
        except json_text.InvalidJson as error:
            raise SplitError("invalid_json", f"line {number}: {error.detail}", number) from None
        if not isinstance(value, (dict, list)):
            raise SplitError("invalid_json", f"line {number} is neither a JSON object nor an array", number)
        if self.first is None:
            self.first = value
        return True

    def _too_large(self, line: int) -> SplitError:
        detail = f"line {line} has more than the {self._max_record_bytes} bytes a line may have"
        return SplitError("record_too_large", detail, line)

    def _find_fault(self, tail: bytes, line: int, final: bool) -> SplitError | None:
        # The carriage return may be half of a line end.
        size = len(tail) - (not final and tail.endswith(b"\r"))
        return self._too_large(line) if size > self._max_record_bytes else None

    def _add_last(self, record: bytes) -> None:
        if self._is_record(record, self._lines + 1):
            self._add_lines([record])

    def _check_whole(self) -> None:
        if not (self.first or self._lines or self._tail):
            raise SplitError("empty_body", "the body is empty; send one JSON object or array a line")
        if self.first is None:
            raise SplitError("no_rows", "the body has no rows; send at least one JSON object or array")
