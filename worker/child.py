"""The parent's side of the predictor: asks it, notices its death, and ends it when it takes too long or too much."""

import logging
import selectors
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import NoReturn

from worker.channel import Channel
from worker.frames import Frame
from worker.guard import Doing, Guard, Limit, Reason
from worker.memory import OUT_OF_MEMORY_STATUS, limit_of
from worker.nursery import Forked, Nursery

__all__ = ["Child", "ChildDied", "Doing", "Limit", "Question", "Reason", "scrub"]

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25
STOP_SECONDS = 1.0  # how long a stopped chunk may take to end before the predictor is killed
DEATH_SECONDS = 0.2  # between a closed channel and the end of the process behind it
# What the predictor needs of the environment, and no more: no address of a store, no key.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH")
# How a process ends that the kernel kills for its memory, or that could not allocate in C++.
_SIGNALS_OF_WANT = (-signal.SIGKILL, -signal.SIGABRT)


class ChildDied(Exception):
    """Raised when the predictor went away before it answered.

    Whatever it was asked fails with the same reason, and with the step that it was at: None when it was at none.
    """

    def __init__(self, reason: Reason, doing: Doing | None) -> None:
        super().__init__(f"{reason} at {doing}")
        self.reason = reason
        self.doing = doing


@dataclass(slots=True, eq=False)
class _Running:
    forked: Forked
    channel: Channel
    guard: Guard
    answers: dict[int, Frame] = field(default_factory=dict)
    reason: Reason = "crashed"  # why it is gone, once it is


@dataclass(frozen=True, slots=True)
class Question:
    """Something that one predictor was asked."""

    number: int
    running: _Running


class Child:
    """One predictor at a time; a new one is started when it is asked and none runs."""

    def __init__(self, models_path: Path, scrubbed: dict[str, str], memory_bytes: int) -> None:
        """`memory_bytes` is the most that a predictor may take; with 0 it is a share of what there is."""
        self._memory_bytes = limit_of(memory_bytes)
        self._nursery = Nursery(models_path, scrubbed, self._memory_bytes)
        self._running: _Running | None = None
        self._number = 0

    @property
    def pid(self) -> int | None:
        """The process that predicts now; None while it is being started, too."""
        self._listen()
        return self._running.forked.pid if self._running else None

    @property
    def leaks(self) -> bool:
        """Whether it is to be replaced as soon as it is idle, for its memory's sake."""
        return self._running is not None and self._running.guard.leaks

    def start(self) -> None:
        """Starts the predictor unless one runs; it is ready some time later, and what is asked meanwhile waits.

        One that is idle and leaks is replaced.
        """
        self._present()

    def kill(self) -> None:
        """Ends the predictor at once."""
        if self._running:
            self._end(self._running, "crashed")

    def close(self) -> None:
        """Ends the predictor, and the nursery that new ones come from."""
        self.kill()
        self._nursery.close()

    def ask(self, frame: Frame, limit: Limit, tick: Callable[[], None]) -> Frame:
        """Asks and waits for the answer, as `send` and `wait` do."""
        return self.wait(self.send(frame, limit), tick)

    def send(self, frame: Frame, limit: Limit) -> Question:
        """Asks; the predictor comes to it when it has answered what it was asked before.

        `limit` says how many seconds a step of it may take; a predictor that takes longer is killed.
        """
        running = self._present()
        self._number += 1
        running.guard.asked(self._number, limit)
        running.channel.put(Frame({**frame.head, "number": self._number}, frame.bodies))
        return Question(self._number, running)

    def wait(self, question: Question, tick: Callable[[], None], progress: Callable[[], None] | None = None) -> Frame:
        """The answer. `tick` is called about every TICK_SECONDS, `progress` when predicting or writing begins anew.

        Either may ask in between, and either may raise: then the question is given up, see `stop`. Raises ChildDied.
        """
        answers = question.running.answers
        try:
            while question.number not in answers:
                progressed = self._exchange(question)
                tick()
                if progressed and progress:
                    progress()
        except ChildDied:
            raise
        except BaseException:
            self.stop(question)
            raise
        return answers.pop(question.number)

    def stop(self, question: Question) -> None:
        """Gives up a question: the predictor is asked to leave it, and killed when it does not within STOP_SECONDS."""
        running = question.running
        running.channel.put(Frame({"do": "stop", "number": question.number}))
        until = monotonic() + STOP_SECONDS
        try:
            while question.number not in running.answers and monotonic() < until:
                self._exchange(question)
        except ChildDied:
            return
        if running.answers.pop(question.number, None) is None and running is self._running:
            log.warning("the predictor did not leave what it was asked to leave: it is killed")
            self._end(running, "timeout")

    def _present(self) -> _Running:
        """The predictor that runs, or a new one."""
        self._listen()
        running = self._running
        if running and running.forked.has_ended:
            _hear_out(running)
            self._lose(running, "while nothing was awaited")
        elif running and running.guard.is_idle and running.guard.leaks:
            log.info("the predictor takes more and more memory: it is replaced")
            self.kill()
        if self._running is None:
            forked = self._nursery.fork()
            self._running = _Running(forked, Channel(forked.channel), Guard(self._memory_bytes))
        return self._running

    def _exchange(self, question: Question) -> bool:
        """Sends and receives what can be at this moment, waits a tick at most. True when the question progressed.

        Raises ChildDied when the predictor that was asked is gone, though another may have been started since.
        """
        running = question.running
        if running is not self._running:
            raise ChildDied(running.reason, running.guard.doing)
        self._await_something(running)
        self._listen()
        has_ended = running.forked.has_ended  # then all that it ever said has arrived
        progressed = _take_in(running, question.number)
        if question.number in running.answers:
            return progressed
        if running.channel.broken or (has_ended and running.channel.is_drained):
            self._bury(running)
        if running.channel.is_drained:  # or what would be judged may be over
            self._judge(running)
        return progressed

    def _await_something(self, running: _Running) -> None:
        with selectors.PollSelector() as selector:  # which takes no descriptor, as others do each time
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if running.channel.has_unsent else 0)
            selector.register(running.channel.end, wanted)
            if self._nursery.control:
                selector.register(self._nursery.control, selectors.EVENT_READ)
            selector.select(TICK_SECONDS)

    def _listen(self) -> None:
        self._nursery.listen()
        if self._running:
            self._running.guard.pid = self._running.forked.pid

    def _judge(self, running: _Running) -> None:
        reason = running.guard.look()
        if reason:
            log.warning("the predictor is killed: %s at %s", reason, running.guard.doing)
            self._end(running, reason)
            if running.forked.pid is None:  # it was never forked: the nursery does nothing any more
                self._nursery.close()
            raise ChildDied(reason, running.guard.doing)

    def _bury(self, running: _Running) -> NoReturn:
        self._nursery.await_end(running.forked, DEATH_SECONDS)  # its own end says more than our signal
        self._lose(running, running.channel.broken or "its channel is open")
        raise ChildDied(running.reason, running.guard.doing)

    def _lose(self, running: _Running, circumstance: str) -> None:
        log.warning("the predictor died (%s): %s", circumstance, running.forked.ending)
        status = running.forked.status
        wanted_memory = status == OUT_OF_MEMORY_STATUS or (status in _SIGNALS_OF_WANT and running.guard.has_swollen)
        self._end(running, "out_of_memory" if wanted_memory else "crashed")

    def _end(self, running: _Running, reason: Reason) -> None:
        running.reason = reason
        self._running = None
        self._nursery.kill(running.forked)


def _take_in(running: _Running, number: int) -> bool:
    """Takes in what a predictor has said; True when there is progress with question `number`."""
    progressed = False
    for frame in running.channel.exchange():
        try:
            progressed = _understand(running, frame) == number or progressed
        except (KeyError, TypeError):
            running.channel.broken = "what came is no answer"
    return progressed


def _hear_out(running: _Running) -> None:
    """Takes in all that a predictor which has ended had said: answers, and the step that it ended in."""
    running.channel.is_drained = False
    while not (running.channel.is_drained or running.channel.broken):
        _take_in(running, 0)


def _understand(running: _Running, frame: Frame) -> int | None:
    """The number of the question that goes on, if that is what a predictor says."""
    head = frame.head
    number: int = head["number"]
    if head["is"] == "doing":
        running.guard.began(Doing(number, head["stage"], head["from"], head["to"]))
        return number if head["stage"] in ("predict", "write") else None
    running.guard.answered(number)
    running.answers[number] = frame
    return None


def scrub(environment: dict[str, str]) -> dict[str, str]:
    """The predictor's environment: what it needs of ours, and one thread for each numeric library.

    Several workers share a machine, so threads inside each would only get in each other's way; and they do not survive
    the fork from the nursery. Arrow's allocator must not claim a gigabyte in advance: it counts against the limit of
    the process's data, though hardly any of it is ever touched.
    """
    passed = {name: environment[name] for name in _PASSED_ON if name in environment}
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    arrow = {"JE_ARROW_MALLOC_CONF": "background_thread:false", "MIMALLOC_ARENA_EAGER_COMMIT": "0"}
    return {**passed, **threads, **arrow}
