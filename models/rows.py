"""One cell and one row: what a client sent becomes what the model gets, or the reason why it cannot."""

import math
import re
from collections.abc import Mapping, Sequence

from models.catalog import Feature, Manifest

Value = float | str | None

MISSING_WORDS = frozenset(["", "na", "n/a", "nan", "null", "none"])
CATEGORIES_SHOWN = 10  # a message that lists more is not read
# What nearly all numbers look like, and float() reads as a finite one: the other checks take five times as long.
_DECIMAL = re.compile(r"-?[0-9]{1,300}(?:\.[0-9]+)?")


class RowError(Exception):
    """Raised when a row cannot be predicted; its message never repeats what the row holds."""

    def __init__(self, code: str, column: str | None, message: str) -> None:
        self.code = code
        self.column = column
        self.message = message
        super().__init__(message)


def read_cell(cell: object, feature: Feature, accepts_infinite: bool) -> Value:
    """The value of one cell, CSV text or JSON value, for one feature; None is a missing value. Raises RowError.

    A JSON number is expected as its text, as it was sent; for a text feature that text is the category.
    """
    if feature.type == "text":
        return _read_text(cell, feature)
    return _read_number(cell, feature, accepts_infinite)


def read_row(cells: Sequence[object], manifest: Manifest) -> list[Value]:
    """The values of one row whose cells stand in the model's feature order; raises the first RowError."""
    if len(cells) != len(manifest.features):
        raise _wrong_count(len(cells), manifest)
    infinite = manifest.accepts_infinite
    return [read_cell(cell, feature, infinite) for cell, feature in zip(cells, manifest.features, strict=True)]


def arrange(value: object, manifest: Manifest) -> list[object]:
    """The cells of one JSON input in the model's feature order, not yet read.

    An object is taken by feature name (what else it holds is left out), an array by position, anything else as the
    cell of a model with one feature. Raises RowError for a missing key and for another number of cells.
    """
    if isinstance(value, Mapping):
        return [_by_name(value, name) for name in manifest.feature_names]
    cells = list(value) if isinstance(value, list | tuple) else [value]
    if len(cells) != len(manifest.features):
        raise _wrong_count(len(cells), manifest)
    return cells


def _read_number(cell: object, feature: Feature, accepts_infinite: bool) -> Value:
    if cell is None:
        return _missing(feature)
    if not isinstance(cell, str):
        raise _not_a_number(feature)
    if _DECIMAL.fullmatch(cell):
        return float(cell)
    text = cell.strip(" \t")
    if text.lower() in MISSING_WORDS:
        return _missing(feature)
    if not _is_plain(text):
        raise _not_a_number(feature)
    try:
        number = float(text)
    except ValueError:
        raise _not_a_number(feature, text) from None
    if math.isfinite(number) or (accepts_infinite and math.isinf(number)):
        return number
    raise RowError("not_finite", feature.name, f"{feature.name} is not a finite number")


def _is_plain(text: str) -> bool:
    """Whether float() may read the text: it would also take 1_000, other scripts' digits and trim any white space."""
    return text.isascii() and "_" not in text and text[0] > " " and text[-1] > " "


def _read_text(cell: object, feature: Feature) -> Value:
    if cell is None or cell == "":
        return _missing(feature)
    if not isinstance(cell, str):
        raise RowError("unknown_category", feature.name, f"{feature.name} is not text")
    if not feature.accepts_unknown and feature.categories is not None and cell not in feature.known:
        raise RowError("unknown_category", feature.name, _unknown(feature, feature.categories))
    return str(cell)


def _unknown(feature: Feature, categories: Sequence[str]) -> str:
    message = f"{feature.name} has a category that the model does not know"
    if len(categories) > CATEGORIES_SHOWN:
        return f"{message}; its manifest lists the ones it knows"
    return f"{message}; it knows: {', '.join(categories)}"


def _missing(feature: Feature) -> Value:
    if feature.accepts_missing:
        return None
    raise RowError("missing_value", feature.name, f"{feature.name} is missing and the model needs it")


def _by_name(value: Mapping[object, object], name: str) -> object:
    if name not in value:
        raise RowError("missing_value", name, f"{name} is missing from the object")
    return value[name]


def _not_a_number(feature: Feature, text: str = "") -> RowError:
    advice = "; write decimals with a point" if _has_decimal_comma(text) else ""
    return RowError("invalid_number", feature.name, f"{feature.name} is not a number{advice}")


def _has_decimal_comma(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return "," in text


def _wrong_count(count: int, manifest: Manifest) -> RowError:
    expected = len(manifest.features)
    return RowError("wrong_cell_count", None, f"{count} cells where the model takes {expected}")
