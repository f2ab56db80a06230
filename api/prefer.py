"""The `Prefer` header (RFC 7240): what a client would like, if it can be had."""

import re
from collections.abc import Iterable

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rf'(?:{_WORD}|"(?:[^"\\]|\\.)*")'
# One preference with its value and its parameters; empty elements of the list are skipped (RFC 9110, section 5.6.1).
_PREFERENCE = re.compile(
    rf"[ \t,]*({_WORD})(?:[ \t]*=[ \t]*({_VALUE}|))?"
    rf"(?:[ \t]*;[ \t]*(?:{_WORD}(?:[ \t]*=[ \t]*(?:{_VALUE}|))?)?)*[ \t]*(?:,|$)"
)


def parse_prefer(headers: Iterable[str]) -> dict[str, str]:
    """The preferences by their names in lower case; one without a value has the empty one.

    Of a preference that stands more than once the first counts; what cannot be read, and what follows it in the same
    header, is left out.
    """
    found: dict[str, str] = {}
    for header in headers:
        place = 0
        while match := _PREFERENCE.match(header, place):
            found.setdefault(match[1].lower(), _unquoted(match[2] or ""))
            place = match.end()
    return found


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
