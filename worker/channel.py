"""The parent's end of what it shares with a predictor: frames go out and come in, and nothing blocks."""

import socket
from collections import deque

from worker.frames import BrokenFrame, Frame, Frames, pack

_PIECE_BYTES = 1 << 20
_MOST_PIECES = 16  # received at once, or a predictor that never ends talking would keep the parent from all else


class Channel:
    """One end of a socket pair."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.end = end
        self.broken: str | None = None  # why nothing comes in any more
        self.is_drained = False  # whether all that had been said was heard
        self._frames = Frames()
        self._unsent: deque[memoryview] = deque()

    @property
    def has_unsent(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._unsent)

    def put(self, frame: Frame) -> None:
        """Sends a frame, as soon as it can be."""
        self._unsent.extend(memoryview(piece) for piece in pack(frame))

    def exchange(self) -> list[Frame]:
        """Sends what can be sent at this moment; the frames that have come in."""
        self._send()
        frames: list[Frame] = []
        try:
            self._receive(frames)
        except (OSError, BrokenFrame) as error:
            self.broken = str(error)
        return frames

    def _send(self) -> None:
        while self._unsent:
            try:
                sent = self.end.send(self._unsent[0])
            except BlockingIOError:
                return
            except OSError:  # what it said before it went has still to be heard: receiving comes to its end
                self._unsent.clear()
                return
            if sent < len(self._unsent[0]):  # without copying what is left
                self._unsent[0] = self._unsent[0][sent:]
            else:
                self._unsent.popleft()

    def _receive(self, frames: list[Frame]) -> None:
        self.is_drained = False
        for _ in range(_MOST_PIECES):
            try:
                piece = self.end.recv(_PIECE_BYTES)
            except BlockingIOError:
                self.is_drained = True
                return
            if not piece:
                raise ConnectionError("it closed its end")
            frames.extend(self._frames.feed(piece))
