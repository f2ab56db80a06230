"""A chunk of a retried batch that an earlier job has predicted: what to predict anew, and what it is merged into."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Self

from jobs.codec.cells import split_cells, split_line_end, split_records
from jobs.codec.chunk import Failure, decompress, unpack_failures
from jobs.codec.layout import Layout


@dataclass(frozen=True, slots=True)
class Patch:
    """The outcomes of a chunk as an earlier job left them.

    `kind` says which rows are predicted anew: "failed" those without a prediction, "all" every one (CSV that keeps all
    its columns only). `result` and `failures` are blobs (jobs.codec.chunk); `failures` is empty when no row failed.
    """

    kind: str
    result: bytes
    failures: bytes

    @classmethod
    def read(cls, mark: bytes, result: bytes, failures: bytes) -> Self | None:
        """The patch of which the store holds these three; None for the empty mark of a chunk without one."""
        return cls(mark.split()[0].decode(), result, failures) if mark else None

    def chunk(self, layout: Layout) -> tuple[bytes, int]:
        """The input records to predict, each with a line end, and how many they are."""
        failures = self._old_failures()
        if self.kind == "failed":
            return b"".join([(failure.record + layout.line_end).encode() for failure in failures]), len(failures)
        sent = {failure.row: failure.record.encode() for failure in failures}
        records = self.records(layout)
        return b"".join([_sent(record, sent.get(row), layout) for row, record in enumerate(records)]), len(records)

    def merged(self, layout: Layout, records: bytes, failures: Iterable[Failure]) -> tuple[bytes, list[Failure]]:
        """The result records and the failures of the whole chunk, from those of what `chunk` gave.

        Records that were not predicted anew stay byte for byte, and every record keeps its line end.
        """
        if self.kind != "failed":
            return records, list(failures)
        rows = [failure.row for failure in self._old_failures()]
        merged = self.records(layout)
        for row, record in zip(rows, split_records(records, layout.delimiter.encode()), strict=True):
            merged[row] = split_line_end(record)[0] + split_line_end(merged[row])[1]
        return b"".join(merged), [replace(failure, row=rows[failure.row]) for failure in failures]

    def records(self, layout: Layout) -> list[bytes]:
        """The result records of the earlier job, all rows of the chunk, each with its line end."""
        return split_records(decompress(self.result), layout.delimiter.encode())

    def rows(self, count: int) -> Collection[int]:
        """Which of the chunk's `count` rows are predicted anew, from 0."""
        return [failure.row for failure in self._old_failures()] if self.kind == "failed" else range(count)

    def _old_failures(self) -> list[Failure]:
        return unpack_failures(self.failures) if self.failures else []


def _sent(record: bytes, failed: bytes | None, layout: Layout) -> bytes:
    """The input record that became a result record which keeps all columns; `failed` is the one of a failed row."""
    body, line_end = split_line_end(record)
    return (_without_ours(body, layout) if failed is None else failed) + line_end


def _without_ours(body: bytes, layout: Layout) -> bytes:
    delimiter, ours = layout.delimiter.encode(), len(layout.outputs)
    if b'"' not in body:
        return body.rsplit(delimiter, ours)[0]
    return delimiter.join(split_cells(body, delimiter)[:-ours])
