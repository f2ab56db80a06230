"""The inputs of one JSON document as chunks of lines."""

from collections.abc import Sequence

from jobs.codec.json_text import dumps
from jobs.splitter import Chunk


class InputLines:
    """Chunks of inputs that are all here already, one JSON value a line, its numbers as they were sent."""

    def __init__(self, inputs: Sequence[object]) -> None:
        self._lines = [dumps(value).encode() + b"\n" for value in inputs]
        self._next = 0

    def whole(self, max_bytes: int) -> Chunk | None:
        """All of them as one chunk; None when that would be larger."""
        data = b"".join(self._lines)
        return Chunk(data, len(self._lines)) if len(data) <= max_bytes else None

    def take(self, max_rows: int, max_bytes: int, flush: bool = False) -> Chunk | None:
        """The next chunk within both limits, a single larger input alone; None after the last.

        All is here already, so `flush` changes nothing.
        """
        rows, size = 0, 0
        for line in self._lines[self._next : self._next + max_rows]:
            if rows and size + len(line) > max_bytes:
                break
            rows, size = rows + 1, size + len(line)
        chunk = self._lines[self._next : self._next + rows]
        self._next += rows
        return Chunk(b"".join(chunk), rows) if chunk else None
