"""A feature's cells, as pyarrow has parsed them, turned into the values that the model takes."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pyarrow as pa

from models.catalog import Feature
from models.predictor import Column
from models.rows import MISSING_WORDS, RowError, Value, read_cell

# pyarrow compares bytes, the contract takes the words in any case.
MISSING = sorted(
    {"".join(letters) for word in MISSING_WORDS for letters in product(*zip(word, word.upper(), strict=True))}
)


def read_column(
    parsed: pa.ChunkedArray, feature: Feature, accepts_infinite: bool, as_text: Callable[[], pa.ChunkedArray]
) -> tuple[Column, dict[int, RowError]]:
    """A feature's values, and the rows in which its cell is wrong; `as_text` gives the cells that became numbers."""
    if feature.type == "text":
        return _each_distinct(parsed, feature, accepts_infinite)
    numbers = _numbers(parsed, feature, accepts_infinite)
    if numbers is not None:
        return numbers, {}
    texts = parsed if pa.types.is_string(parsed.type) else as_text()
    return _each_distinct(texts, feature, accepts_infinite)


def _numbers(parsed: pa.ChunkedArray, feature: Feature, accepts_infinite: bool) -> Column | None:
    """The column as numbers; None when some cell is not plainly one and has to be looked at."""
    if pa.types.is_string(parsed.type):
        try:
            parsed = parsed.cast(pa.float64())
        except pa.ArrowInvalid:
            return None
    if parsed.null_count and not feature.accepts_missing:
        return None
    numbers: Column = parsed.to_numpy()  # missing values become NaN
    finite = np.isfinite(numbers)
    if accepts_infinite:
        finite |= np.isinf(numbers)
    return numbers if int(np.count_nonzero(finite)) + parsed.null_count == len(numbers) else None


def _each_distinct(
    parsed: pa.ChunkedArray, feature: Feature, accepts_infinite: bool
) -> tuple[Column, dict[int, RowError]]:
    """The column cell by cell, each distinct one read once."""
    if len(parsed) == 0:
        return np.empty(0, dtype=object if feature.type == "text" else np.float64), {}
    encoded = parsed.combine_chunks().dictionary_encode()
    indices = encoded.indices.to_numpy()
    values: list[Value] = []
    errors: dict[int, RowError] = {}
    for index, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            values.append(read_cell(text, feature, accepts_infinite))
        except RowError as error:
            values.append(None)
            errors[index] = error
    column = np.empty(len(values), dtype=object)
    column[:] = values
    if feature.type == "number":
        column = column.astype(np.float64)  # None becomes NaN
    wrong = np.flatnonzero(np.isin(indices, list(errors))) if errors else ()
    return column[indices], {int(row): errors[int(indices[row])] for row in wrong}
