"""What a predictor is at, for how long, and with how much memory: the parent's judgement of it."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Literal

from worker.memory import GROWN_TIMES, resident_bytes

Reason = Literal["crashed", "timeout", "out_of_memory"]

START_SECONDS = 60.0  # what a predictor may take to say what it does: starting it on a busy machine is the longest
LOOK_SECONDS = 0.25  # between two looks at its memory
# A parent that did not look for so long was stopped, or busy elsewhere: it cannot tell whose time went by.
BLIND_SECONDS = 1.0
# A step that runs over its time while its memory grew so much would have ended for want of memory: to predict some rows
# takes some megabytes.
SWOLLEN_BYTES = 128 * 1024 * 1024
LEAK_SHARE = 0.8  # of its limit: a predictor that takes more, and has grown, leaks


@dataclass(frozen=True, slots=True)
class Doing:
    """The step that a predictor is at: rows `start` to `stop` of what question `number` asks for."""

    number: int
    stage: str  # "load", "read", "predict", "write" or "singles"
    start: int
    stop: int


Limit = Callable[[Doing], float]


class Guard:
    """Hears what one predictor does, and says when it must end."""

    def __init__(self, memory_bytes: int) -> None:
        self.pid: int | None = None
        self.doing: Doing | None = None
        self._memory_bytes = memory_bytes
        self._limits: dict[int, Limit] = {}  # of the questions that it has not answered
        self._since = self._looked_at = monotonic()
        self._measured_at = 0.0
        self._resident = 0
        self._resident_at_step = 0
        self._resident_at_first = 0  # after its first answer

    @property
    def is_idle(self) -> bool:
        """Whether it has answered all that it was asked."""
        return not self._limits

    @property
    def leaks(self) -> bool:
        """Whether it has come near its limit by taking more and more."""
        resident = self._measure()
        return resident > LEAK_SHARE * self._memory_bytes and 0 < self._resident_at_first * GROWN_TIMES < resident

    @property
    def has_swollen(self) -> bool:
        """Whether its memory, when last looked at, had grown during its present step as nothing should."""
        return self._resident_at_step > 0 and self._resident - self._resident_at_step > SWOLLEN_BYTES

    def asked(self, number: int, limit: Limit) -> None:
        """It was asked something; `limit` says how many seconds a step of that may take."""
        if self.is_idle:
            self._since = self._looked_at = monotonic()
        self._limits[number] = limit

    def began(self, doing: Doing) -> None:
        """It has said what it does now."""
        self.doing = doing
        self._since = monotonic()
        # The lesser of two looks: when this is heard late, the step may have taken its memory already.
        before = self._resident
        self._measure_now_and_then()
        self._resident_at_step = min(before or self._resident, self._resident)

    def answered(self, number: int) -> None:
        """It has answered a question."""
        self._limits.pop(number, None)
        if self.doing and self.doing.number == number:
            self.doing = None
        self._since = monotonic()
        self._resident_at_first = self._resident_at_first or self._measure()

    def look(self) -> Reason | None:
        """Why it must end, if it must. To be called often, and only when all that it has said was heard."""
        now = monotonic()
        if now - self._looked_at > BLIND_SECONDS:
            self._since = now
        self._looked_at = now
        self._measure_now_and_then()
        if self._resident > self._memory_bytes:
            return "out_of_memory"
        if self.is_idle or now - self._since <= self._allowed():
            return None
        self._measure()
        return "out_of_memory" if self.has_swollen else "timeout"

    def _allowed(self) -> float:
        limit = self._limits.get(self.doing.number) if self.doing else None
        return limit(self.doing) if limit and self.doing else START_SECONDS

    def _measure_now_and_then(self) -> None:
        if monotonic() - self._measured_at >= LOOK_SECONDS:
            self._measure()

    def _measure(self) -> int:
        self._measured_at = monotonic()
        self._resident = resident_bytes(self.pid) if self.pid else 0
        # The first steps of a new predictor may be heard of before its pid is: then the first look has to do.
        self._resident_at_step = self._resident_at_step or self._resident
        return self._resident
