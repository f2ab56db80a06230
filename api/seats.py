"""How many requests of this process may wait at once: so that some threads are always free to answer others."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore


class Seats:
    """So many requests may wait; who finds no seat is answered at once with what there is."""

    def __init__(self, count: int) -> None:
        self._free = BoundedSemaphore(count)

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Whether there was a seat; it is free again after the block."""
        if not self._free.acquire(blocking=False):
            yield False
            return
        try:
            yield True
        finally:
            self._free.release()
