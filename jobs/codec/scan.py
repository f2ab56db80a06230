"""Where the complete CSV records of a block end, at the speed of bytes methods wherever that can be proved right.

Three ways, all with the same answer: without quotes every line end ends a record; where every quote stands at the edge
of a cell, parity tells inside from outside; everything else is left to one regular expression that knows the rules.
"""

import re
from dataclasses import dataclass
from functools import cache

from jobs.codec.cells import records_pattern, split_line_end

# Above this share of quotes the proof, which makes an object for each, is slower than the expression.
_DENSE = 1 / 12
_BLANK = (b"\n", b"\r\n")
# Searching for these is twice as fast as finding or counting two bytes, which Python's own methods do one by one.
_BLANK_LINE = re.compile(rb"\n\r?\n")
_BARE_CR = re.compile(rb"\r(?!\n)")


@dataclass(frozen=True, slots=True)
class Scan:
    """The complete records at a block's start, without blank lines; how many; where they end in the block.

    `lines` counts the line ends up to there, those of blank lines and within quotes included.
    """

    data: bytes
    rows: int
    end: int
    lines: int


def scan(block: bytes, delimiter: bytes, max_record_bytes: int) -> Scan:
    """The complete records of a block that begins with a record, up to the first that breaks a rule or is too large."""
    found = None
    if len(block) <= max_record_bytes:
        if b'"' not in block:
            found = _without_quotes(block)
        elif block.count(b'"') < len(block) * _DENSE:
            found = _by_parity(block, delimiter)
    return found or _by_rules(block, delimiter, max_record_bytes)


def _without_quotes(block: bytes) -> Scan | None:
    end = block.rfind(b"\n") + 1
    data = block[:end]
    if _has_bare_cr(data) or _has_blank_line(data):
        return None
    rows = data.count(b"\n")
    return Scan(data, rows, end, lines=rows)


def _by_parity(block: bytes, delimiter: bytes) -> Scan | None:
    """Counts what stands outside quotes, if each quote proves to open or close a cell, or to be half of a doubled one.

    Split at the quotes, every other piece is outside. By induction this is right if each of these pieces is empty (a
    doubled quote), or begins where a cell may end and ends where a cell may begin. None when that is not so.
    """
    pieces = block.split(b'"')
    end = _outer_end(block, pieces)
    first, *inner = pieces[::2]
    last = inner.pop() if len(pieces) % 2 else b""
    last = last[: last.rfind(b"\n") + 1]  # what follows is not a whole record, and not judged yet
    # No piece holds a quote, so two of them stand only between pieces. The block's own edges are as good as a cell's.
    outside = b'""'.join((first or delimiter, *filter(None, inner), last or delimiter))
    if _misplaced_quotes(delimiter).search(outside) or _has_bare_cr(outside) or _has_blank_line(outside):
        return None
    return Scan(block[:end], outside.count(b"\n"), end, block.count(b"\n", 0, end))


def _outer_end(block: bytes, pieces: list[bytes]) -> int:
    """Where the line after the last line end outside quotes begins."""
    end = len(block)
    for place in range(len(pieces) - 1, -1, -1):
        line_end = pieces[place].rfind(b"\n") if place % 2 == 0 else -1
        if line_end >= 0:
            return end - len(pieces[place]) + line_end + 1
        end -= len(pieces[place]) + 1
    return 0


def _by_rules(block: bytes, delimiter: bytes, max_record_bytes: int) -> Scan:
    records = _records_and_rest(delimiter).findall(block)
    if records and not records_pattern(delimiter).fullmatch(records[-1]):
        records.pop()
    if len(block) > max_record_bytes:
        records = _until_too_large(records, max_record_bytes)
    end = sum(map(len, records))
    lines = block.count(b"\n", 0, end)
    if _has_blank_line(block):
        records = [record for record in records if record not in _BLANK]
        return Scan(b"".join(records), len(records), end, lines)
    return Scan(block[:end], len(records), end, lines)


def _until_too_large(records: list[bytes], max_record_bytes: int) -> list[bytes]:
    for place, record in enumerate(records):
        if len(split_line_end(record)[0]) > max_record_bytes:
            return records[:place]
    return records


def _has_bare_cr(text: bytes) -> bool:
    return b"\r" in text and _BARE_CR.search(text) is not None


def _has_blank_line(text: bytes) -> bool:
    return text.startswith(_BLANK) or _BLANK_LINE.search(text) is not None


@cache
def _misplaced_quotes(delimiter: bytes) -> re.Pattern[bytes]:
    """Matches between two pieces of which the first does not end, or the second not begin, at the edge of a cell."""
    edge = re.escape(delimiter)
    return re.compile(rb'""(?:(?<![' + edge + rb'\n]"")|(?![' + edge + rb"\n]|\r\n))")


@cache
def _records_and_rest(delimiter: bytes) -> re.Pattern[bytes]:
    # What is no record takes all that follows with it: nothing is skipped, and the search goes on nowhere behind it.
    return re.compile(records_pattern(delimiter).pattern + rb"|(?s:.+)")
