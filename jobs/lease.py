"""The right to work on something for a time."""

from dataclasses import dataclass

SINGLE = "s"  # stands in for the chunk's index where a single prediction is leased


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one chunk, or on one single prediction, until another takes it."""

    job_id: str
    index: str
    token: str
