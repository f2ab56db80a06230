"""How a chunk is kept in the store: its records compressed, and beside its result the rows that failed."""

import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass

import zstandard

from jobs.errors import JobsError

# On rows of numbers level 1 takes about half the time of the default, 3, and gives nearly its size.
_LEVEL = 1
# How a compressed blob begins; no text in UTF-8 does, so a chunk that is kept as it is cannot be taken for one.
_MAGIC = b"\x28\xb5\x2f\xfd"


class BrokenChunk(JobsError):
    """Raised when what the store holds of a chunk is not what was put there."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A row of a chunk that has no prediction.

    `row` counts from 0 within the chunk; `column` is None when no single one is to blame; `record` is the whole input
    record as sent, without its line end.
    """

    row: int
    code: str
    column: str | None
    message: str
    record: str


def compress(data: bytes) -> bytes:
    """The bytes as one zstd frame that says how long they are."""
    return zstandard.compress(data, _LEVEL)


def decompress(blob: bytes) -> bytes:
    """What `compress` was given, or the chunk itself if it was kept as it is.

    Raises BrokenChunk when a compressed blob is not whole.
    """
    try:
        return zstandard.decompress(blob) if blob.startswith(_MAGIC) else blob
    except zstandard.ZstdError as error:
        raise BrokenChunk("what the store has of a chunk cannot be unpacked") from error


def pack_failures(failures: Iterable[Failure]) -> bytes:
    """The failures as one blob, for `unpack_failures`."""
    return compress(json.dumps([astuple(failure) for failure in failures], ensure_ascii=False).encode())


def unpack_failures(blob: bytes) -> list[Failure]:
    """The failures that `pack_failures` wrote."""
    return [Failure(*values) for values in json.loads(decompress(blob))]
