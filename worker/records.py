"""The records of a CSV chunk as they were sent: what of them comes out again, and that none is missed."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute

from jobs.codec import cells, inputs
from jobs.codec.layout import Layout


class RecordCountDiffers(Exception):
    """Raised when a chunk holds other records than the splitter counted: a defect, never to be papered over."""


def check_count(found: int, count: int) -> None:
    """Raises RecordCountDiffers when other records were found than were counted."""
    if found != count:
        raise RecordCountDiffers(f"{count} records were counted and {found} were read")


class Records:
    """The records of one chunk, cut from it again only where something of them is asked for."""

    def __init__(self, chunk: bytes, count: int, layout: Layout, uneven: Mapping[int, int]) -> None:
        """`uneven` has the places of records with too few or too many cells, and how many they have."""
        self._chunk = chunk
        self._count = count
        self._layout = layout
        self._uneven = uneven
        self._delimiter = layout.delimiter.encode()
        self._line_end = layout.line_end.encode()
        self._width = len(layout.columns)
        self._quoted = b'"' in chunk

    @cached_property
    def _split(self) -> list[bytes]:
        """The records with their line ends."""
        return cells.split_records(self._chunk, self._delimiter)

    @cached_property
    def bodies(self) -> list[bytes]:
        """The records without their line ends."""
        if not self._quoted and isinstance(self.line_ends, bytes):
            bodies = self._chunk.split(self.line_ends)
            bodies = bodies if bodies[-1] else bodies[:-1]
        else:
            bodies = [cells.split_line_end(record)[0] for record in self._split]
        check_count(len(bodies), self._count)
        return bodies

    @cached_property
    def line_ends(self) -> list[bytes] | bytes:
        """Each record's line end, or the one that all have."""
        if not self._quoted:
            line_feeds, returns = self._chunk.count(b"\n"), self._chunk.count(b"\r")
            if self._line_end == (b"\r\n" if returns else b"\n") and returns in (0, line_feeds):
                return self._line_end
        ends = [cells.split_line_end(record)[1] or self._line_end for record in self._split]
        return ends[0] if len(set(ends)) == 1 else ends

    def kept(self, table: pa.Table, even: npt.NDArray[np.intp] | None) -> Sequence[bytes]:
        """Each record's kept cells, joined; `table` has those of the parsed ones, `even` their places in the chunk."""
        keep = self._layout.keep
        if not keep:
            return []
        if len(keep) == self._width:
            kept = self.bodies
            return self._with_uneven(kept) if self._uneven else kept
        if self._quoted:
            split = (cells.split_cells(body, self._delimiter) for body in self.bodies)
            uneven = self._uneven
            return self._with_uneven(
                [b"" if place in uneven else self._chosen(found) for place, found in enumerate(split)]
            )
        parsed: list[bytes] = self.joined(table).to_pylist()
        if even is None:
            return parsed
        kept = [b""] * self._count
        for place, text in zip(even.tolist(), parsed, strict=True):
            kept[place] = text
        return self._with_uneven(kept)

    def joined(self, table: pa.Table) -> pa.Array:
        """The kept cells of each parsed row, which are as they were sent where nothing is quoted."""
        columns = [table.column(str(index)).combine_chunks().cast(pa.binary()) for index in self._layout.keep]
        return columns[0] if len(columns) == 1 else compute.binary_join_element_wise(*columns, self._delimiter)

    def _chosen(self, found: Sequence[bytes]) -> bytes:
        return self._delimiter.join([found[index] for index in self._layout.keep])

    def _with_uneven(self, kept: Sequence[bytes]) -> list[bytes]:
        """The kept cells of records with too few or too many cells: padded, or cut."""
        filled = list(kept)
        for place in self._uneven:
            fitted, _ = inputs.fitted(self._layout, self.bodies[place])
            filled[place] = self._chosen(fitted)
        return filled
