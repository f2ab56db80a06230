"""What a body was wrapped in is taken off as it arrives: compression, and characters that are not UTF-8."""

import codecs
import re
import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import zstandard

from api.body import PIECE_BYTES, too_large
from api.problems import Problem

# The most that a decoder may be asked to remember, as RFC 9659 has it for zstd on the web.
ZSTD_WINDOW_BYTES = 8 * 1024 * 1024

UTF_8 = "utf-8"

_CHARSET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,39}")
_EAST_ASIAN = (
    "big5 big5hkscs cp932 cp949 cp950 euc_jis_2004 euc_jisx0213 euc_jp euc_kr gb18030 gb2312 gbk iso2022_jp "
    "iso2022_jp_1 iso2022_jp_2 iso2022_jp_2004 iso2022_jp_3 iso2022_jp_ext iso2022_kr shift_jis shift_jis_2004 "
    "shift_jisx0213"
)
# By Python's names. Not every codec of Python's is a charset: some of them decompress, unescape or unquote.
CHARSETS = frozenset(
    ["ascii", "utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be", "utf-32-le", "cp874", *_EAST_ASIAN.split()]
    + [f"iso8859-{part}" for part in (*range(1, 12), *range(13, 17))]
    + [f"cp125{page}" for page in range(9)]
)


def decompressed(pieces: Iterator[bytes], coding: str, most: int, advice: str) -> Iterator[bytes]:
    """The pieces without the `Content-Encoding` named `coding`, up to `most` bytes of them.

    Raises Problem: `unsupported_encoding`, `corrupt_body`, `incomplete_body`, `body_too_large`. Whatever the ratio of
    compression, no more than a piece and the coding's window is held.
    """
    name = coding.strip().lower()
    if name in ("", "identity"):
        return pieces
    if name not in _DECOMPRESSORS:
        detail = "This Content-Encoding is not known here. Send the body as it is, or with gzip or zstd."
        raise Problem(415, "unsupported_encoding", detail, headers={"Accept-Encoding": "gzip, zstd"})
    return _capped(_DECOMPRESSORS[name](pieces), most, advice)


def as_utf8(pieces: Iterator[bytes], charset: str | None) -> Iterator[bytes]:
    """The pieces converted from `charset` to UTF-8; without one, or with UTF-8, as they are.

    Raises Problem: `unsupported_charset`, `encoding` with the byte's offset.
    """
    name = codec_name(charset)
    return pieces if name == UTF_8 else _converted(pieces, name)


def codec_name(charset: str | None) -> str:
    """Python's name of a charset, UTF_8 if there is none. Raises Problem: `unsupported_charset`."""
    if charset is None:
        return UTF_8
    try:
        name = codecs.lookup(charset).name if _CHARSET_NAME.fullmatch(charset) else ""
    except LookupError:
        name = ""
    if name != UTF_8 and name not in CHARSETS:
        detail = "This charset is not known here. Send UTF-8, UTF-16, UTF-32, ISO-8859, Windows or East Asian text."
        raise Problem(415, "unsupported_charset", detail)
    return name


def _capped(pieces: Iterator[bytes], most: int, advice: str) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > most:
            raise too_large(most, advice)
        yield piece


def _gunzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Several members one after the other are one body (RFC 1952, section 2.2), zeros behind them are padding."""
    member, members = None, 0
    for piece in pieces:
        left = piece
        while left:
            if member is None:
                left = left.lstrip(b"\0") if members else left
                member = zlib.decompressobj(wbits=31) if left else None
                continue
            try:
                out = member.decompress(left, PIECE_BYTES)
            except zlib.error:
                raise _corrupt("gzip") from None
            left = member.unused_data if member.eof else member.unconsumed_tail
            if member.eof:
                member, members = None, members + 1
            if out:
                yield out
    if member is not None:
        raise _cut_short("gzip")


class _Source:
    """Pieces as the file that zstandard reads from, with a last frame of our own behind them."""

    def __init__(self, pieces: Iterator[bytes], last: bytes) -> None:
        self._pieces = chain((piece for piece in pieces if piece), self._end(last))
        self.exhausted = False

    def read(self, size: int) -> bytes:
        """The next piece, whatever its size: the C reader takes it as it comes."""
        return next(self._pieces, b"")

    def _end(self, last: bytes) -> Iterator[bytes]:
        self.exhausted = True
        # The first byte alone: where a frame's head is cut off, zstd takes a whole frame behind it for its rest.
        yield last[:1]
        yield last[1:]


def _unzstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Several frames one after the other are one body.

    The reader is the only one of zstandard's that bounds its output, and it does not tell a body that was cut short
    from a complete one. So a frame with a random mark is put behind the body: it comes out, whole and last, only if
    the body ended where a frame ends.
    """
    # Twice the same, so that the frame is compressed and does not itself hold the mark: a block that was cut short
    # takes the frame's bytes for its own.
    mark = secrets.token_bytes(32) * 2
    source = _Source(pieces, zstandard.ZstdCompressor().compress(mark))
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
    reader = decompressor.stream_reader(source, read_across_frames=True)  # type: ignore[arg-type]
    held = b""
    while True:
        try:
            out = reader.read1(PIECE_BYTES)
        except zstandard.ZstdError:
            raise (_cut_short("zstd") if source.exhausted else _corrupt("zstd")) from None
        if not out:
            break
        held += out
        ready, held = held[: -len(mark)], held[-len(mark) :]
        if ready:
            yield ready
    if held != mark:
        raise _cut_short("zstd")


_DECOMPRESSORS: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "zstd": _unzstd,
}


def _converted(pieces: Iterable[bytes], name: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(name)()
    fed = 0
    for piece in pieces:
        fed += len(piece)
        yield _decode(decoder, piece, fed, name).encode()
    yield _decode(decoder, b"", fed, name, final=True).encode()


def _decode(decoder: codecs.IncrementalDecoder, piece: bytes, fed: int, name: str, final: bool = False) -> str:
    try:
        return decoder.decode(piece, final)
    except UnicodeDecodeError as error:
        # What the decoder kept of earlier pieces stands in front of this one in `error.object`.
        offset = fed - len(error.object) + error.start
        detail = f"The body is not {name} text at byte {offset}. Send the charset that it is in, or UTF-8."
        raise Problem(400, "encoding", detail) from None
    except UnicodeError:
        # What Python's decoders of UTF-16 and UTF-32 raise where no byte order mark says how to read the bytes.
        detail = f"The body has no byte order mark at byte 0. Send charset={name}le or charset={name}be."
        raise Problem(400, "encoding", detail) from None


def _corrupt(coding: str) -> Problem:
    detail = f"The body is not valid {coding}. Compress it again (zstd: a window of at most 8 MiB, RFC 9659)."
    return Problem(400, "corrupt_body", detail)


def _cut_short(coding: str) -> Problem:
    return Problem(400, "incomplete_body", f"The {coding} data ends too early. Compress it and send it again.")
