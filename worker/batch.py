"""A batch and its chunks, as the predictor is asked for them and as its answers are handed in."""

from dataclasses import dataclass, replace
from functools import cached_property

from jobs.codec.chunk import compress, decompress, pack_failures, unpack_failures
from jobs.codec.layout import Layout
from jobs.leases import ChunkResult, LeasedChunk
from jobs.record import ModelVersion
from worker.frames import Frame, Frames, pack


@dataclass(frozen=True)
class Batch:
    """The job that a slice is spent on."""

    job_id: str
    model: ModelVersion
    layout: Layout

    @cached_property
    def layout_json(self) -> str:
        """The layout as frames carry it."""
        return self.layout.to_json()


def named(model: ModelVersion) -> list[str]:
    """A model version as frames carry it."""
    return [model.name, model.version, model.sha256]


def chunk_frame(chunk: LeasedChunk, batch: Batch, span: tuple[int, int] | None = None) -> Frame:
    """Asks for a chunk, or for the rows of a span alone."""
    head = {"do": "chunk", "model": named(batch.model), "layout": batch.layout_json, "rows": chunk.rows}
    if span:
        head["span"] = list(span)
    return Frame(head, (chunk.blob,))


def chunk_result(answer: Frame) -> ChunkResult:
    """What the predictor made of a chunk or span."""
    head = answer.head
    return ChunkResult(
        ok=head["ok"],
        failed=head["failed"],
        csv_bytes=head["csv_bytes"],
        has_surplus=head["has_surplus"],
        result=answer.bodies[0],
        failures=answer.bodies[1],
        seconds=head.get("seconds", 0.0),
    )


def pack_part(result: ChunkResult) -> bytes:
    """A part's result as the store keeps it until the chunk is complete."""
    counts = ("ok", "failed", "csv_bytes", "has_surplus")
    head = {name: getattr(result, name) for name in counts}
    return b"".join(pack(Frame(head, (result.result, result.failures))))


def unpack_part(packed: bytes) -> ChunkResult:
    """The result that `pack_part` wrote."""
    (frame,) = Frames().feed(packed)
    return chunk_result(frame)


def joined(parts: list[tuple[int, ChunkResult]]) -> ChunkResult:
    """The result of a chunk from those of its parts, each with its first row, in input order."""
    records = b"".join([decompress(result.result) for _, result in parts])
    failures = [
        replace(failure, row=start + failure.row)
        for start, result in parts
        if result.failures
        for failure in unpack_failures(result.failures)
    ]
    return ChunkResult(
        ok=sum(result.ok for _, result in parts),
        failed=len(failures),
        csv_bytes=len(records),
        has_surplus=any(result.has_surplus for _, result in parts),
        result=compress(records),
        failures=pack_failures(failures) if failures else b"",
    )


def patched(chunk: LeasedChunk, result: ChunkResult, layout: Layout) -> ChunkResult:
    """The result of a whole chunk of which only some rows were predicted anew (jobs.codec.patch)."""
    if chunk.patch is None:
        return result
    new = unpack_failures(result.failures) if result.failures else []
    records, failures = chunk.patch.merged(layout, decompress(result.result), new)
    return ChunkResult(
        ok=chunk.rows_in_all - len(failures),
        failed=len(failures),
        csv_bytes=len(records),
        has_surplus=result.has_surplus,
        result=compress(records),
        failures=pack_failures(failures) if failures else b"",
    )
