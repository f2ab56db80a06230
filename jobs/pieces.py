"""Texts of a record, in fields that are small enough for the store to pack the record."""

from collections.abc import Mapping

PIECE_BYTES = 64  # the store's own limit for packing (hash-max-listpack-value); hosts do not let one change it
MOST_PIECES = 16  # jobs/lua/shared/singles.lua has the same
_WIDEST = 4  # bytes of a character


def pieces(name: str, text: str) -> list[str]:
    """Fields and texts in turn: `name`, `name:1`, … with up to 64 bytes each; a text that is too long has one field."""
    size = PIECE_BYTES if text.isascii() else PIECE_BYTES // _WIDEST
    if not size < len(text) <= size * MOST_PIECES:
        return [name, text]
    cut = [text[start : start + size] for start in range(0, len(text), size)]
    return [item for number, piece in enumerate(cut) for item in (_field(name, number), piece)]


def joined(fields: Mapping[str, str], name: str) -> str | None:
    """The text that `pieces` has cut; None when there is none."""
    found = fields.get(name)
    if found is None or f"{name}:1" not in fields:
        return found
    return "".join(fields.get(_field(name, number), "") for number in range(MOST_PIECES))


def _field(name: str, number: int) -> str:
    return f"{name}:{number}" if number else name
