"""A store behind a proxy, web processes and workers: all real, each killed, frozen and started anew on demand."""

import contextlib
import http.client
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import redis
from local_store import LocalStore
from process import ROOT, Process
from reaper import Reaper

import settings
from tests.chaos import failpoints
from tests.proxy import Proxy
from tests.waiting import wait_until

TICKETS = "rq:queue:queuecast"
START_SECONDS = 60
SETTINGS = {
    "WEB_CONCURRENCY": 2,
    # Interrupted uploads have to end within the run.
    "UPLOAD_DEADLINE_SECONDS": 10,
    "BODY_IDLE_SECONDS": 8,
    # As long as clients wait that say for how long (caller.py).
    "PREDICT_WAIT_SECONDS": 2,
    # A model that takes all it can get must not take it from everybody on this machine.
    "PREDICTOR_MEMORY_BYTES": 1 << 30,
}


class Cluster:
    """One store, one web server and some workers in a folder; whoever dies is started anew until the end.

    `journal` gets every start and end of a process. Processes that the harness did not end and that did not end
    themselves at a failpoint are noted as such: the product let them down.
    """

    def __init__(self, folder, models_path, journal, *, workers, seed, skewed=False, **changes):
        self.folder = Path(folder)
        self.models_path = models_path
        self.journal = journal
        self.traces = self.folder / "traces"
        self.logs = self.folder / "logs"
        self.workers = [None] * workers
        self.web = None
        self.store = None
        self._environment = {
            "MODELS_PATH": str(models_path),
            # Unpickling the zoo needs the package `tests`.
            "PYTHONPATH": str(ROOT),
            **{name: str(value) for name, value in {**SETTINGS, **changes}.items()},
        }
        self._seed = seed
        self._skewed = skewed
        self._lives = 0
        self._ending = threading.Event()
        self._ended_by_us = {}  # pid → the moment it was told to end or killed
        self._lock = threading.RLock()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        """Returns when everything is there and takes work."""
        for folder in (self.logs, self.traces):
            folder.mkdir(parents=True, exist_ok=True)
        self._reaper = Reaper()
        try:
            self.port = free_port()
            self.store = LocalStore(self.folder / "store", self._reaper, log=self.logs / "store.log")
            self.proxy = Proxy("127.0.0.1", self.store.port)
            self.start_web()
            for place in range(len(self.workers)):
                self.start_worker(place)
            wait_until(self._is_ready, START_SECONDS, "the cluster does not get ready")
        except BaseException:
            self.stop()
            raise
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()
        return self

    def stop(self):
        """Ends every process."""
        self._ending.set()
        if keeper := getattr(self, "_keeper", None):
            keeper.join()
        parts = [part for part in (self.web, *self.workers, self.store and self.store.process) if part]
        for part in parts:
            part.signal_group(signal.SIGCONT)
            part.end()
        if proxy := getattr(self, "proxy", None):
            proxy.close()
        self._reaper.close()

    def client(self, **options):
        """A client of the store that goes past the proxy; it does not wait long."""
        return redis.Redis.from_url(self.store.url, **{"socket_timeout": 3, "socket_connect_timeout": 1, **options})

    @property
    def password(self):
        """The store's, which nobody may be told."""
        return urlsplit(self.store.url).password

    # Starting

    def start_web(self):
        """Starts the web server on its port; orphans of the last one give it up within a second or two."""
        listener = wait_until(lambda: _listener(self.port), 30, f"port {self.port} is not given up")
        with listener:
            bind = f"--bind=fd://{listener.fileno()}"
            command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", bind]
            environment = self._with_failpoints("web")
            application = "tests.chaos.web:create_app()"
            self.web = self._process("web", [*command, application], environment, descriptors=[listener.fileno()])

    def start_worker(self, place):
        """Starts the worker of a place and does not wait for it."""
        skew = (0, 300, 0, -300)[self._lives % 4] if self._skewed else 0
        environment = self._with_failpoints("worker", skew)
        command = [sys.executable, "-m", "tests.chaos.worker"]
        self.workers[place] = self._process(f"worker-{place + 1}", command, environment)

    def _with_failpoints(self, role, skew=0):
        self._lives += 1
        url = self.store.url.replace(f":{self.store.port}/", f":{self.proxy.port}/")
        return {"REDIS_URL": url, **failpoints.environment(self.traces, role, f"{self._seed} {self._lives}", skew)}

    def _process(self, name, command, environment, **options):
        whole = settings.inherited(PYTHONUNBUFFERED="1", **self._environment, **environment)
        log = self.logs / f"{name}.log"
        process = Process(name, command, self._reaper, environment=whole, log=log, **options)
        self.journal.note("start", name=name, pid=process.pid)
        return process

    def _is_ready(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200 and len(self.announced()) >= len(self.workers)
        return False

    def announced(self):
        """The workers that say that they live."""
        with self.client() as client:
            return client.zrange("qc:workers", 0, -1)

    # Ending

    def kill(self, process, *, group=True):
        """`kill -9` of a process, with all that it has started or alone."""
        self._note_end(process.pid, f"{process.name} killed" + ("" if group else " alone"))
        (process.signal_group if group else process.signal)(signal.SIGKILL)

    def kill_child(self, process, pid):
        """`kill -9` of something that a process has started."""
        self.journal.note("child_death", pid=process.pid, child=pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def terminate(self, process, times=1, pause=0.1):
        """SIGTERM to all processes of a worker; waits for its end and notes how long that took."""
        began = time.monotonic()
        self.expect_end(process)
        for _ in range(times):
            process.signal_group(signal.SIGTERM)
            time.sleep(pause)
        process.wait(30)
        self.journal.note(
            "terminated", pid=process.pid, times=times, seconds=time.monotonic() - began, code=process.exit_code
        )

    def expect_end(self, process):
        """Its end from here on is what the harness wants."""
        self._ended_by_us[process.pid] = time.time()

    def kill_store(self):
        """`kill -9` of the store."""
        self.store.process.end()

    def start_store(self):
        """Starts the store again where it was, with what its folder holds."""
        self.store.restart()

    def empty_store(self):
        """Erases what the store has on disk; it does not run meanwhile."""
        for file in (self.folder / "store").rglob("*"):
            if file.is_file():
                file.unlink()

    def _note_end(self, pid, what):
        self._ended_by_us[pid] = time.time()
        self.journal.note("death", pid=pid, what=what)

    def _keep(self):
        """Starts anew whoever has died; the store's end is always ours, and so is its start."""
        while not self._ending.wait(0.2):
            with self._lock:
                if not self.web.is_alive:
                    self._bury(self.web)
                    self.start_web()
                for place, worker in enumerate(self.workers):
                    if not worker.is_alive:
                        self._bury(worker)
                        self.start_worker(place)

    def _bury(self, process):
        wanted = process.pid in self._ended_by_us or self._died_at_failpoint(process.pid)
        self.journal.note("exit", name=process.name, pid=process.pid, code=process.exit_code, wanted=wanted)
        if not wanted:
            self.journal.note("death", pid=process.pid, what=f"{process.name} ended by itself")
        process.end()

    def _died_at_failpoint(self, pid):
        traces = [self.traces / f"{role}-{pid}.jsonl" for role in ("worker", "web")]
        return any('"kind": "death"' in trace.read_text() for trace in traces if trace.exists())


def descendants(pid):
    """The processes that a process has started, and those that they have, parents first."""
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:  # it is gone, or is just going
        return []
    return [pid for child in children for pid in (child, *descendants(child))]


def is_running(pid):
    """Whether it is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def resident_bytes(pid):
    """The memory that a process has in use; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def free_port():
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def _listener(port):
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return None
