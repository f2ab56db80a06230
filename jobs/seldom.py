"""Doing something seldom, however often it is asked for."""

import math
import threading
from time import monotonic

MOST_NAMES = 1000  # that are remembered before those that are due again are forgotten


class Seldom:
    """Says of names whether they are due: each once in so many seconds. For many threads."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._noted: dict[str, float] = {}
        self._lock = threading.Lock()

    def is_due(self, name: str) -> bool:
        """True once; and again when the seconds are over."""
        now = monotonic()
        with self._lock:
            if now - self._noted.get(name, -math.inf) < self._seconds:
                return False
            if len(self._noted) >= MOST_NAMES:
                self._noted = {name: at for name, at in self._noted.items() if now - at < self._seconds}
            self._noted[name] = now
            return True
