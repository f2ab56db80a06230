"""The parent's side of the predictor: starts it, asks it, notices its death, and never blocks on it."""

import logging
import os
import selectors
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from worker.frames import BrokenFrame, Frame, Frames, pack

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25
STOP_SECONDS = 1.0  # how long a stopped chunk may take to end before the predictor is killed
DEATH_SECONDS = 0.2  # between a closed channel and the end of the process behind it
_PIECE_BYTES = 1 << 20
# What the predictor needs of the environment, and no more: no address of a store, no key.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH")


class ChildDied(Exception):
    """Raised when the predictor went away before it answered."""


@dataclass(slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    channel: socket.socket
    frames: Frames = field(default_factory=Frames)
    unsent: deque[memoryview] = field(default_factory=deque)
    answers: dict[int, Frame] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """Something that one predictor was asked."""

    number: int
    running: _Running


class Child:
    """One predictor at a time; a new one is started when it is asked and none runs."""

    def __init__(self, models_path: Path, scrubbed: dict[str, str]) -> None:
        self._models_path = models_path
        self._environment = scrubbed
        self._running: _Running | None = None
        self._number = 0

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._running.process.pid if self._running else None

    def start(self) -> None:
        """Starts the predictor unless one runs; it is ready some time later, and what is asked meanwhile waits."""
        if self._running:
            if self._running.process.poll() is None:
                return
            self.kill()
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):  # as large as the system allows: a chunk takes fewer turns then
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE_BYTES)
        with theirs:
            command = [sys.executable, "-m", "worker.leashed"]
            process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid()), str(self._models_path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                env=self._environment,
                cwd=Path(__file__).resolve().parent.parent,
            )
        ours.setblocking(False)
        self._running = _Running(process, ours)

    def kill(self) -> None:
        """Ends the predictor at once."""
        if self._running:
            running, self._running = self._running, None
            running.channel.close()
            running.process.kill()
            running.process.wait()

    def ask(self, frame: Frame, tick: Callable[[], None]) -> Frame:
        """Asks and waits for the answer, as `send` and `wait` do."""
        return self.wait(self.send(frame), tick)

    def send(self, frame: Frame) -> Question:
        """Asks; the predictor comes to it when it has answered what it was asked before."""
        self.start()
        self._number += 1
        self._send(Frame({**frame.head, "number": self._number}, frame.bodies))
        return Question(self._number, self._present())

    def wait(self, question: Question, tick: Callable[[], None], progress: Callable[[], None] | None = None) -> Frame:
        """The answer. `tick` is called about every TICK_SECONDS, `progress` after each sub-block.

        Either may ask in between, and either may raise: then the question is given up, see `stop`. Raises ChildDied.
        """
        try:
            while True:
                running = self._asked(question)
                if question.number in running.answers:
                    return running.answers.pop(question.number)
                progressed = self._exchange(question.number)
                tick()
                if progressed and progress:
                    progress()
        except ChildDied:
            raise
        except BaseException:
            self.stop(question)
            raise

    def stop(self, question: Question) -> None:
        """Gives up a question: the predictor is asked to leave it, and killed when it does not within STOP_SECONDS."""
        try:
            self._asked(question)
            self._send(Frame({"do": "stop", "number": question.number}))
            until = monotonic() + STOP_SECONDS
            while monotonic() < until:
                if question.number in self._asked(question).answers:
                    del self._asked(question).answers[question.number]
                    return
                self._exchange(question.number)
        except ChildDied:
            return
        self.kill()

    def _asked(self, question: Question) -> _Running:
        """The predictor that was asked. Raises ChildDied when it died, though another may have been started since."""
        if self._running is not question.running:
            raise ChildDied
        return question.running

    def _present(self) -> _Running:
        if self._running is None:
            raise ChildDied
        return self._running

    def _send(self, frame: Frame) -> None:
        self._present().unsent.extend(memoryview(piece) for piece in pack(frame))

    def _exchange(self, number: int) -> bool:
        """Sends and receives what can be at this moment, waits a tick at most. True when chunk `number` progressed."""
        running = self._present()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if running.unsent else 0)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(running.channel, wanted)
                ready = selector.select(TICK_SECONDS)
            for _, events in ready:
                if events & selectors.EVENT_WRITE:
                    _send_some(running)
                if events & selectors.EVENT_READ:
                    return self._receive(running, number)
        except (OSError, BrokenFrame) as error:
            self._bury(error)
        return False

    def _receive(self, running: _Running, number: int) -> bool:
        piece = running.channel.recv(_PIECE_BYTES)
        if not piece:
            raise ConnectionError("the predictor closed its end")
        progressed = False
        for frame in running.frames.feed(piece):
            if frame.head["is"] == "progress":
                progressed = progressed or frame.head["number"] == number
            else:
                running.answers[frame.head["number"]] = frame
        return progressed

    def _bury(self, error: Exception) -> None:
        running = self._present()
        with suppress(subprocess.TimeoutExpired):  # its own end says more than our signal
            running.process.wait(DEATH_SECONDS)
        self.kill()
        log.warning("the predictor died (%s): exit status %s", error, running.process.returncode)
        raise ChildDied from error


def _send_some(running: _Running) -> None:
    """Sends as much as fits into the channel now, without copying what is left."""
    sent = running.channel.send(running.unsent[0])
    if sent < len(running.unsent[0]):
        running.unsent[0] = running.unsent[0][sent:]
    else:
        running.unsent.popleft()


def scrub(environment: dict[str, str]) -> dict[str, str]:
    """The predictor's environment: what it needs of ours, and one thread for each numeric library.

    Several workers share a machine, so threads inside each would only get in each other's way; and OpenMP's do not
    survive a fork.
    """
    passed = {name: environment[name] for name in _PASSED_ON if name in environment}
    return {**passed, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
