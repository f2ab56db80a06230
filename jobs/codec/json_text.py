"""JSON read strictly and written exactly: numbers keep the text they were sent with."""

import json
import math
import re
from json.encoder import encode_basestring
from typing import NoReturn

from jobs.errors import JobsError

# Python's own limit differs between versions and on some is the C stack's; this one is the same everywhere.
# An input is two or three levels deep; what passes through untouched may be deeper.
MAX_DEPTH = 64

# A string, closed or cut off, so that brackets within strings are not counted; or one bracket.
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# Escapes one after the other, so that an escaped backslash before a "u" is seen as what it is. Group 1: half of a pair.
_ESCAPES = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]|(u[dD][89a-fA-F])|.)", re.DOTALL)


class Number(str):
    """The text of a JSON number exactly as it was sent."""

    __slots__ = ()


class InvalidJson(JobsError):
    """Raised when a text is not strict JSON; `detail` says where and why without repeating a value."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def loads(text: str | bytes) -> object:
    """The value that a strict JSON text (RFC 8259) holds, its numbers as `Number`.

    Raises InvalidJson for what other readers let pass: a key twice in one object, NaN and Infinity, a number too large
    for a float64, half a surrogate pair, deep nesting, a byte order mark, bytes that are not UTF-8.
    """
    text = _decode(text) if isinstance(text, bytes) else text
    _check_depth(text)
    _check_surrogates(text)
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidJson(f"not JSON at character {error.pos + 1}: {error.msg}") from None


def dumps(value: object) -> str:
    """Compact JSON; a Number is written as its text, a float so that reading it gives the same float.

    Raises ValueError for floats that are not finite: JSON has no word for them.
    """
    if isinstance(value, Number):
        return value
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{encode_basestring(key)}:{dumps(item)}" for key, item in value.items()]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([dumps(item) for item in value]) + "]"
    return _SCALARS.encode(value)


def _decode(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InvalidJson(f"not UTF-8 at byte {error.start}") from None


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _BRACKETS.finditer(text):
        first = text[token.start()]
        if first in "[{":
            depth += 1
        elif first != '"':
            depth -= 1
        if depth > MAX_DEPTH:
            raise InvalidJson(f"nested more than {MAX_DEPTH} levels deep at character {token.start() + 1}")


def _check_surrogates(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidJson(f"half a surrogate pair at character {error.start + 1}") from None
    if _ESCAPED_SURROGATE.search(text):
        for escape in _ESCAPES.finditer(text):
            if escape[1]:
                raise InvalidJson(f"half a surrogate pair at character {escape.start() + 1}")


def _number(text: str) -> Number:
    # Fewer than 300 digits without an exponent cannot overflow: float() is asked only where it can.
    if (len(text) >= 300 or "e" in text or "E" in text) and math.isinf(float(text)):
        raise InvalidJson("a number is too large for a float64")
    return Number(text)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    read = dict(pairs)
    if len(read) == len(pairs):
        return read
    seen: set[str] = set()
    twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    raise InvalidJson(f"the key {twice[:80]!r} stands twice in one object")


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJson(f"{name} is not JSON; send null for a missing value")


# Integers go through `_number` as text: int() would refuse more than 4300 digits.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_number, parse_int=_number, parse_constant=_refuse_constant
)
_SCALARS = json.JSONEncoder(allow_nan=False)
