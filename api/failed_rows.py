"""The rows of a job that failed, as a CSV file that can be corrected and sent again."""

from collections.abc import Iterable

from jobs.codec import cells, inputs
from jobs.codec.chunk import Failure
from jobs.codec.layout import Layout, free_names


def header(layout: Layout, has_surplus: bool) -> bytes:
    """The header line: every input column as it was sent, then ours."""
    delimiter = layout.delimiter.encode()
    names = ["surplus", "error"] if has_surplus else ["error"]
    ours = [cells.quote(name, delimiter) for name in free_names(names, layout.columns)]
    return _line(layout, [*(cell.encode() for cell in layout.header), *ours])


def records(layout: Layout, has_surplus: bool, failures: Iterable[Failure]) -> bytes:
    """One record for each failed row.

    Its cells as they were sent, what was missing as empty cells; what was too much stands in `surplus`, as it stood
    in the record.
    """
    return b"".join([_record(layout, has_surplus, failure) for failure in failures])


def _record(layout: Layout, has_surplus: bool, failure: Failure) -> bytes:
    delimiter = layout.delimiter.encode()
    found, beyond = inputs.fitted(layout, failure.record.encode())
    surplus = [cells.quote(delimiter.join(beyond).decode(), delimiter)] if has_surplus else []
    error = cells.quote(f"{failure.code}: {failure.message}", delimiter)
    return _line(layout, [*found, *surplus, error])


def _line(layout: Layout, found: Iterable[bytes]) -> bytes:
    return layout.delimiter.encode().join(found) + layout.line_end.encode()
