"""CSV records and cells as bytes, by RFC 4180 and the CSV rules of the HTTP contract.

A quote opens a cell only as its first byte; elsewhere in an unquoted cell it is an ordinary character. What reads here
expects what the splitter accepted: every quoted cell is closed, and no carriage return stands alone outside quotes.
"""

import re
from functools import cache

# From its opening to its closing quote. Atomic, so that no input makes the search go back.
QUOTED_CELL = rb'"[^"]*+(?:""[^"]*+)*+"'

# What a spreadsheet takes for a formula, or drops before it looks for one.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_PLAIN_NUMBER = re.compile(r"[ \t]*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t]*")


def split_records(chunk: bytes, delimiter: bytes) -> list[bytes]:
    """The records of a chunk, each with its line end; the last may lack one."""
    if b'"' not in chunk:
        return chunk.splitlines(keepends=True)
    if chunk.endswith(b"\n"):
        return records_pattern(delimiter).findall(chunk)
    # The pattern asks for a line end, so that it never takes a piece of a record for the whole.
    records = records_pattern(delimiter).findall(chunk + b"\n")
    return [*records[:-1], records[-1][:-1]]


def split_lines(chunk: bytes) -> list[bytes]:
    """The lines of a chunk of JSON lines, each with its line feed; the last may lack one.

    A carriage return ends no line here: to JSON it is a space.
    """
    lines = [line + b"\n" for line in chunk.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def split_line_end(record: bytes) -> tuple[bytes, bytes]:
    """A record's body, and its line end or nothing."""
    if record.endswith(b"\r\n"):
        return record[:-2], b"\r\n"
    if record.endswith(b"\n"):
        return record[:-1], b"\n"
    return record, b""


def split_cells(body: bytes, delimiter: bytes) -> list[bytes]:
    """The cells of a record without its line end, byte for byte, quotes and all."""
    if b'"' not in body:
        return body.split(delimiter)
    return _cells_pattern(delimiter).findall(delimiter + body)


def is_record(body: bytes, delimiter: bytes) -> bool:
    """Whether this, without a line end, is one record by the rules: what nobody has split yet may be anything."""
    return records_pattern(delimiter).fullmatch(body + b"\n") is not None


def unquote(cell: bytes) -> str:
    """The text of a cell."""
    if cell.startswith(b'"'):
        cell = cell[1:-1].replace(b'""', b'"')
    return cell.decode()


def quote(text: str, delimiter: bytes) -> bytes:
    """A cell that holds a text, quoted where RFC 4180 asks for it."""
    cell = text.encode()
    if b'"' in cell:
        return b'"' + cell.replace(b'"', b'""') + b'"'
    if delimiter in cell or b"\n" in cell or b"\r" in cell:
        return b'"' + cell + b'"'
    return cell


def escape_formula(text: str) -> str:
    """A cell's text with a leading ' where a spreadsheet would run it.

    A number is left alone, if it is written in digits: -inf is a formula to a spreadsheet.
    """
    if text.startswith(_FORMULA_STARTS) and not _PLAIN_NUMBER.fullmatch(text):
        return "'" + text
    return text


@cache
def records_pattern(delimiter: bytes) -> re.Pattern[bytes]:
    """Matches one whole record with its line end, blank lines included, where and only where the rules allow one."""
    edge = re.escape(delimiter)
    cell = rb"(?:" + QUOTED_CELL + rb'|(?!")[^' + edge + rb"\r\n]*+)"
    return re.compile(cell + rb"(?:" + edge + cell + rb")*+\r?\n")


@cache
def _cells_pattern(delimiter: bytes) -> re.Pattern[bytes]:
    edge = re.escape(delimiter)
    return re.compile(edge + rb"(" + QUOTED_CELL + rb"|[^" + edge + rb"]*+)", re.DOTALL)
