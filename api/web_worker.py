"""gunicorn's threaded worker, with a fast lane, problem documents, and an end that answers those who wait."""

import contextlib
import selectors
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from socket import MSG_DONTWAIT, SHUT_RDWR, socket
from time import monotonic, sleep, time

from gunicorn import SERVER
from gunicorn.util import http_date
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

import settings
from api import capacity
from api.context import EXTENSION, Api
from api.heads import Heads
from api.lane import Lane, LaneRequest, Plain
from api.plain import Incomplete, PlainRequests, Unusual
from api.server_errors import ProblemErrors

QUIT_SECONDS = 1.0  # for what is just being accepted
NOTIFY_SECONDS = 1.0  # far below gunicorn.conf.py's timeout
TICK_SECONDS = 0.25  # how often the lane looks for what takes long
BEGUN_SECONDS = 1.0  # after that a request of which only a part has come is given a thread
READ_BYTES = 64 * 1024


class Threads(ThreadPoolExecutor):
    """Goes on with the threads that it has when the system allows no more: gunicorn's own would end the process."""

    def __init__(self, most: int, on_short: Callable[[int], None]) -> None:
        """`on_short` is told how many there are when there can be no more."""
        super().__init__(max_workers=most)
        self._on_short = on_short

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if not self._threads:
                raise
            self._on_short(len(self._threads))


class Parked:
    """A connection whose request is in the lane, and the request's bytes in case that the app has to read them."""

    __slots__ = ("connection", "is_unwatched", "received")

    def __init__(self, connection: TConn, received: bytes) -> None:
        self.connection = connection
        self.received = received
        self.is_unwatched = False


class Worker(ProblemErrors, ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """gunicorn's threaded worker; requests of its fast lane take no thread while they wait.

    Any thread may call `answer` and `give_back`, the threads of requests call `handle` and `handle_request`; everything
    else is the main thread's.
    """

    notified_at = 0.0

    def load_wsgi(self) -> None:
        """Loads the app; no more requests may wait than leaves threads free, however many gunicorn was given."""
        super().load_wsgi()
        self.api: Api = self.wsgi.extensions[EXTENSION]
        self.limit_seats(self.cfg.threads)
        self.lane = Lane(self.api, self.answer, self.give_back)
        self.plain = PlainRequests(self.cfg, self.lane.most_body_bytes)
        self.parked: dict[TConn, Parked] = {}
        self.begun: dict[TConn, tuple[bytes, float]] = {}
        self.entered: list[LaneRequest] = []
        self.returning: deque[LaneRequest] = deque()
        self.ticked_at = 0.0
        # Of what the lane answers nothing is logged or counted, and TLS needs a thread that may wait.
        self.has_lane = not (self.cfg.is_ssl or self.log.access_log_enabled or self.cfg.statsd_host)

    def limit_seats(self, threads: int) -> None:
        """There are so many threads."""
        self.api.seats.limit(capacity.seats(threads))

    def handle_exit(self, sig: int, frame: object) -> None:
        """SIGTERM: requests that wait are answered with what there is, and streams end; clients come again."""
        self.let_go()
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: object) -> None:
        """SIGINT and SIGQUIT: the same; as the main thread ends here, what the lane gives back gets threads at once."""
        self.let_go()
        until = monotonic() + QUIT_SECONDS
        while self.booted and (self.returning or not self.lane.is_empty) and monotonic() < until:
            self.see_to_lane()
            sleep(0.01)
        super().handle_quit(sig, frame)

    def let_go(self) -> None:
        """Wakes all who wait."""
        if self.booted:  # before that nobody waits, and there is no app
            self.api.news.close()

    def get_thread_pool(self) -> Threads:
        """The threads that requests run in."""
        self.heads = Heads(settings.load().body_idle_seconds)
        return Threads(self.cfg.threads, self.limit_seats)

    def handle(self, conn: TConn) -> object:
        """One request; clients that send its head too slowly are given up."""
        with self.heads.reading(conn.sock):
            return super().handle(conn)

    def handle_request(self, req: object, conn: TConn) -> object:
        """Called when the head has been read."""
        self.heads.read(conn.sock)
        return super().handle_request(req, conn)

    def finish_request(self, conn: TConn, fs: Future[object]) -> None:
        """Called when the thread of a request is done with its connection."""
        if conn.sock.fileno() < 0:  # closed by api/download.py: gunicorn would fail over it, and count it twice
            self.nr_conns -= 1
        else:
            super().finish_request(conn, fs)

    def notify(self) -> None:
        """Tells gunicorn's arbiter that the main thread lives: once a second, not with every turn."""
        if monotonic() - self.notified_at > NOTIFY_SECONDS:
            self.notified_at = monotonic()
            super().notify()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """One turn of the main thread: what has come in it enters the lane together."""
        is_busy = self.begun or not self.lane.is_empty
        super().wait_for_and_dispatch_events(min(timeout, TICK_SECONDS) if is_busy else timeout)
        # Not while events are worked off: there may be one of a connection that is given to a thread meanwhile.
        self.see_to_lane()
        if is_busy and monotonic() - self.ticked_at > TICK_SECONDS:
            self.ticked_at = monotonic()
            self.lane.give_late_back()
            self.give_begun_threads()

    def see_to_lane(self) -> None:
        """Gives threads to what comes back from the lane, and to the lane what has entered it."""
        while self.returning:
            self.take_back(self.returning.popleft())
        if self.entered:
            entered, self.entered = self.entered, []
            self.lane.take(entered)

    def on_client_socket_readable(self, conn: TConn, client: socket) -> None:
        """A connection that was kept open has something to read, or was closed by the client."""
        parked = self.parked.get(conn)
        if parked is not None:
            self.stop_watching(parked)
        elif not (self.has_lane and self.lane.is_open and self.alive) or conn.is_http2:
            self.to_thread(conn, self.begun.pop(conn, (b"", 0))[0])
        else:
            self.read(conn, client)

    def read(self, conn: TConn, client: socket) -> None:
        """Lets a plain request into the lane, and gives every other one a thread."""
        begun, began_at = self.begun.pop(conn, (b"", monotonic()))
        try:
            received = begun + client.recv(READ_BYTES)
            if len(received) == len(begun):
                raise Unusual  # it was closed: as ever, a thread finds out
            plain = self.plain.read(received)
        except BlockingIOError:
            if begun:
                self.begun[conn] = begun, began_at
        except OSError:
            self.to_thread(conn, begun)
        except Incomplete:
            self.begun[conn] = received, began_at
            self.keep(conn)  # it is not idle any more
        except Unusual:
            self.to_thread(conn, received)
        else:
            self.enter(conn, received, plain)

    def enter(self, conn: TConn, received: bytes, plain: Plain) -> None:
        """Lets a request into the lane, if there is a seat."""
        parked = Parked(conn, received)
        request = self.lane.enter(plain, parked)
        if request is None:
            self.to_thread(conn, received)
            return
        self.nr += 1
        self.has_lane = self.has_lane and self.nr < self.max_requests  # a thread starts the process anew
        self.parked[conn] = parked
        self.keep(conn)
        self.entered.append(request)

    def keep(self, conn: TConn) -> None:
        """Puts off the moment at which a kept connection is closed as idle; gunicorn has them in the order of that."""
        self.keepalived_conns.remove(conn)
        conn.set_timeout()
        if not self.alive:
            conn.timeout = min(conn.timeout, monotonic() + STOP_KEEPALIVE_LINGER)
        self.keepalived_conns.append(conn)

    def murder_keepalived(self, force: bool = False) -> None:
        """Closes connections that were idle for long; one whose request comes or waits is not idle."""
        kept = self.keepalived_conns
        if not force and kept and kept[0].timeout <= monotonic():
            for conn in [conn for conn in kept if conn in self.parked or conn in self.begun]:
                self.keep(conn)
        super().murder_keepalived(force)

    def answer(self, request: LaneRequest, headers: Mapping[str, str], body: bytes) -> None:
        """Sends a 200. What comes next is not looked at before that is done, or it might be answered first."""
        parked: Parked = request.origin
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        response = f"{_first_lines(int(time()))}{lines}\r\n".encode("latin-1") + body
        try:
            is_sent = parked.connection.sock.send(response, MSG_DONTWAIT) == len(response)
        except OSError:
            is_sent = False
        if not is_sent:  # the client went away, or reads no answers: the main thread sees a closed connection
            with contextlib.suppress(OSError):
                parked.connection.sock.shutdown(SHUT_RDWR)
        del self.parked[parked.connection]
        if parked.is_unwatched:
            self.method_queue.defer(self.watch, parked.connection)

    def give_back(self, request: LaneRequest) -> None:
        """Has the app see to a request."""
        self.returning.append(request)
        self.method_queue.defer(_nothing)

    def take_back(self, request: LaneRequest) -> None:
        """Gives a request of the lane a thread; the app is told what is known of it."""
        parked: Parked = request.origin
        del self.parked[parked.connection]
        self.nr -= 1  # it is counted again
        if parked.connection in self.keepalived_conns:
            self.api.given_back.put(parked.connection.sock, request.returned())
            self.to_thread(parked.connection, parked.received)
        else:  # the process ends, and has closed it
            self.api.seats.leave()

    def to_thread(self, conn: TConn, received: bytes) -> None:
        """The ordinary way: a thread reads the request from its beginning."""
        if self.is_watched(conn):
            self.poller.unregister(conn.sock)
        self.keepalived_conns.remove(conn)
        if received:
            conn.parser.unreader.unread(received)
        self.enqueue_req(conn)

    def give_begun_threads(self) -> None:
        """A thread waits for the rest of what began some time ago, and gives it up when that does not come."""
        early = monotonic() - BEGUN_SECONDS
        for conn in [conn for conn, (_, began_at) in self.begun.items() if began_at < early]:
            self.to_thread(conn, self.begun.pop(conn)[0])

    def stop_watching(self, parked: Parked) -> None:
        """The client sends more before it has its answer, or went away: that is looked at afterwards."""
        parked.is_unwatched = True
        self.poller.unregister(parked.connection.sock)
        if self.parked.get(parked.connection) is not parked:  # it has been answered meanwhile
            self.watch(parked.connection)

    def watch(self, conn: TConn) -> None:
        """Looks at a kept connection again, if it does not."""
        if conn in self.keepalived_conns and not self.is_watched(conn):
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn))

    def is_watched(self, conn: TConn) -> bool:
        """Whether the main thread hears of what comes on it."""
        return conn.sock.fileno() >= 0 and conn.sock in self.poller.get_map()


def _nothing() -> None:
    """What the main thread is woken with: it looks itself what there is to do."""


@lru_cache(maxsize=2)
def _first_lines(second: int) -> str:
    """The beginning of each answer, as the server writes it."""
    return f"HTTP/1.1 200 OK\r\nServer: {SERVER}\r\nDate: {http_date(second)}\r\nConnection: keep-alive\r\n"
