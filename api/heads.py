"""Requests whose head does not come to its end: each would hold a thread for ever, for the server has no limit."""

import contextlib
import socket
from collections.abc import Iterator
from threading import Event, Lock, Thread
from time import monotonic


class Heads:
    """Gives up the connections on which a request's head takes longer than so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began: dict[socket.socket, float] = {}
        self._lock = Lock()
        self._watcher: Thread | None = None
        self._stopped = Event()

    @contextlib.contextmanager
    def reading(self, connection: socket.socket) -> Iterator[None]:
        """A thread waits for the head of a request on this connection, until the block ends or `read` says so."""
        if self._watcher is None:
            self._start()
        self._began[connection] = monotonic()
        try:
            yield
        finally:
            self.read(connection)

    def read(self, connection: socket.socket) -> None:
        """The head is there."""
        self._began.pop(connection, None)

    def stop(self) -> None:
        """Watches no more."""
        self._stopped.set()

    def _start(self) -> None:
        with self._lock:
            if self._watcher is None:
                watcher = Thread(target=self._watch, name="heads", daemon=True)
                with contextlib.suppress(RuntimeError):  # no more threads at this moment: the next request tries again
                    watcher.start()
                    self._watcher = watcher

    def _watch(self) -> None:
        while not self._stopped.wait(self._seconds / 10):
            late = monotonic() - self._seconds
            for connection, began in self._began.copy().items():
                if began < late:
                    # Whoever reads from it finds that the client sends nothing more, and closes it.
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RD)
