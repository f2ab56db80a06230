"""What was sent for one row of a batch: as the cells of its columns, and as a JSON value."""

from collections.abc import Mapping, Sequence

from jobs.codec import cells, json_text
from jobs.codec.layout import Layout


def fitted(layout: Layout, record: bytes) -> tuple[list[bytes], list[bytes]]:
    """The cells of one input record, without its line end, one a column, and those beyond the columns.

    What is missing is an empty cell. The cells of a CSV record are as they were sent, byte for byte.
    """
    if layout.format == "csv":
        sent, columns = cells.split_cells(record, layout.delimiter.encode()), len(layout.columns)
    else:
        sent, columns = _json_cells(layout, json_text.loads(record))
    missing = [b""] * (len(layout.columns) - min(len(sent), columns))
    return [*sent[:columns], *missing], sent[columns:]


def shown(layout: Layout, line: bytes) -> object:
    """One JSON input as results show it: an object by name with the keys that are kept, its values as sent.

    An array that cannot be named, because its length is not the model's, and a bare value of a model with several
    features are shown as they are, unless only some keys are kept.
    """
    value = _named(layout, json_text.loads(line))
    if len(layout.keep) == len(layout.columns):
        return value
    kept = {layout.columns[index] for index in layout.keep}
    return {name: item for name, item in value.items() if name in kept} if isinstance(value, Mapping) else {}


def cell(value: object, delimiter: str) -> bytes:
    """A JSON value as a CSV cell: texts and numbers as they are, null empty, what is nested as JSON."""
    if value is None:
        return b""
    text = value if isinstance(value, str) else json_text.dumps(value)
    return cells.quote(text, delimiter.encode())


def _json_cells(layout: Layout, value: object) -> tuple[list[bytes], int]:
    """The cells of a JSON input, and how many of them have a column."""
    if isinstance(value, list):
        return _quoted(layout, value), len(layout.features)
    named = _named(layout, value)
    if isinstance(named, Mapping):
        return _quoted(layout, [named.get(name) for name in layout.columns]), len(layout.columns)
    return [], 0


def _named(layout: Layout, value: object) -> object:
    if isinstance(value, list):
        return dict(zip(layout.features, value, strict=True)) if len(value) == len(layout.features) else value
    if isinstance(value, Mapping) or len(layout.features) > 1:
        return value
    return {layout.features[0]: value}


def _quoted(layout: Layout, values: Sequence[object]) -> list[bytes]:
    return [cell(value, layout.delimiter) for value in values]
