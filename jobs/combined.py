"""Calls of one script that threads make at the same moment share a round trip, and a connection."""

from collections import deque
from threading import Lock
from typing import Any

from jobs.scripts import Argument, Scripts

MOST_AT_ONCE = 256


class _Call:
    """One thread's call, and what came of it."""

    __slots__ = ("answer", "arguments", "is_done")

    def __init__(self, arguments: tuple[Argument, ...]) -> None:
        self.arguments = arguments
        self.is_done = False
        self.answer: Any = None


class Combined:
    """One script. Whoever gets the lock sends the calls of all who wait for it; when they get it, theirs are done."""

    def __init__(self, scripts: Scripts, name: str) -> None:
        self._scripts = scripts
        self._name = name
        self._lock = Lock()
        self._waiting: deque[_Call] = deque()

    def call(self, *arguments: Argument) -> Any:  # noqa: ANN401 - what a script returns is its own affair
        """Runs the script once; raises StoreAway or StoreFull, which the calls of others do not suffer from."""
        own = _Call(arguments)
        self._waiting.append(own)
        with self._lock:
            while not own.is_done:
                self._send()
        if isinstance(own.answer, BaseException):
            raise own.answer
        return own.answer

    def _send(self) -> None:
        calls = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
        try:
            answers = self._scripts.call_each(self._name, [call.arguments for call in calls])
        except BaseException as error:  # whatever it is, those who wait must not wait for ever
            answers = [error] * len(calls)
        for call, answer in zip(calls, answers, strict=True):
            call.answer, call.is_done = answer, True
