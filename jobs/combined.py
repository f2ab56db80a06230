"""What threads ask for at the same moment is asked for together: they share a round trip, and a connection."""

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Generic, TypeVar

from jobs.connection import patience
from jobs.errors import StoreAway

MOST_AT_ONCE = 128

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class _Call(Generic[Asked, Answer]):
    """What one thread asks for, and what came of it."""

    __slots__ = ("answer", "asked", "is_done", "woken")

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.is_done = False
        self.answer: Answer | BaseException
        self.woken = Lock()
        self.woken.acquire()

    def finish(self, answer: Answer | BaseException) -> None:
        """Wakes its thread."""
        self.answer, self.is_done = answer, True
        self.woken.release()


class Combined(Generic[Asked, Answer]):
    """One of the threads that call it leads: it sends what waits, then the next one leads.

    Each of the others is woken once: with its answer, or to lead.
    """

    def __init__(self, send: Callable[[Sequence[Asked]], Sequence[Answer | BaseException]]) -> None:
        """`send` gives an answer to each of those it is called with, in their order."""
        self._send = send
        self._lock = Lock()  # of the two below; held for moments only
        self._waiting: deque[_Call[Asked, Answer]] = deque()
        self._is_led = False

    def call(self, asked: Asked) -> Answer:
        """The answer; an exception among the answers is raised to the thread that it is for, one of `send` to all."""
        if patience.is_over:  # of this thread; who leads answers for others too
            raise StoreAway("the store has been too slow for this request")
        own: _Call[Asked, Answer] = _Call(asked)
        with self._lock:
            self._waiting.append(own)
            leads, self._is_led = not self._is_led, True
        if not leads:
            own.woken.acquire()
        if not own.is_done:
            self._lead(own)
        if isinstance(own.answer, StoreAway):  # one for all who waited
            raise StoreAway(str(own.answer)) from own.answer
        if isinstance(own.answer, BaseException):
            raise own.answer
        return own.answer

    def _lead(self, own: _Call[Asked, Answer]) -> None:
        while not own.is_done:
            with self._lock:
                calls = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
            self._answer(calls)
        with self._lock:
            if self._waiting:
                self._waiting[0].woken.release()  # it leads from here on
            else:
                self._is_led = False

    def _answer(self, calls: Sequence[_Call[Asked, Answer]]) -> None:
        answers: Sequence[Answer | BaseException]
        try:
            answers = self._send([call.asked for call in calls])
        except BaseException as error:  # whatever it is, those who wait must not wait for ever
            with self._lock:  # nor each for a store that is away
                calls = [*calls, *self._waiting]
                self._waiting.clear()
            answers = [error] * len(calls)
        for call, answer in zip(calls, answers, strict=True):
            call.finish(answer)
