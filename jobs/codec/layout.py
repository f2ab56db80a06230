"""Where the columns of a batch lie, and what its output looks like."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from jobs.codec.cells import is_record, quote, split_cells, unquote
from jobs.errors import JobsError

Class = str | int | float | bool

DELIMITERS = (",", ";", "\t", "|")
_DELIMITER_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}


class LayoutError(JobsError):
    """Raised when a batch cannot be laid out from its columns.

    `code` is `missing_columns`, `unknown_column`, `duplicate_column` or `empty_column_name`; `columns` are the ones
    it is about; `likely_delimiter` is the one that would give all the model's columns, if another does.
    """

    def __init__(self, code: str, detail: str, columns: Sequence[str], likely_delimiter: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.columns = tuple(columns)
        self.likely_delimiter = likely_delimiter


@dataclass(frozen=True)
class Layout:
    """How a batch's input lies and how its output is laid out; fixed when the header, or the first object, is read.

    `format` is "csv" or "json" (one JSON value a line); `header` holds the names of `columns` as they were sent,
    quotes and all; `features` is the model's order; `keep` are the indexes of the columns that come out again;
    `outputs` are ours, in their order: prediction, the probabilities, error.
    """

    format: str
    delimiter: str
    line_end: str
    columns: tuple[str, ...]
    header: tuple[str, ...]
    features: tuple[str, ...]
    keep: tuple[int, ...]
    outputs: tuple[str, ...]
    classes: tuple[Class, ...] | None
    has_probabilities: bool

    def to_json(self) -> str:
        """The layout as JSON text, for `from_json`."""
        return json.dumps({field.name: getattr(self, field.name) for field in fields(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The layout that `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        for name, value in values.items():
            values[name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    @property
    def output_columns(self) -> tuple[str, ...]:
        """The names of what comes out: the kept columns, then ours."""
        return (*(self.columns[index] for index in self.keep), *self.outputs)

    def header_line(self) -> bytes:
        """The first line of the results as CSV; the kept names come byte for byte as they were sent."""
        delimiter = self.delimiter.encode()
        cells = [self.header[index].encode() for index in self.keep]
        cells += [quote(name, delimiter) for name in self.outputs]
        return delimiter.join(cells) + self.line_end.encode()


def plan(
    *,
    format: Literal["csv", "json"],
    names: Sequence[str],
    features: Sequence[str],
    classes: Sequence[Class] | None,
    has_probabilities: bool,
    keep: Literal["all", "none"] | Sequence[str] = "all",
    delimiter: str = ",",
    line_end: str = "\n",
    header: Sequence[str] | None = None,
) -> Layout:
    """The layout of a batch whose columns are `names`, for a model that wants `features`.

    `header` are the cells that hold the names, as they were sent; without it they are written as RFC 4180 asks.
    Raises LayoutError when a name is empty or stands twice, a feature has no column, or `keep` names an unknown one.
    """
    check_names(names)
    cells = tuple(header) if header is not None else tuple(quote(name, delimiter.encode()).decode() for name in names)
    _check_features(names, features, cells, delimiter)
    kept = _kept(names, keep)
    wanted = ["prediction"]
    if has_probabilities:
        wanted += [f"probability_{class_text(value)}" for value in classes or ()]
    return Layout(
        format=format,
        delimiter=delimiter,
        line_end=line_end,
        columns=tuple(names),
        header=cells,
        features=tuple(features),
        keep=kept,
        outputs=free_names([*wanted, "error"], [names[index] for index in kept]),
        classes=None if classes is None else tuple(classes),
        has_probabilities=has_probabilities,
    )


def class_text(value: Class) -> str:
    """A class as a CSV cell and `probability_<class>` show it: text as it is, numbers and booleans as in JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def free_names(wanted: Sequence[str], taken: Iterable[str]) -> tuple[str, ...]:
    """The wanted names, each with the first free suffix _2, _3, … where it is taken, so that no two are the same."""
    used = set(taken)
    names: list[str] = []
    for name in wanted:
        free, number = name, 2
        # A name that is wanted further on is left to the one that wants it.
        while free in used or (free != name and free in wanted):
            free, number = f"{name}_{number}", number + 1
        used.add(free)
        names.append(free)
    return tuple(names)


def check_names(names: Sequence[str]) -> None:
    """Raises LayoutError when a column has no name or shares one with another."""
    empty = [str(place) for place, name in enumerate(names, start=1) if not name]
    if empty:
        detail = f"column {', '.join(empty[:10])} has no name; name it, or leave it out (pandas: index=False)"
        raise LayoutError("empty_column_name", detail, [""])
    if len(set(names)) < len(names):
        twice = _twice(names)
        detail = f"these column names stand more than once: {_listed(twice)}; rename or remove all but one of each"
        raise LayoutError("duplicate_column", detail, twice)


def _check_features(names: Sequence[str], features: Sequence[str], header: Sequence[str], delimiter: str) -> None:
    there = set(names)
    missing = [feature for feature in features if feature not in there]
    if not missing:
        return
    likely = _likely_delimiter(features, header, delimiter)
    detail = f"the model needs columns that are not there: {_listed(missing)}"
    if likely is not None:
        word = _DELIMITER_NAMES[likely]
        detail += f"; they are there if the delimiter is the {word}: send ?delimiter={word}"
    raise LayoutError("missing_columns", detail, missing, likely)


def _likely_delimiter(features: Collection[str], header: Sequence[str], delimiter: str) -> str | None:
    line = delimiter.join(header).encode()
    for other in DELIMITERS:
        edge = other.encode()
        # A cell that the header's own delimiter has left may be anything for another one, as a quote that stays open.
        names = {unquote(cell) for cell in split_cells(line, edge) if is_record(cell, edge)}
        if other != delimiter and names.issuperset(features):
            return other
    return None


def _kept(names: Sequence[str], keep: Literal["all", "none"] | Sequence[str]) -> tuple[int, ...]:
    if keep == "all":
        return tuple(range(len(names)))
    wanted = set() if keep == "none" else set(keep)
    unknown = sorted(wanted.difference(names))
    if unknown:
        detail = f"keep names columns that are not in the input: {_listed(unknown)}"
        raise LayoutError("unknown_column", detail, unknown)
    return tuple(index for index, name in enumerate(names) if name in wanted)


def _twice(names: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for name in names:
        if name in seen:
            twice[name] = None
        seen.add(name)
    return list(twice)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more
