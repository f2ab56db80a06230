"""Reads what came out of a batch from the store, a chunk at a time."""

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from time import monotonic

from api import failed_rows, rendering
from api.ranges import Piece
from api.rendering import Outcomes, RowWriter
from jobs.codec.chunk import Failure, decompress, unpack_failures
from jobs.codec.layout import Layout
from jobs.errors import JobGone
from jobs.record import Job
from jobs.store import ChunkState, Store

HOLD_SECONDS = 240  # how long an ended job outlives the last chunk that was read from it


class BatchOutcomes:
    """The outcomes of one batch, in input order.

    An ended batch has every row that was received; one that has not ended has its longest finished prefix. What is
    read raises JobGone when it expired or was deleted meanwhile.
    """

    def __init__(self, store: Store, job: Job, layout: Layout) -> None:
        self._store = store
        self._job = job
        self._layout = layout
        self._header = layout.header_line()
        self._hold_at = 0.0

    def csv_pieces(self) -> Iterator[Piece]:
        """The CSV file. The length of a chunk that no worker got to is found by writing it."""
        yield Piece(len(self._header), lambda: self._header)
        for chunk in self._chunks:
            length = chunk.csv_bytes if chunk.done else len(self._records(chunk))
            yield Piece(length, partial(self._records, chunk))

    def csv(self) -> Iterator[bytes]:
        """The CSV file, its length unknown."""
        yield self._header
        for chunk in self._chunks:
            yield self._records(chunk)

    def escaped_csv(self) -> Iterator[bytes]:
        """The CSV file without anything that a spreadsheet would run."""
        delimiter = self._layout.delimiter.encode()
        return (rendering.escaped(piece, delimiter) for piece in self.csv())

    def ndjson(self) -> Iterator[bytes]:
        """One JSON object a line and row."""
        writer, first = RowWriter(self._layout), 1
        for chunk in self._chunks:
            rows = writer.rows(self._outcomes(chunk), first)
            yield "".join([row + "\n" for row in rows]).encode()
            first += chunk.rows

    def page(self, offset: int, limit: int) -> Iterator[bytes]:
        """A JSON document with up to `limit` rows, the first `offset` left out; reads only their chunks."""
        yield b'{"rows":['
        separator = ""
        for rows in self._rows(offset, offset + limit):
            yield (separator + ",".join(rows)).encode()
            separator = ","
        total = "null" if self._rows_total is None else self._rows_total
        yield f'],"offset":{offset},"limit":{limit},"rows_total":{total}}}\n'.encode()

    def failed_rows(self) -> Iterator[bytes]:
        """The failed rows as CSV, to be corrected and sent again."""
        surplus = self._job.has_surplus
        yield failed_rows.header(self._layout, surplus)
        for chunk in self._chunks:
            if chunk.failed:
                yield failed_rows.records(self._layout, surplus, self._failures(chunk))

    @cached_property
    def _chunks(self) -> Sequence[ChunkState]:
        wanted = self._job.chunks_received if self._job.ended else self._job.prefix
        chunks = self._store.chunks(self._job)[:wanted]
        if len(chunks) < wanted:
            raise self._gone()
        return chunks

    @property
    def _rows_total(self) -> int | None:
        """How many rows there are; None while more may come."""
        return self._job.rows_received if self._job.ended else self._job.rows_total

    def _rows(self, start: int, stop: int) -> Iterator[list[str]]:
        """The rows from `start` up to `stop`, both counted from 0 over the job, chunk by chunk."""
        writer, first = RowWriter(self._layout), 0
        for chunk in self._chunks:
            if first < stop and first + chunk.rows > start:
                wanted = slice(max(start - first, 0), stop - first)
                yield writer.rows(self._outcomes(chunk), first + 1, wanted)
            first += chunk.rows

    def _records(self, chunk: ChunkState) -> bytes:
        if chunk.done:
            return self._read(self._store.result(self._job.id, chunk.index))
        return self._unreached(chunk).records

    def _outcomes(self, chunk: ChunkState) -> Outcomes:
        if not chunk.done:
            return self._unreached(chunk)
        return Outcomes(
            records=self._records(chunk),
            failures={failure.row: failure for failure in self._failures(chunk)} if chunk.failed else {},
            lines=self._lines(chunk),
        )

    def _unreached(self, chunk: ChunkState) -> Outcomes:
        """The outcomes of a chunk that no worker got to: of a retried one some rows may have theirs all the same."""
        patch = self._store.patch(self._job.id, chunk.index) if self._job.retry_of else None
        if patch:
            return rendering.unreached_again(self._layout, patch, self._lines(chunk))
        return rendering.unreached(self._layout, self._input(chunk))

    def _lines(self, chunk: ChunkState) -> bytes | None:
        """The inputs as JSON rows show them; None when the records hold them."""
        return self._input(chunk) if self._layout.format == "json" and self._layout.keep else None

    def _input(self, chunk: ChunkState) -> bytes:
        return self._read(self._store.input(self._job.id, chunk.index))

    def _failures(self, chunk: ChunkState) -> list[Failure]:
        return unpack_failures(self._there(self._store.failures(self._job.id, chunk.index)))

    def _read(self, blob: bytes | None) -> bytes:
        return decompress(self._there(blob))

    def _there(self, blob: bytes | None) -> bytes:
        now = monotonic()
        if self._job.ended and now >= self._hold_at:  # a slow download must not see its job expire
            self._hold_at = now + HOLD_SECONDS / 4
            self._store.hold(self._job.id, HOLD_SECONDS)
        if blob is None:
            raise self._gone()
        return blob

    def _gone(self) -> JobGone:
        self._store.find(self._job.id, self._job.tenant)  # raises what is known of it
        return JobGone(self._job.id, "job_expired", None)
