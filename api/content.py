"""What a request's body says, once its coding and its charset are taken off."""

from collections.abc import Iterable, Iterator

from flask import request

from api.body import current_body
from api.decoding import as_utf8, decompressed
from api.idempotency import current_key
from api.problems import Problem


class Pieces:
    """The pieces of a CSV body; `has_one_line` is known when all have come by."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.has_one_line = False

    def __iter__(self) -> Iterator[bytes]:
        begun = ended = False
        for piece in self._pieces:
            begun, ended = True, ended or b"\n" in piece
            yield piece
        self.has_one_line = begun and not ended


def content(most: int, advice: str) -> Iterator[bytes]:
    """The body as UTF-8, up to `most` bytes on the way and decompressed; `advice` is for those who send more."""
    pieces = current_key().seen(uncoded(most, advice))
    return as_utf8(pieces, request.mimetype_params.get("charset"))


def uncoded(most: int, advice: str) -> Iterator[bytes]:
    """The body's bytes without Content-Encoding, in whatever charset. Raises Problem."""
    body = current_body()
    if not body.announced:
        raise Problem(411, "length_required", "The request says nothing of its body. Send a Content-Length and a body.")
    return decompressed(body.pieces(most, advice), request.headers.get("Content-Encoding", ""), most, advice)
