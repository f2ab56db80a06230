"""Calls of one script that threads make at the same moment share a round trip, and a connection."""

from collections import deque
from collections.abc import Sequence
from threading import Lock
from typing import Any

from jobs.connection import patience
from jobs.errors import StoreAway
from jobs.scripts import Argument, Scripts

MOST_AT_ONCE = 256


class _Call:
    """One thread's call, and what came of it."""

    __slots__ = ("answer", "arguments", "is_done", "woken")

    def __init__(self, arguments: tuple[Argument, ...]) -> None:
        self.arguments = arguments
        self.is_done = False
        self.answer: Any = None
        self.woken = Lock()
        self.woken.acquire()

    def finish(self, answer: Any) -> None:  # noqa: ANN401 - what a script returns is its own affair
        """Wakes its thread."""
        self.answer, self.is_done = answer, True
        self.woken.release()


class Combined:
    """One script. One of the threads that call it leads: it sends what waits, then the next one leads.

    Each of the others is woken once: with its answer, or to lead.
    """

    def __init__(self, scripts: Scripts, name: str) -> None:
        self._scripts = scripts
        self._name = name
        self._lock = Lock()  # of the two below; held for moments only
        self._waiting: deque[_Call] = deque()
        self._is_led = False

    def call(self, *arguments: Argument) -> Any:  # noqa: ANN401 - what a script returns is its own affair
        """Runs the script once; raises StoreAway or StoreFull, which the calls of others do not suffer from."""
        if patience.is_over:  # of this thread; who leads answers for others too
            raise StoreAway("the store has been too slow for this request")
        own = _Call(arguments)
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

    def _lead(self, own: _Call) -> None:
        while not own.is_done:
            with self._lock:
                calls = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
            self._send(calls)
        with self._lock:
            if self._waiting:
                self._waiting[0].woken.release()  # it leads from here on
            else:
                self._is_led = False

    def _send(self, calls: Sequence[_Call]) -> None:
        try:
            answers = self._scripts.call_each(self._name, [call.arguments for call in calls])
        except BaseException as error:  # whatever it is, those who wait must not wait for ever
            with self._lock:  # nor each for a store that is away
                calls = [*calls, *self._waiting]
                self._waiting.clear()
            answers = [error] * len(calls)
        for call, answer in zip(calls, answers, strict=True):
            call.finish(answer)
