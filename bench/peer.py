"""A peer, seen from the process that measures: started in its own environment, given orders, ended for certain."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import redis

import settings
from bench.environments import PEERS, environment
from bench.processes import children_of_all, started_at, tree
from bench.surroundings import LocalStore, Reaper

START_SECONDS = 120
ORDER_SECONDS = 300
END_SECONDS = 30


class PeerFailed(Exception):
    """Raised when a peer does not start, does not answer in time or fails; carries its last words."""


@dataclass(frozen=True)
class Peer:
    """One that is measured beside us: its name, what the table calls it, whether it needs a Redis.

    Its script, and the requirements of its environment, have its name too, unless others are given.
    """

    name: str
    label: str
    needs_store: bool = False
    linear_only: bool = False
    joins: bool = False
    script: str = ""
    environment: str = ""


PEERS_BY_NAME = {
    peer.name: peer
    for peer in (
        Peer("naive_pandas", "naive pandas script, one process, no queue", joins=True),
        Peer("pyarrow_stream", "pyarrow streaming script, 2 threads, no queue", joins=True),
        Peer("polars_whole", "polars, 2 threads, whole file in memory", joins=True),
        Peer("rq_tutorial", "tutorial style: Flask upload, one RQ job with the bytes", needs_store=True),
        Peer("celery_chord", "Celery chord over 100 chunks, 2 processes, warm", needs_store=True),
        Peer("ray_data", "Ray Data, cluster already up, warm"),
        Peer("dask_processes", "Dask, 2 processes, warm"),
        Peer("bentoml_task", "BentoML task, file handed over on the same disk"),
    )
}


class RunningPeer:
    """A peer that takes orders while the block lasts; `said` is the line by which it said that it is ready."""

    def __init__(self, peer: Peer, *arguments: str) -> None:
        """The script gets the arguments. Raises CannotInstall."""
        self.peer = peer
        self.python = environment(peer.environment or peer.name)
        self._arguments = arguments

    def __enter__(self) -> "RunningPeer":
        self.folder = tempfile.TemporaryDirectory(prefix=f"bench-{self.peer.name}-", ignore_cleanup_errors=True)
        self._reaper = Reaper()
        self._log = Path(self.folder.name, "log")
        self._store = self._start_store() if self.peer.needs_store else None
        self._process = self._start()
        self._reaper.add(self._process.pid)
        try:
            self.said = self._line(START_SECONDS).decode().strip()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def perform(self, model: Path, table: Path, output: Path, keep: str) -> dict[str, Any]:
        """The seconds and rows of one order; raises PeerFailed."""
        return self.ask({"model": str(model), "table": str(table), "output": str(output), "keep": keep})

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """What the peer answers to an order of any kind; raises PeerFailed."""
        self._input.write(json.dumps(order).encode() + b"\n")
        self._input.flush()
        found: dict[str, Any] = json.loads(self._line(ORDER_SECONDS))
        return found

    def store_peak(self) -> float | None:
        """The most memory its Redis has taken since its start, in MB."""
        if self._store is None:
            return None
        with redis.Redis.from_url(self._store.url) as client:
            return round(float(client.info("memory")["used_memory_peak"]) / 1e6, 1)

    def _start_store(self) -> LocalStore:
        folder = Path(self.folder.name)
        return LocalStore(folder / "store", self._reaper, log=folder / "store.log")

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                [self.python, PEERS / f"{self.peer.script or self.peer.name}.py", *self._arguments],
                cwd=self.folder.name,
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                start_new_session=True,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        self._input: IO[bytes] = process.stdin
        self._output: IO[bytes] = process.stdout
        return process

    def _environment(self) -> dict[str, str]:
        return settings.inherited(
            # Nobody calls home from here, and nobody writes outside the folder.
            RAY_USAGE_STATS_ENABLED="0",
            BENTOML_DO_NOT_TRACK="1",
            BENTOML_HOME=f"{self.folder.name}/bentoml",
            REDIS_URL=self._store.url if self._store else "",
            PATH=f"{self.python.parent}{os.pathsep}{settings.inherited().get('PATH', os.defpath)}",
            PYTHONPATH=str(PEERS),
            PYTHONUNBUFFERED="1",
        )

    def _line(self, seconds: float) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise PeerFailed(f"{self.peer.name} did not answer within {seconds} s. {self._last_words()}")
        line = self._output.readline()
        if not line:
            raise PeerFailed(f"{self.peer.name} ended. {self._last_words()}")
        return line

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return "Its last words: " + " / ".join(lines[-3:])[:500]

    def _stop(self) -> None:
        """Ends it and everything that it has started, even in sessions of their own."""
        started = {pid: started_at(pid) for pid in tree(self._process.pid, children_of_all())}
        self._input.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{self.peer.name} does not end by itself", file=sys.stderr)
        for pid, moment in started.items():
            # The same number at another moment is somebody else's process.
            if moment is not None and started_at(pid) == moment:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()
        if self._store:
            self._store.process.end()
        self._reaper.close()
        self.folder.cleanup()
