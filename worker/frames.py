"""What parent and predictor say to each other: frames with a JSON head and byte bodies. Nothing is unpickled."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LENGTHS = struct.Struct("!II")  # of the head, of all bodies together
_MOST_BYTES = 1 << 30  # a frame is a chunk and its results: far below


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: a small JSON object and any number of byte strings."""

    head: dict[str, Any]
    bodies: tuple[bytes, ...] = ()


class BrokenFrame(Exception):
    """Raised when what arrives cannot be a frame."""


def pack(frame: Frame) -> list[bytes]:
    """The frame's bytes, in pieces: bodies are large and are not copied."""
    head = json.dumps({**frame.head, "sizes": [len(body) for body in frame.bodies]}).encode()
    lengths = _LENGTHS.pack(len(head), sum(map(len, frame.bodies)))
    return [lengths + head, *(body for body in frame.bodies if body)]


class Frames:
    """Puts frames together from the pieces that arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """The frames that are complete with this piece."""
        self._buffer += piece
        while len(self._buffer) >= _LENGTHS.size:
            head_bytes, body_bytes = _LENGTHS.unpack_from(self._buffer)
            if head_bytes + body_bytes > _MOST_BYTES:
                raise BrokenFrame("a frame claims to be larger than any can be")
            end = _LENGTHS.size + head_bytes + body_bytes
            if len(self._buffer) < end:
                return
            with memoryview(self._buffer) as view:
                frame = _unpack(view[_LENGTHS.size : end], head_bytes)
            del self._buffer[:end]
            yield frame


def _unpack(raw: memoryview, head_bytes: int) -> Frame:
    try:
        head = json.loads(bytes(raw[:head_bytes]))
        sizes = head.pop("sizes")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BrokenFrame("a frame's head is not what it has to be") from error
    bodies, start = [], head_bytes
    for size in sizes:
        bodies.append(bytes(raw[start : start + size]))
        start += size
    return Frame(head, tuple(bodies))
