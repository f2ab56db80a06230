"""How gunicorn serves the API; it finds this file by itself when started in the project's folder."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gunicorn.workers.gthread import TConn, ThreadWorker

import settings
from api import capacity
from api.context import EXTENSION
from api.heads import Heads
from api.server_errors import ProblemErrors
from models.catalog import Catalog, ModelsError
from settings import BadSetting, Settings


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


class Worker(ProblemErrors, ThreadWorker):
    """gunicorn's threaded worker, answering in problem documents, and at its end also those who wait."""

    def load_wsgi(self) -> None:
        """Loads the app; no more requests may wait than leaves threads free, however many gunicorn was given."""
        super().load_wsgi()
        self.limit_seats(self.cfg.threads)

    def limit_seats(self, threads: int) -> None:
        """There are so many threads."""
        self.wsgi.extensions[EXTENSION].seats.limit(capacity.seats(threads))

    def handle_exit(self, sig: int, frame: object) -> None:
        """SIGTERM: requests that wait are answered with what there is, and streams end; clients come again."""
        self.let_go()
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: object) -> None:
        """SIGINT and SIGQUIT: the same."""
        self.let_go()
        super().handle_quit(sig, frame)

    def let_go(self) -> None:
        """Wakes all who wait."""
        if self.booted:  # before that nobody waits, and there is no app
            self.wsgi.extensions[EXTENSION].news.close()

    def get_thread_pool(self) -> Threads:
        """The threads that requests run in."""
        self.heads = Heads(checked().body_idle_seconds)
        return Threads(self.cfg.threads, self.limit_seats)

    def handle(self, conn: TConn) -> object:
        """One request; clients that send its head too slowly are given up."""
        with self.heads.reading(conn.sock):
            return super().handle(conn)

    def handle_request(self, req: object, conn: TConn) -> object:
        """Called when the head has been read."""
        self.heads.read(conn.sock)
        return super().handle_request(req, conn)


def checked() -> Settings:
    """The settings; here already, for each web process would only say the same, and with a traceback."""
    try:
        chosen = settings.load()
        Catalog.read(chosen.models_path, chosen.default_model)
    except (BadSetting, ModelsError) as error:
        sys.exit(f"the web process cannot start: {error}")
    return chosen


# gunicorn itself reads PORT, which hosts like Heroku set, and then binds 0.0.0.0:$PORT.
workers = checked().web_concurrency
# Threads, and problem documents for what gunicorn itself refuses.
worker_class = Worker
threads = capacity.threads(checked())
# Connections that are idle or only just begun hold no thread.
worker_connections = capacity.connections(threads)
# With many threads that each work for a moment, handing the interpreter's lock over every five milliseconds costs a
# third of the throughput; health checks take no longer.
sys.setswitchinterval(0.02)

# Only guards against a process whose main thread hangs: requests run in other threads and may take longer.
timeout = 60
# Below the 30 s that hosts leave between SIGTERM and SIGKILL.
graceful_timeout = 25
# Above the 90 s for which Heroku's router keeps an idle connection: the side that closes first must be the router,
# or it sends a request into a connection that is just being closed. An idle connection holds no thread.
keepalive = 100

# As much as a request for a job or a model ever needs; gunicorn's upper limit for the line is 8190 too.
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190

# Each process makes its own connections to the store.
preload_app = False
# gunicorn would open a socket for commands below the home directory.
control_socket_disable = True
accesslog = None
# The heartbeat file of each process is touched every second: keep it off slow disks.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 (gunicorn makes private files there)
