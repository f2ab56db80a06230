"""Queuecast on one machine: a store, the web process and workers, started, watched and stopped together."""

import http.client
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from local_store import LocalStore, StoreError
from process import ROOT, Process
from reaper import Reaper

import settings

# Where the stacks of this checkout keep what they write.
FOLDER = ROOT / ".queuecast"
# Together below ten seconds; killing takes no time.
_WORK_END_SECONDS = 7.0
_STORE_END_SECONDS = 2.0
# A worker that dies again and again must not keep the machine busy with starting it.
_RESTART_SECONDS = 2.0
BACKLOG = 2048  # as gunicorn has it: clients that come at the same moment


class StackError(Exception):
    """Raised when a part of the stack cannot be started or has died; carries the part's last lines."""


class Interrupted(Exception):
    """Raised when the stack was asked to stop while it was starting."""


class Stack:
    """A stack in a directory; `start` returns when it takes work, `stop` leaves no process behind."""

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 2,
        ports: Sequence[int] = (0,),
        redis_url: str | None = None,
        store_program: Path | None = None,
        environment: Mapping[str, str] | None = None,
        lock: int | None = None,
        show: Callable[[str, str], None] | None = None,
        interrupted: threading.Event | None = None,
        reach: Callable[[LocalStore], str] | None = None,
    ) -> None:
        """`ports` are tried in turn, 0 is any free one; without `redis_url` the stack has a store of its own.

        `reach` gives the URL by which the web process and the workers reach that store, if not by its own.
        """
        self.directory = directory
        self.port = 0
        self.logs = directory / "logs"
        self.workers: list[Process] = []
        self.web: Process | None = None
        self.store: LocalStore | None = None
        self._wanted_workers = workers
        self._ports = ports
        self._redis_url = redis_url
        self._store_program = store_program
        self._environment = dict(environment or {})
        self._lock = lock
        self._show = show
        self._reach = reach
        self._reached_url: str | None = None
        self._interrupted = interrupted or threading.Event()
        self._started_at: dict[str, float] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def redis_url(self) -> str:
        if self._redis_url is None:
            assert self.store is not None, "not started"  # noqa: S101
            return self.store.url
        return self._redis_url

    def start(self, seconds: float = 60) -> "Stack":
        """Returns when /readyz says so and all workers are there; raises StackError, or Interrupted, stopped again."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self._reaper = Reaper()
        try:
            self._start_parts()
            self._wait_until_ready(time.monotonic() + seconds)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends everything within ten seconds; work that is unfinished is handed back first."""
        parts = [part for part in (self.web, *self.workers) if part]
        for part in parts:
            part.signal(signal.SIGTERM)
        deadline = time.monotonic() + _WORK_END_SECONDS
        for part in parts:
            part.end(deadline - time.monotonic())
        # Last, for the others write to it until they end.
        if self.store:
            self.store.process.signal(signal.SIGTERM)
            self.store.process.end(_STORE_END_SECONDS)
        self._reaper.close()

    def start_web(self) -> None:
        """Starts the web process; after it has died, on the port that it had."""
        with _listener(self._ports) as listener:
            self.port = listener.getsockname()[1]
            self._ports = (self.port,)
            # It inherits the listening socket: a port that was found free cannot be lost to another program.
            bind = f"--bind=fd://{listener.fileno()}"
            command = ["-m", "gunicorn", "--config", "gunicorn.conf.py", bind, "api.app:create_app()"]
            self.web = self._python("web", command, descriptors=(listener.fileno(),))

    def start_worker(self, **environment: str) -> Process:
        """Starts one more worker, with these changes of its environment, and does not wait for it."""
        worker = self._start_worker(f"worker-{len(self.workers) + 1}", environment)
        self.workers.append(worker)
        return worker

    def kill(self, worker: Process) -> None:
        """`kill -9` of the worker with everything in its group; it is no longer one of the stack's."""
        worker.signal_group(signal.SIGKILL)
        worker.end()
        self.workers.remove(worker)

    def check(self) -> None:
        """Starts workers anew that have died, and says so; raises StackError when another part has."""
        for part in (self.web, self.store and self.store.process):
            if part and not part.is_alive:
                raise _death(part)
        for place, worker in enumerate(self.workers):
            rested = time.monotonic() - self._started_at[worker.name] > _RESTART_SECONDS
            if not worker.is_alive and rested:
                self._say(f"{worker.name} ended with {_exit(worker)}; starting it anew")
                worker.end()
                self.workers[place] = self._start_worker(worker.name)

    def _start_parts(self) -> None:
        if self._redis_url is None:
            self._start_store()
        self.start_web()
        for _ in range(self._wanted_workers):
            self.start_worker()

    def _start_store(self) -> None:
        try:
            self.store = LocalStore(
                self.directory / "store",
                self._reaper,
                log=self.logs / "store.log",
                program=self._store_program,
                lock=self._lock,
            )
        except StoreError as error:
            raise StackError(str(error)) from error
        if self._reach:
            self._reached_url = self._reach(self.store)

    def _start_worker(self, name: str, changes: Mapping[str, str] | None = None) -> Process:
        self._started_at[name] = time.monotonic()
        return self._python(name, ["-m", "worker"], changes=changes)

    def _python(
        self,
        name: str,
        arguments: Sequence[str],
        descriptors: Sequence[int] = (),
        changes: Mapping[str, str] | None = None,
    ) -> Process:
        # Unbuffered, or what a program says comes when it is long past.
        reached = {"PYTHONUNBUFFERED": "1", "REDIS_URL": self._reached_url or self.redis_url}
        return Process(
            name,
            [sys.executable, *arguments],
            self._reaper,
            environment=settings.inherited(**{**reached, **self._environment, **(changes or {})}),
            log=self.logs / f"{name}.log",
            show=self._show,
            descriptors=descriptors,
        )

    def _wait_until_ready(self, deadline: float) -> None:
        while not self._is_ready():
            for part in (self.web, *self.workers, self.store and self.store.process):
                if part and not part.is_alive:
                    raise _death(part)
            if time.monotonic() > deadline:
                raise StackError(f"The stack does not get ready. {self._missing()} The logs are in {self.logs}.")
            if self._interrupted.wait(0.05):
                raise Interrupted

    def _is_ready(self) -> bool:
        return self._get("/readyz")[0] == http.client.OK and self._workers_announced() >= len(self.workers)

    def _missing(self) -> str:
        status, body = self._get("/readyz")
        if status != http.client.OK:
            return f"GET /readyz answers {status or 'nothing'}: {body.decode(errors='replace')[:500]}"
        return f"{self._workers_announced()} of {len(self.workers)} workers are there."

    def _workers_announced(self) -> int:
        status, body = self._get("/queue")
        if status != http.client.OK:
            return 0
        workers = json.loads(body)["workers"]
        return int(workers["busy"]) + int(workers["idle"])

    def _get(self, path: str) -> tuple[int, bytes]:
        """The status, 0 when there was no answer, and the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def _say(self, line: str) -> None:
        if self._show:
            self._show("stack", line)


def _listener(ports: Sequence[int]) -> socket.socket:
    """A socket that listens on the first of `ports` that is free."""
    for port in ports:
        try:
            return socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        except OSError:
            continue
    raise StackError(f"Port {ports[-1]} on 127.0.0.1 is taken: name another with --port, or leave it out.")


def _death(part: Process) -> StackError:
    return StackError(f"{part.name} ended with {_exit(part)}. Its last lines, from {part.log}:\n{part.last_lines()}")


def _exit(part: Process) -> str:
    code = part.exit_code or 0
    return f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"


def interrupted_by_signals() -> threading.Event:
    """Is set by Ctrl-C, SIGTERM and a closing terminal, which then end nothing by themselves."""
    event = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: event.set())
    return event
