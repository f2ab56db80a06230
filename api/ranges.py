"""Byte ranges (RFC 9110, section 14): which bytes were asked for, and how to serve them without reading the rest."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

# Nineteen digits hold every length that can be; a longer number is ignored like any other range that is malformed.
_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many bytes it covers."""
        return self.stop - self.start


class UnsatisfiableRange(Exception):
    """Raised when no byte of the range is there. `length` is how many bytes there are."""

    def __init__(self, length: int) -> None:
        super().__init__(f"the range lies outside of the {length} bytes that are there")
        self.length = length


def wanted(header: str | None, length: int) -> Span | None:
    """What a `Range` header asks for of `length` bytes.

    None means all of them: there is no header, it is malformed, has another unit than bytes or names several
    ranges; a server may ignore such a header (RFC 9110, section 14.2). Raises UnsatisfiableRange.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match.group(1) == match.group(2) == "":
        return None
    first, last = match.groups()
    if first == "":  # the last so many bytes
        span = Span(max(length - int(last), 0), length)
    elif last and int(last) < int(first):
        return None
    else:
        span = Span(int(first), min(int(last) + 1, length) if last else length)
    if span.length <= 0:
        raise UnsatisfiableRange(length)
    return span


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes whose length is known before it is read."""

    length: int
    read: Callable[[], bytes]


def within(pieces: Iterable[Piece], span: Span) -> Iterator[bytes]:
    """The bytes of `span` in the pieces joined; a piece that lies outside is never read, and one is held at a time."""
    start = 0
    for piece in pieces:
        stop = start + piece.length
        if start < span.stop and stop > span.start:
            yield piece.read()[max(span.start - start, 0) : span.stop - start]
        start = stop
