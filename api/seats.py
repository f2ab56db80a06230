"""How many requests of this process may wait at once: so that some threads are always free to answer others."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Seats:
    """So many requests may wait; who finds no seat is answered at once with what there is."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken = 0
        self._lock = Lock()

    def limit(self, count: int) -> None:
        """There are no more than so many from here on; who has one keeps it."""
        with self._lock:
            self._count = min(self._count, count)

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Whether there was a seat; it is free again after the block."""
        with self._lock:
            seated = self._taken < self._count
            self._taken += seated
        try:
            yield seated
        finally:
            with self._lock:
                self._taken -= seated
