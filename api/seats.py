"""How many requests of this process may wait at once: so that some threads are always free to answer others."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock


class Seats:
    """So many requests may wait; who finds no seat is answered at once with what there is."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken = 0
        # Requests leave their seats also while the handler of a signal runs, whose own thread may have the lock.
        self._lock = RLock()

    def limit(self, count: int) -> None:
        """There are no more than so many from here on; who has one keeps it."""
        with self._lock:
            self._count = min(self._count, count)

    def take(self) -> bool:
        """Whether there was a seat; who got one has to `leave` it."""
        with self._lock:
            seated = self._taken < self._count
            self._taken += seated
        return seated

    def leave(self) -> None:
        """One seat is free again."""
        with self._lock:
            self._taken -= 1

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Whether there was a seat; it is free again after the block."""
        seated = self.take()
        try:
            yield seated
        finally:
            if seated:
                self.leave()
