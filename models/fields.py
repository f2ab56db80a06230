"""The fields of a JSON object, taken strictly: a value of the kind that was asked for, or ValueError saying which."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def as_object(value: object, what: str) -> dict[str, object]:
    """The value, which must be an object."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object")
    return value


def take(fields: Mapping[str, object], name: str, kind: type[T]) -> T:
    """The field, which must be there and of the kind."""
    value = fields.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"{name} is missing or not of the type {kind.__name__}")
    return value


def matching(fields: Mapping[str, object], name: str, pattern: re.Pattern[str]) -> str:
    """The field, which must be a text that matches the pattern as a whole."""
    text = take(fields, name, str)
    if not pattern.fullmatch(text):
        raise ValueError(f"{name} must match {pattern.pattern}")
    return text


def one_of(fields: Mapping[str, object], name: str, allowed: Sequence[str]) -> str:
    """The field, which must be one of the allowed texts."""
    text = take(fields, name, str)
    if text not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}")
    return text


def as_number(value: object, what: str) -> float:
    """The value, which must be a finite number and no boolean."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{what} must be a finite number")
    return float(value)


def numbers(fields: Mapping[str, object], name: str) -> dict[str, float]:
    """The field, which must be an object of finite numbers."""
    return {key: as_number(value, f"{name}.{key}") for key, value in as_object(fields.get(name), name).items()}


def texts(fields: Mapping[str, object], name: str) -> dict[str, str]:
    """The field, which must be an object of texts."""
    values = as_object(fields.get(name), name)
    return {key: take(values, key, str) for key in values}


def number_or_none(fields: Mapping[str, object], name: str) -> float | None:
    """The field, which may be null or missing."""
    return None if fields.get(name) is None else as_number(fields[name], name)


def tuple_or_none(fields: Mapping[str, object], name: str, kind: type[T]) -> tuple[T, ...] | None:
    """The field, which may be null or missing, and else must be a list of one kind of values, not empty."""
    if fields.get(name) is None:
        return None
    values = take(fields, name, list)
    if not values or not all(isinstance(value, kind) for value in values):
        raise ValueError(f"{name} must be null or a list of {kind.__name__} values")
    return tuple(values)
