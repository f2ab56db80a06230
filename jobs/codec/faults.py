"""What is wrong with a CSV record, and on which line."""

import re
from enum import Enum, auto
from functools import cache

from jobs.codec.cells import QUOTED_CELL
from jobs.errors import JobsError

_OPEN_CELL = re.compile(QUOTED_CELL.removesuffix(b'"'))
_UNQUOTED_CELL = re.compile(rb"[^\r\n]*+")  # no delimiter follows the cell it is used for


class SplitError(JobsError):
    """Raised when a body cannot be cut into records, so that nothing of it can be accepted.

    `code` is one of the contract's (section 6); `line` counts the body's lines from 1, blank ones and the header
    included; `offset` is where in the body, byte order mark included, it stops being UTF-8.
    """

    def __init__(self, code: str, detail: str, line: int | None = None, offset: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.line = line
        self.offset = offset


class _State(Enum):
    ENDED = auto()  # at a line end outside quotes
    OUTSIDE = auto()  # at the text's end, not in a quoted cell, or at what may be its end
    INSIDE = auto()  # at the text's end, in a quoted cell
    CR_LAST = auto()  # at a carriage return that is the text's last byte
    BARE_CR = auto()
    STRAY = auto()  # at text behind a closing quote


def find_fault(record: bytes, delimiter: bytes, max_record_bytes: int, line: int, final: bool) -> SplitError | None:
    """The first fault of a record, which may lack its end yet; None as long as it can still become a good one.

    `line` is where the record begins; `final` says that nothing follows. First is what stands first: how a record is
    divided when it arrives changes nothing. A record's size is without its line end.
    """
    state, at = _walk(record, delimiter)
    looked_at = len(record) if state is _State.INSIDE else at + (state is _State.STRAY)
    if looked_at > max_record_bytes:
        return _too_large(record[:max_record_bytes], delimiter, line)
    line += record.count(b"\n", 0, at)
    if state is _State.STRAY:
        return _stray_quote(line)
    if state is _State.BARE_CR or (state is _State.CR_LAST and final):
        return _bare_cr(line)
    if state is _State.INSIDE and final:
        return _unclosed_quote(line, "before the end of the file")
    return None


def _walk(record: bytes, delimiter: bytes) -> tuple[_State, int]:
    """The first place where the record ends, breaks a rule or is cut off; for INSIDE, where the open cell begins."""
    start = _match_end(_leading_cells(delimiter), record, 0)
    if record.startswith(b'"', start):
        end = _match_end(_OPEN_CELL, record, start)
        if end == len(record):
            return _State.INSIDE, start
        end += 1
    else:
        end = _match_end(_UNQUOTED_CELL, record, start)
    return _at_cell_end(record[end : end + 2]), end


def _at_cell_end(following: bytes) -> _State:
    if not following:
        return _State.OUTSIDE
    if following == b"\r":
        return _State.CR_LAST
    if following == b"\r\n" or following.startswith(b"\n"):
        return _State.ENDED
    return _State.BARE_CR if following.startswith(b"\r") else _State.STRAY


def _too_large(head: bytes, delimiter: bytes, line: int) -> SplitError:
    state, at = _walk(head, delimiter)
    if state is _State.INSIDE:
        return _unclosed_quote(line + head.count(b"\n", 0, at), f"within the {len(head)} bytes a record may have")
    detail = f"the record that begins on line {line} has more than the {len(head)} bytes a record may have"
    return SplitError("record_too_large", detail, line)


def _unclosed_quote(line: int, where: str) -> SplitError:
    detail = f"the quote that opens a cell on line {line} is not closed {where}; close it, or double it if it is text"
    return SplitError("unclosed_quote", detail, line)


def _stray_quote(line: int) -> SplitError:
    detail = f"text follows a closing quote on line {line}; double the quotes that belong to the text"
    if line == 1:
        detail += ", or name the delimiter with ?delimiter= if it is another"
    return SplitError("stray_quote", detail, line)


def _bare_cr(line: int) -> SplitError:
    detail = f"a carriage return without a line feed on line {line}; end lines with LF or CRLF, or quote the cell"
    return SplitError("bare_cr", detail, line)


@cache
def _leading_cells(delimiter: bytes) -> re.Pattern[bytes]:
    """Matches all whole cells at a record's start that a delimiter follows."""
    edge = re.escape(delimiter)
    return re.compile(rb"(?:(?:" + QUOTED_CELL + rb'|(?!")[^' + edge + rb"\r\n]*+)" + edge + rb")*+")


def _match_end(pattern: re.Pattern[bytes], record: bytes, start: int) -> int:
    match = pattern.match(record, start)
    return match.end() if match else start
