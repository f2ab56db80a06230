"""Many clients of one process that each wait for a job; one selector, raw sockets, prepared requests."""

import heapq
import re
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

WAIT_SECONDS = 25
SINGLE = b'{"input": 7}'
RECEIVE_BYTES = 64 * 1024
TICK_SECONDS = 0.1
# For a stream that ends before its job has: what the server tells browsers.
STREAM_RETRY_SECONDS = 5
_LENGTH = re.compile(rb"(?im)^content-length: *(\d+)")
_RETRY_AFTER = re.compile(rb"(?im)^retry-after: *(\d+)")
_JOB = re.compile(rb"(?im)^(?:location: */jobs/|x-job-id: *)(\w+)")
# What a job says of itself while it has not ended.
_UNENDED = re.compile(rb'"ended_at": *null')


@dataclass
class Waiter:
    """One client: the job it waits for, and when (seconds since the epoch) it was told of the job's end."""

    connection: socket.socket
    job_id: str | None = None
    answered_at: float | None = None
    problem: str | None = None
    put_off: int = 0
    asked_at: float = 0.0
    received: bytearray = field(default_factory=bytearray)

    @property
    def is_done(self) -> bool:
        return self.answered_at is not None or self.problem is not None


class Crowd:
    """So many clients that wait in the same way: `predict`, `wait` or `events`; on one job if `job_id` is given."""

    def __init__(self, port: int, clients: int, way: str, job_id: str | None = None) -> None:
        self._port = port
        self._way = way
        self._selector = selectors.DefaultSelector()
        self._later: list[tuple[float, int, Waiter]] = []  # whom the server did not let wait, by when they come again
        self.waiters = [self._begun(job_id) for _ in range(clients)]

    @property
    def submitting(self) -> int:
        """How many have no job yet; those of `predict` learn of theirs with its result."""
        if self._way == "predict":
            return 0
        return sum(not waiter.job_id and not waiter.is_done for waiter in self.waiters)

    @property
    def waiting(self) -> int:
        """How many have not been told of their job's end."""
        return sum(not waiter.is_done for waiter in self.waiters)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Receives and goes on asking, until `until` says so or the time is over."""
        deadline = time.monotonic() + seconds
        while not until() and (left := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(min(left, TICK_SECONDS)):
                self._receive(key.data)
            while self._later and self._later[0][0] <= time.monotonic():
                self._come_again(heapq.heappop(self._later)[2])

    def close(self) -> None:
        """Hangs up."""
        self._selector.close()
        for waiter in self.waiters:
            waiter.connection.close()

    def _connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), timeout=30)

    def _begun(self, job_id: str | None) -> Waiter:
        waiter = Waiter(self._connected(), job_id)
        self._selector.register(waiter.connection, selectors.EVENT_READ, waiter)
        if job_id:
            self._ask(waiter)
        elif self._way == "predict":
            _send(waiter, "POST /predict", f"Prefer: wait={WAIT_SECONDS}", SINGLE)
        else:
            _send(waiter, "POST /jobs", "Accept: */*", SINGLE)
        return waiter

    def _ask(self, waiter: Waiter) -> None:
        if self._way == "events":
            _send(waiter, f"GET /jobs/{waiter.job_id}/events", "Accept: text/event-stream")
        else:
            _send(waiter, f"GET /jobs/{waiter.job_id}?wait={WAIT_SECONDS}", "Accept: */*")

    def _receive(self, waiter: Waiter) -> None:
        try:
            piece = waiter.connection.recv(RECEIVE_BYTES)
        except OSError as error:
            piece, waiter.problem = b"", str(error)
        waiter.received += piece
        if piece:
            self._read(waiter)
        else:
            waiter.problem = waiter.problem or "the connection was closed"
        if waiter.is_done:
            self._selector.unregister(waiter.connection)

    def _read(self, waiter: Waiter) -> None:
        head, end, body = bytes(waiter.received).partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end:
            return
        if not length:
            self._read_stream(waiter, body)
        elif len(body) >= int(length[1]):
            waiter.received.clear()
            self._take(waiter, int(head.split(maxsplit=2)[1]), head, body)

    def _read_stream(self, waiter: Waiter, body: bytes) -> None:
        """Server-sent events; each is sent as one piece."""
        if b"event: end" in body:
            waiter.answered_at = time.time()
        elif body.endswith(b"0\r\n\r\n"):
            self._put_off(waiter, STREAM_RETRY_SECONDS)

    def _take(self, waiter: Waiter, status: int, head: bytes, body: bytes) -> None:
        now = time.time()
        job = _JOB.search(head)
        if job:
            waiter.job_id = job[1].decode()
        if status == 202 or (status == 200 and _UNENDED.search(body)):
            self._ask_again(waiter, head)
        elif status == 200:
            waiter.answered_at = now
        else:
            waiter.problem = f"{status} {body[:200]!r}"

    def _ask_again(self, waiter: Waiter, head: bytes) -> None:
        """At once where the server held the answer, or had only to accept; else when it says."""
        retry_after = _RETRY_AFTER.search(head)
        asked_to_wait = self._way == "predict" or b"\nLocation:" not in head
        held = time.monotonic() - waiter.asked_at > WAIT_SECONDS / 2
        if asked_to_wait and not held and retry_after:
            self._put_off(waiter, int(retry_after[1]))
        elif b"\nConnection: close" in head:
            self._hang_up(waiter, 0)
        else:
            self._ask(waiter)

    def _put_off(self, waiter: Waiter, seconds: float) -> None:
        waiter.put_off += 1
        self._hang_up(waiter, seconds)

    def _hang_up(self, waiter: Waiter, seconds: float) -> None:
        """Comes again after so long, with a new connection."""
        self._selector.unregister(waiter.connection)
        waiter.connection.close()
        heapq.heappush(self._later, (time.monotonic() + seconds, id(waiter), waiter))

    def _come_again(self, waiter: Waiter) -> None:
        waiter.connection = self._connected()
        waiter.received.clear()
        self._selector.register(waiter.connection, selectors.EVENT_READ, waiter)
        self._ask(waiter)


def _send(waiter: Waiter, request: str, header: str, body: bytes = b"") -> None:
    waiter.asked_at = time.monotonic()
    head = f"{request} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    waiter.connection.sendall(f"{head}\r\n".encode() + body)
