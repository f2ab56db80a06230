"""Complete records, joined and cut into chunks of the size that is asked for."""

from collections import deque
from dataclasses import dataclass

from jobs.codec.cells import split_records


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of complete records without blank lines, otherwise byte for byte, and how many they are."""

    data: bytes
    rows: int


class Chunker:
    """Holds complete records until there are enough for a chunk.

    Where a chunk ends depends on the records and the limits alone, not on how the records were handed over.
    """

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter
        self._runs: deque[Chunk] = deque()
        self._rows = 0
        self._bytes = 0

    def add(self, run: Chunk) -> None:
        """Takes in the records that follow."""
        if run.rows:
            self._runs.append(run)
            self._rows += run.rows
            self._bytes += len(run.data)

    def take(self, max_rows: int, max_bytes: int, flush: bool) -> Chunk | None:
        """The next chunk: as many records as both limits allow, and one at least.

        None while neither limit is reached, unless `flush` asks for what is there, and when nothing is.
        """
        enough = self._rows >= max_rows or self._bytes >= max_bytes
        if not self._runs or not (enough or flush):
            return None
        taken: list[bytes] = []
        rows, room = 0, max_bytes
        while self._runs and rows < max_rows and room > 0:
            run = self._next(max_rows - rows, room, at_least_one=not taken)
            if run is None:
                break
            taken.append(run.data)
            rows += run.rows
            room -= len(run.data)
        chunk = Chunk(b"".join(taken), rows)
        self._rows -= rows
        self._bytes -= len(chunk.data)
        return chunk

    def _next(self, max_rows: int, max_bytes: int, at_least_one: bool) -> Chunk | None:
        run = self._runs.popleft()
        if run.rows > 1 and (run.rows > max_rows or len(run.data) > max_bytes):
            if run.data.count(b"\n") - run.data.endswith(b"\n") != run.rows - 1:
                # Some line ends stand inside quotes, so the records must be found one by one.
                records = split_records(run.data, self._delimiter)
                self._runs.extendleft(Chunk(record, 1) for record in reversed(records))
                return self._next(max_rows, max_bytes, at_least_one)
            return self._cut_at_line_end(run, max_rows, max_bytes, at_least_one)
        if len(run.data) > max_bytes and not at_least_one:
            self._runs.appendleft(run)
            return None
        return run

    def _cut_at_line_end(self, run: Chunk, max_rows: int, max_bytes: int, at_least_one: bool) -> Chunk | None:
        """The head of a run in which every line is a record; the rest goes back."""
        end = run.data.rfind(b"\n", 0, max_bytes) + 1
        if end == 0 and at_least_one:
            end = run.data.find(b"\n") + 1
        rows = run.data.count(b"\n", 0, end)
        if rows > max_rows:
            end, rows = _after_line_end(run.data, max_rows), max_rows
        self._runs.appendleft(Chunk(run.data[end:], run.rows - rows))
        return Chunk(run.data[:end], rows) if rows else None


def _after_line_end(data: bytes, number: int) -> int:
    """Where the line after the given number of line ends begins; halving makes it one pass at the speed of count."""
    low, high = 0, len(data)
    while high - low > 1:
        middle = (low + high) // 2
        counted = data.count(b"\n", low, middle)
        if counted >= number:
            high = middle
        else:
            number -= counted
            low = middle
    return high
