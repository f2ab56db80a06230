"""Whether what came out is right; no time counts here."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

RELATIVE_ERROR = 1e-12


class Wrong(Exception):
    """Raised when an output is not what it must be; says where."""


def check_ours(table: Path, output: Path, keep: str, expected: npt.NDArray[np.float64]) -> None:
    """Every record once, in order, its kept cells byte for byte, no error, the prediction as the model itself says."""
    with table.open("rb") as sent, output.open("rb") as came:
        lines, records = _kept(sent, keep), iter(came)
        _equal(0, next(records).rstrip(b"\n"), next(lines) + b",prediction,error")
        for number, (line, record, value) in enumerate(zip(lines, records, expected.tolist(), strict=True), 1):
            cells, prediction, error = record.rsplit(b",", 2)
            _equal(number, cells, line)
            _equal(number, error, b"\n")
            if not math.isclose(float(prediction), value, rel_tol=RELATIVE_ERROR):
                raise Wrong(f"record {number}: {prediction.decode()} instead of {value!r}")


def check_rows(peer: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise Wrong(f"{peer} wrote {found} rows instead of {wanted}")


def _kept(lines: Iterator[bytes], keep: str) -> Iterator[bytes]:
    if keep == "all":
        return (line.rstrip(b"\n") for line in lines)
    return (line.split(b",", 1)[0] for line in lines)


def _equal(number: int, found: bytes, wanted: bytes) -> None:
    if found != wanted:
        raise Wrong(f"record {number}: {found!r} instead of {wanted!r}")
