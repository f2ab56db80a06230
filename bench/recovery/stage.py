"""What is harmed: a stack with models of the zoo, a store that can be killed, and batches whose results are known."""

import csv
import http.client
import json
import os
import signal
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import redis

from bench.check import Wrong
from bench.client import Client
from bench.processes import children_of_all, tree
from bench.surroundings import LocalStore, Process, Reaper, Stack
from bench.work import ROOT
from jobs.keys import PREFIX, job_key
from tests.zoo.estimators import Animal, write

START_SECONDS = 60
STORE_END_SECONDS = 5
PAUSE_SECONDS = 0.01
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """A batch that was accepted: its path, and the value of the one feature in each row."""

    path: str
    values: Sequence[int]

    @property
    def job_id(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Held:
    """The last lease of a chunk: which worker took it, and when, in milliseconds by the store's clock."""

    worker: str
    started_at: int


class Stage:
    """A stack with a store of its own, while the block lasts."""

    def __init__(
        self, animals: Mapping[str, Animal], workers: int = 2, environment: Mapping[str, str] | None = None
    ) -> None:
        self._animals = animals
        self._workers = workers
        self._environment = dict(environment or {})

    def __enter__(self) -> "Stage":
        with ExitStack() as exits:
            folder = tempfile.TemporaryDirectory(prefix="bench-recovery-", ignore_cleanup_errors=True)
            self._folder = Path(exits.enter_context(folder))
            for name, animal in self._animals.items():
                write(self._folder / "models", name, animal)
            self.server = self._start_store(exits)
            self.store = exits.enter_context(redis.Redis.from_url(self.server.url, socket_timeout=30))
            self.stack = self._stack()
            self.stack.start(START_SECONDS)
            exits.callback(self.stack.stop)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def _start_store(self, exits: ExitStack) -> LocalStore:
        """One of our own, that the stack does not watch: it may die."""
        reaper = Reaper()
        exits.callback(reaper.close)
        server = LocalStore(self._folder / "store", reaper, log=self._folder / "store.log")
        # What is the process then: it may have been started anew.
        exits.callback(lambda: server.process.end(STORE_END_SECONDS))
        exits.callback(lambda: server.process.signal(signal.SIGTERM))
        return server

    def _stack(self) -> Stack:
        environment = {
            "MODELS_PATH": str(self._folder / "models"),
            "DEFAULT_MODEL": next(iter(self._animals)),
            # Unpickling the models needs the package `tests`.
            "PYTHONPATH": str(ROOT),
            **self._environment,
        }
        return Stack(self._folder / "stack", workers=self._workers, redis_url=self.server.url, environment=environment)

    def begin(self, model: str, values: Sequence[int]) -> Batch:
        """Sends a batch and returns when it was accepted."""
        body = self._folder / "body.csv"
        body.write_text("x\n" + "".join(f"{value}\n" for value in values))
        client = Client(self.stack.url)
        job = client.submit(body, f"model={model}&keep=none")
        client.close()
        return Batch(job["links"]["self"], values)

    def job(self, batch: Batch) -> dict[str, Any]:
        """The job as the API shows it; empty when that does not answer."""
        try:
            status, body = ask(self.stack.url, batch.path)
        except (OSError, http.client.HTTPException):
            return {}
        found: dict[str, Any] = json.loads(body)
        return found if status == http.client.OK else {}

    def ended(self, batch: Batch, seconds: float) -> dict[str, Any]:
        """The job once it has ended."""
        return wait_for(lambda: self._once_ended(batch), seconds, f"{batch.path} has not ended", pause=0.1)

    def _once_ended(self, batch: Batch) -> dict[str, Any] | None:
        job = self.job(batch)
        return job if job.get("ended_at") else None

    def wrong_rows(self, batch: Batch, codes: Mapping[int, str] | None = None) -> list[str]:
        """What is not as it must be in the results: `codes` has the error of the rows, by place, that must have one."""
        output = self._folder / "output.csv"
        client = Client(self.stack.url)
        client.download(f"{batch.path}/results", output)
        client.close()
        with output.open(newline="") as file:
            records = csv.reader(file)
            next(records)
            return list(_wrong(records, batch.values, codes or {}))

    def chunk_sizes(self, batch: Batch) -> list[int]:
        """How many rows each chunk of a batch has, in order."""
        rows = self.store.hgetall(job_key(batch.job_id, "rows"))
        return [int(rows[index]) for index in sorted(rows, key=int)]

    def now(self) -> int:
        """Milliseconds by the store's clock."""
        seconds, micros = self.store.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def leases(self, batch: Batch) -> dict[str, Held]:
        """The last lease of each chunk that is not done, by index."""
        values = self.store.hgetall(job_key(batch.job_id, "leases"))
        return {index.decode(): _held(value) for index, value in values.items()}

    def held_by(self, batch: Batch, worker: str) -> list[str]:
        """The chunks whose last lease is the worker's."""
        return [index for index, held in self.leases(batch).items() if held.worker == worker]

    def are_done(self, batch: Batch, indexes: Sequence[str]) -> dict[str, bool]:
        """Which chunks have been handed in."""
        found = self.store.hmget(job_key(batch.job_id, "done"), list(indexes))
        return {index: value is not None for index, value in zip(indexes, found, strict=True)}

    def chunks_done(self, batch: Batch) -> int:
        return int(self.store.hlen(job_key(batch.job_id, "done")))

    def name_of(self, worker: Process) -> str | None:
        """The name under which a worker holds leases; None until it has announced itself."""
        names = [name.decode() for name in self.store.zrange(f"{PREFIX}workers", 0, -1)]
        return next((name for name in names if f"-{worker.pid}-" in name), None)

    def announced(self, worker: Process) -> str:
        """Its name, as soon as it has announced itself."""
        return wait_for(lambda: self.name_of(worker), START_SECONDS, f"{worker.name} does not announce itself")

    def replace(self, worker: Process) -> None:
        """Starts another in the place of a worker that ends, as hosts do, and forgets it."""
        self.stack.workers.remove(worker)
        self.stack.start_worker()

    def pids(self) -> list[int]:
        return [worker.pid for worker in self.stack.workers if worker.is_alive]


def ask(url: str, path: str, seconds: float = 10) -> tuple[int, bytes]:
    """Status and body of one GET on a connection of its own."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def wait_for(condition: Callable[[], T | None], seconds: float, message: str, pause: float = PAUSE_SECONDS) -> T:
    """The first true value that `condition` gives; raises TimeoutError when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} seconds: {message}")
        time.sleep(pause)
    return value


def processes_of(worker: Process) -> list[int]:
    """The worker's parent, and everything that was started below it."""
    return tree(worker.pid, children_of_all())


def predictor_of(worker: Process) -> int | None:
    """The process that holds the models, forked by the nursery below the parent; None while there is none."""
    children = children_of_all()
    found = [pid for nursery in children.get(worker.pid, []) for pid in children.get(nursery, [])]
    return found[-1] if found else None


def send(pids: Sequence[int], number: int) -> None:
    """Signals all of them; those that have gone meanwhile need none."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _held(value: bytes) -> Held:
    _, worker, started_at = value.decode().split(" ")
    return Held(worker, int(started_at))


def _wrong(records: Iterator[list[str]], values: Sequence[int], codes: Mapping[int, str]) -> Iterator[str]:
    count = 0
    for place, (value, record) in enumerate(zip(values, records, strict=False)):
        count += 1
        prediction, error = record
        wanted = codes.get(place, "")
        code = error.partition(":")[0]
        if code != wanted or (not wanted and float(prediction) != value):
            yield f"row {place + 1}: {prediction!r}, {error!r} instead of {wanted or value!r}"
    surplus = sum(1 for _ in records)
    if count + surplus != len(values):
        raise Wrong(f"{count + surplus} records instead of {len(values)}")
