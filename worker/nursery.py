"""The parent's side of the nursery: has predictors forked, and learns when and how they end."""

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

log = logging.getLogger(__name__)

END_SECONDS = 2.0  # what the nursery may take to end when it is asked to
_PIECE_BYTES = 4096
_CHANNEL_BYTES = 1 << 20  # as large as the system allows: a chunk takes fewer turns then


@dataclass(slots=True, eq=False)
class Forked:
    """A predictor that the nursery was asked for."""

    number: int
    channel: socket.socket
    pid: int | None = None  # not known before the nursery has imported everything
    has_ended: bool = False
    status: int | None = None  # how it ended, as `subprocess` says it; None: it went with its nursery

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        if not self.has_ended:
            return "it still runs"
        return "its nursery ended" if self.status is None else _in_words(self.status)


@dataclass(slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    control: socket.socket
    unread: bytes = b""


class Nursery:
    """One nursery at a time; a new one is started when a predictor is wanted and none runs."""

    def __init__(self, models_path: Path, environment: dict[str, str], memory_bytes: int) -> None:
        self._models_path = models_path
        self._environment = environment
        self._memory_bytes = memory_bytes
        self._running: _Running | None = None
        self._forked: dict[int, Forked] = {}
        self._number = 0

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._running.process.pid if self._running else None

    @property
    def control(self) -> socket.socket | None:
        """What becomes readable when there is something to listen to."""
        return self._running.control if self._running else None

    def fork(self) -> Forked:
        """A new predictor; it answers some time later, and what it is sent meanwhile waits in its channel.

        Should the nursery have died, it has ended already.
        """
        running = self._running or self._start()
        self._number += 1
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CHANNEL_BYTES)
        ours.setblocking(False)
        forked = self._forked[self._number] = Forked(self._number, ours)
        with theirs:
            try:
                socket.send_fds(running.control, [b"fork %d\n" % self._number], [theirs.fileno()])
            except OSError as error:
                self._bury(error)
        return forked

    def kill(self, forked: Forked) -> None:
        """Ends a predictor at once; closes its channel in any case."""
        forked.channel.close()
        if self._running and not forked.has_ended:
            try:
                self._running.control.sendall(b"kill %d\n" % forked.number)
            except OSError as error:
                self._bury(error)

    def listen(self, seconds: float = 0) -> None:
        """Takes in what the nursery has to say; waits for it so long when there is nothing yet."""
        if self._running is None or (seconds and not _is_readable(self._running.control, seconds)):
            return
        try:
            piece = self._running.control.recv(_PIECE_BYTES, socket.MSG_DONTWAIT)
            if not piece:
                raise ConnectionError("it closed its end")
        except BlockingIOError:
            return
        except OSError as error:
            self._bury(error)
            return
        *lines, self._running.unread = (self._running.unread + piece).split(b"\n")
        for line in lines:
            self._take_in(*line.decode().split())

    def await_end(self, forked: Forked, seconds: float) -> None:
        """Waits until a predictor is known to have ended, but no longer than so many seconds."""
        until = monotonic() + seconds
        while not forked.has_ended and (left := until - monotonic()) > 0:
            self.listen(left)

    def close(self) -> None:
        """Ends the nursery, and with it every predictor that still runs."""
        if self._running:
            running, self._running = self._running, None
            running.control.close()  # then it kills its predictors and ends
            _end(running.process)
            self._forget()

    def _start(self) -> _Running:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "worker.leashed", str(theirs.fileno()), str(os.getpid())]
            process = subprocess.Popen(
                [*command, str(self._memory_bytes), str(self._models_path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                env=self._environment,
                cwd=Path(__file__).resolve().parent.parent,
            )
        self._running = _Running(process, ours)
        return self._running

    def _take_in(self, word: str, number: str, value: str) -> None:
        forked = self._forked[int(number)]
        if word == "forked":
            forked.pid = int(value)
        else:
            forked.has_ended, forked.status = True, int(value)
            del self._forked[forked.number]

    def _bury(self, error: OSError) -> None:
        """The nursery has died: so have its predictors, or they do when their channels are closed."""
        assert self._running is not None  # noqa: S101 - it was just used
        running, self._running = self._running, None
        running.control.close()
        status = _end(running.process)
        log.warning("the nursery of predictors died (%s): %s", error, _in_words(status))
        self._forget()

    def _forget(self) -> None:
        for forked in self._forked.values():
            forked.has_ended = True
        self._forked.clear()


def _is_readable(control: socket.socket, seconds: float) -> bool:
    with selectors.PollSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        return bool(selector.select(seconds))


def _end(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _in_words(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
