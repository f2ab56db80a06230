"""The records of a chunk, and those that come out when no model was asked."""

from collections.abc import Sequence

from jobs.codec import cells, inputs
from jobs.codec.layout import Layout


def input_records(layout: Layout, chunk: bytes) -> list[bytes]:
    """The records of an input chunk, each with its line end."""
    if layout.format == "csv":
        return cells.split_records(chunk, layout.delimiter.encode())
    return cells.split_lines(chunk)


def refused_records(layout: Layout, records: Sequence[bytes], code: str, message: str) -> bytes:
    """One CSV record for each input record: its kept cells, no prediction, and the same error for all."""
    delimiter = layout.delimiter.encode()
    ours = [b""] * (len(layout.outputs) - 1) + [cells.quote(f"{code}: {message}", delimiter)]
    return b"".join([_refused_record(layout, record, ours) for record in records])


def has_surplus(layout: Layout, record: bytes) -> bool:
    """Whether an input record has more cells than there are columns."""
    return bool(inputs.fitted(layout, cells.split_line_end(record)[0])[1])


def _refused_record(layout: Layout, record: bytes, ours: Sequence[bytes]) -> bytes:
    body, line_end = cells.split_line_end(record)
    found, _ = inputs.fitted(layout, body)
    kept = [found[index] for index in layout.keep]
    if layout.format != "csv" or not line_end:
        line_end = layout.line_end.encode()
    return layout.delimiter.encode().join([*kept, *ours]) + line_end
