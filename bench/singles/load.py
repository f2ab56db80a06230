"""Clients in a closed loop, each asking again as soon as it has its answer: `python -m bench.singles.load ORDER`.

One process and one thread, whatever the number of clients, and the same for every server: raw connections, requests
made ready beforehand, of the answers no more read than is needed. Prints the moment and the seconds of each answer as
JSON. It ends when the order says so, or when its input closes. Nothing but the standard library.
"""

import gc
import heapq
import json
import math
import os
import select
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.singles.ways import WAYS, Pause, Reply, Steps, Unexpected

CHECKED_EVERY = 16  # answers
RELATIVE_ERROR = 1e-12
READ_BYTES = 64 * 1024
ANSWER_SECONDS = 30  # whoever says nothing to anybody for so long will not say anything any more
AGAIN_SECONDS = 0.05  # after an error


@dataclass(frozen=True, slots=True)
class Order:
    """What to do: how many clients ask, in which way, for how long or how often, with which pause after each answer.

    `inputs` is a JSON file of rows, each with its prediction.
    """

    url: str
    way: str
    inputs: str
    clients: int
    seconds: float | None = None
    requests: int | None = None
    pause_seconds: float = 0


class Load:
    """All clients of one order."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.way = WAYS[order.way](order.url)
        pairs = json.loads(Path(order.inputs).read_text())
        rows = [row for row, _ in pairs]
        self.requests = [self.way.request(rows, place) for place in range(len(rows))]
        self.expected: list[float] = [prediction for _, prediction in pairs]
        self.answers: list[tuple[float, float]] = []
        self.errors: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.poll = select.epoll()
        # Pauses: until when, a number that decides between equal ones, and whose.
        self.pauses: list[tuple[float, int, Client]] = []
        self.waiting = 0  # clients that have asked for something that has not come to its end
        self._asked = 0
        self._clients: dict[int, Client] = {}
        self._ends_at = math.inf

    def run(self) -> dict[str, Any]:
        """Asks until it is over, and says what came of it."""
        self.poll.register(sys.stdin.fileno(), select.EPOLLIN)
        self._began = self.heard_at = time.monotonic()
        if self.order.seconds is not None:
            self._ends_at = self._began + self.order.seconds
        for _ in range(self.order.clients):
            Client(self).begin()
        while self._is_busy():
            self._turn()
        shift = time.time() - time.monotonic()
        return {
            "began_at": self._began + shift,
            "answers": [(round(at + shift, 6), round(seconds, 6)) for at, seconds in self.answers],
            "errors": dict(self.errors),
            "wrong": self.wrong,
        }

    def next_place(self) -> int | None:
        """Which row to ask for next; None when it is over."""
        most = self.order.requests
        if time.monotonic() >= self._ends_at or (most is not None and self._asked >= most):
            return None
        self._asked += 1
        return self._asked % len(self.requests)

    def note(self, place: int, began: float, found: bytes) -> None:
        """An answer has come; every sixteenth is compared with what the model itself predicts."""
        now = time.monotonic()
        self.answers.append((now, now - began))
        if len(self.answers) % CHECKED_EVERY == 1:
            prediction, wanted = self.way.prediction(found), self.expected[place]
            if prediction is not None and not math.isclose(prediction, wanted, rel_tol=RELATIVE_ERROR):
                self.wrong.append(f"{prediction!r} instead of {wanted!r}")

    def pause(self, client: "Client", seconds: float) -> None:
        heapq.heappush(self.pauses, (time.monotonic() + seconds, id(client), client))

    def joined(self, client: "Client", fd: int) -> None:
        self._clients[fd] = client
        self.poll.register(fd, select.EPOLLIN)

    def left(self, fd: int) -> None:
        self._clients.pop(fd, None)

    def _is_busy(self) -> bool:
        if self.waiting and time.monotonic() > self.heard_at + ANSWER_SECONDS:
            self.errors["no answer"] += self.waiting
            return False
        return bool(self.waiting or self.pauses)

    def _turn(self) -> None:
        """One look at who has an answer, and whose pause is over."""
        now = time.monotonic()
        until = min(self.pauses[0][0] if self.pauses else math.inf, self._ends_at if self._ends_at > now else math.inf)
        for fd, _ in self.poll.poll(min(max(until - now, 0), 1)):
            if fd in self._clients:
                self._clients[fd].read()
            elif fd == sys.stdin.fileno() and not os.read(fd, READ_BYTES):
                self.poll.unregister(fd)
                self._ends_at = min(self._ends_at, time.monotonic())
        now = time.monotonic()
        while self.pauses and self.pauses[0][0] <= now:
            heapq.heappop(self.pauses)[2].resume()


class Client:
    """One connection, and what is asked on it at the moment."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._address = urlsplit(load.order.url)
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._steps: Steps | None = None
        self._is_owed = False

    def begin(self) -> None:
        """Asks for the next row, if there is still one to ask for."""
        place = self._load.next_place()
        if place is None:
            return
        self._load.waiting += 1
        self._place, self._began = place, time.monotonic()
        self._steps = self._load.way.steps(self._load.requests[place])
        self._go_on(None)

    def resume(self) -> None:
        """Goes on after a pause."""
        if self._steps is None:
            self.begin()
        else:
            self._go_on(None)

    def read(self) -> None:
        """Takes what has come; an answer that is whole leads to the next step."""
        assert self._socket is not None
        try:
            received = self._socket.recv(READ_BYTES)
        except OSError:
            received = b""
        if not received:
            self._closed()
            return
        self._load.heard_at = time.monotonic()
        self._buffer += received
        reply = self._whole()
        if reply is not None:
            self._go_on(reply)

    def _closed(self) -> None:
        """The server closed the connection: an error only while it owes an answer."""
        if self._steps is not None and self._is_owed:
            self._failed("connection closed")
        self._disconnect()

    def _whole(self) -> Reply | None:
        """The answer, once all of it is there."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        reply = Reply(int(self._buffer[9:12]), self._buffer[:end], b"")
        try:
            length = int(reply.header(b"content-length"))
        except ValueError:
            self._failed("no Content-Length")
            return None
        if len(self._buffer) < end + 4 + length:
            return None
        body = self._buffer[end + 4 : end + 4 + length]
        self._buffer, self._is_owed = b"", False
        if b"\r\nconnection: close" in reply.head.lower():
            self._disconnect()
        return Reply(reply.status, reply.head, body)

    def _go_on(self, reply: Reply | None) -> None:
        assert self._steps is not None
        try:
            # A generator takes nothing else for its first step, and nothing of interest after a pause.
            step = next(self._steps) if reply is None else self._steps.send(reply)
        except StopIteration as done:
            self._done(done.value)
            return
        except Unexpected as error:
            self._failed(str(error))
            return
        if isinstance(step, Pause):
            self._load.pause(self, step.seconds)
        else:
            self._send(step)

    def _done(self, found: bytes) -> None:
        try:
            self._load.note(self._place, self._began, found)
        except Unexpected as error:
            self._failed(str(error))
            return
        self._rest()
        if self._load.order.pause_seconds:
            self._load.pause(self, self._load.order.pause_seconds)
        else:
            self.begin()

    def _send(self, request: bytes) -> None:
        try:
            if self._socket is None:
                self._connect()
            assert self._socket is not None
            self._is_owed = True
            self._socket.sendall(request)
        except OSError as error:
            self._failed(type(error).__name__)

    def _failed(self, reason: str) -> None:
        self._load.errors[reason] += 1
        self._rest()
        self._disconnect()
        self._load.pause(self, AGAIN_SECONDS)

    def _rest(self) -> None:
        """Nothing is asked any more, for the moment."""
        self._steps = None
        self._load.waiting -= 1

    def _connect(self) -> None:
        connection = socket.create_connection((self._address.hostname, self._address.port), timeout=ANSWER_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket, self._buffer, self._is_owed = connection, b"", False
        self._load.joined(self, connection.fileno())

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._load.left(self._socket.fileno())
            self._socket.close()
            self._socket = None


def main() -> None:
    load = Load(Order(**json.loads(sys.argv[1])))
    # Nothing here is thrown away that only a collection would find, and one would show as a late answer.
    gc.disable()
    json.dump(load.run(), sys.stdout)


if __name__ == "__main__":
    main()
