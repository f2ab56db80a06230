"""A file sent with a form, as browsers and `curl -F` do, read as it arrives."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from api.body import PIECE_BYTES
from api.problems import Problem

FILE = "file"
MOST_FIELD_BYTES = 64 * 1024
MOST_PARTS = 32
# What the decoder may hold: a piece, and the head of a part that is not whole yet.
MOST_HELD_BYTES = PIECE_BYTES + 64 * 1024


@dataclass(frozen=True, slots=True)
class Form:
    """The fields in front of the file, and the file's bytes."""

    fields: Mapping[str, str]
    charset: str | None  # what the file's part says of itself
    file: Iterator[bytes]

    def look_further(self, most: int) -> None:
        """Reads on, about `most` bytes far, only to raise the Problem that shows up there, if one does."""
        for piece in self.file:
            most -= len(piece)
            if most <= 0:
                break


def read_form(pieces: Iterator[bytes], boundary: str | None) -> Form:
    """Reads up to the part `file`; the form's `file` reads on from there.

    Raises Problem: `malformed_form`, `incomplete_body`, `missing_file`; while the file is read also
    `field_after_file`.
    """
    if not boundary:
        raise _malformed("Its Content-Type has no boundary.")
    events = _events(pieces, boundary.encode())
    fields: dict[str, str] = {}
    for event in events:
        if not isinstance(event, Field | File):
            continue
        if event.name == FILE:
            _, parameters = parse_options_header(event.headers.get("Content-Type"))
            return Form(fields, parameters.get("charset"), _file(events))
        if isinstance(event, File):
            raise Problem(400, "missing_file", "The form's first file is not called file. Send it as the part file.")
        if event.name is None:  # werkzeug's types say that it cannot be
            raise _malformed('A field has no name. Give it one, like Content-Disposition: form-data; name="model".')
        fields[event.name] = _text(events)
    raise Problem(400, "missing_file", "The form has no part file. Send the CSV as the part file, after the fields.")


def _file(events: Iterator[Event]) -> Iterator[bytes]:
    for event in events:
        if isinstance(event, Data):
            yield event.data
        elif not isinstance(event, Epilogue):
            detail = "A field or file comes after the file. Send model, keep and delimiter first, then one file."
            raise Problem(400, "field_after_file", detail)


def _text(events: Iterator[Event]) -> str:
    """The value of the field that has just begun."""
    value = b""
    for event in events:
        if isinstance(event, Data):
            value += event.data
            if len(value) > MOST_FIELD_BYTES:
                raise _malformed(f"A field is longer than {MOST_FIELD_BYTES} bytes.")
            if not event.more_data:
                break
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _malformed("A field is not UTF-8.") from None


def _events(pieces: Iterable[bytes], boundary: bytes) -> Iterator[Event]:
    decoder = MultipartDecoder(boundary, MOST_HELD_BYTES, max_parts=MOST_PARTS)
    held = b""
    for piece in pieces:
        for start in range(0, len(piece), PIECE_BYTES):
            held += piece[start : start + PIECE_BYTES]
            end = _safe_end(held, len(boundary) + 8)
            yield from _fed(decoder, held[:end])
            held = held[end:]
    yield from _fed(decoder, held)
    yield from _fed(decoder, None)


def _safe_end(piece: bytes, longest: int) -> int:
    """Where to cut so that a boundary's line, of up to so many bytes, is not cut.

    Werkzeug's decoder takes the carriage return in front of a boundary for content when the line behind it is not
    whole yet.
    """
    tail = max(len(piece) - longest, 0)
    line_end = max(piece.rfind(b"\n", tail), piece.rfind(b"\r", tail))
    if line_end < 0:
        return len(piece)
    return line_end - 1 if piece[line_end - 1 : line_end + 1] == b"\r\n" else line_end


def _fed(decoder: MultipartDecoder, piece: bytes | None) -> Iterator[Event]:
    """The events that a piece brings; None is the end of the body."""
    try:
        decoder.receive_data(piece)
        while not isinstance(event := decoder.next_event(), NeedData):
            yield event
            if isinstance(event, Epilogue):
                break
    except RequestEntityTooLarge:
        raise _malformed(f"A part's head is too long, or there are more than {MOST_PARTS} parts.") from None
    except ValueError:
        if piece is None:
            detail = "The form ends before its last boundary. Send it again."
            raise Problem(400, "incomplete_body", detail) from None
        raise _malformed("A part has no readable Content-Disposition.") from None


def _malformed(why: str) -> Problem:
    return Problem(400, "malformed_form", f"The form cannot be read. {why} Correct it and send it again.")
