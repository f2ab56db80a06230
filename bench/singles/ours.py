"""What is measured of ours alone: after idle, behind a batch, connections and memory, and the start of a worker."""

import json
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType

import redis

from bench.client import Client
from bench.memory import Sampler
from bench.ours import Ours
from bench.singles.asking import RunningLoad, answers_of
from bench.singles.load import Order
from bench.singles.ways import MODEL
from bench.work import Model, table

SAMPLE_SECONDS = 0.05  # between two looks at the connections
BUSY_CLIENTS = {"predict": 64, "jobs": 16, "inputs": 16}
KEPT_CLIENTS = 16
WARM_SINGLES = 1000
SETTLE_SECONDS = 3  # the store gives idle connections' buffers back after two
STOP_SECONDS = 15


def order(ours: Ours, inputs: Path, way: str, clients: int) -> Order:
    return Order(url=ours.stack.url, way=way, inputs=str(inputs), clients=clients)


def after_idle(asked: Order, idle_seconds: float, samples: int) -> list[float]:
    """Seconds of single predictions that nobody asked for anything before, so long."""
    wanted = replace(asked, clients=1, requests=samples + 1, pause_seconds=idle_seconds)
    return [seconds for _, seconds in answers_of("ours", wanted).answers[1:]]


def behind(ours: Ours, asked: Order, model: Model, rows: int) -> list[float]:
    """Seconds of the single predictions that were asked for while the workers were busy with a batch."""
    client = Client(ours.stack.url)
    with RunningLoad("ours", asked) as load:
        batch = client.submit(table(rows), f"model={model.manifest.name}&keep=id")
        job = client.ended(batch["links"]["self"])
    client.delete(job["links"]["self"])
    client.close()
    return load.answers.within(_moment(job["started_at"]), _moment(job["ended_at"]))


@dataclass
class Busy:
    """What was seen while ours was busy."""

    connections: dict[str, int]
    memory: dict[str, float]


def busy(ours: Ours, asked: Order, seconds: float, model: Model, rows: int) -> Busy:
    """Connections to the store under each kind of load, and peaks of memory in MB."""
    roots = {"web": ours.stack.web.pid} if ours.stack.web else {}
    roots |= {worker.name: worker.pid for worker in ours.stack.workers}
    seen: dict[str, int] = {}
    with Sampler(roots) as sampler:
        for way, clients in BUSY_CLIENTS.items():
            with Connections(ours.stack.redis_url) as connections:
                answers_of("ours", replace(asked, way=way, clients=clients, seconds=seconds))
            seen[f"{way}, {clients} clients"] = connections.most
        with Connections(ours.stack.redis_url) as connections:
            behind(ours, replace(asked, clients=BUSY_CLIENTS["predict"]), model, rows)
        seen[f"predict, {BUSY_CLIENTS['predict']} clients, behind a batch"] = connections.most
    workers = [sampler.peaks[worker.name] for worker in ours.stack.workers]
    memory = {
        "web process": max(sampler.peaks["web"]["processes"]),
        "web": sampler.peaks["web"]["together"],
        "worker": max(worker["together"] for worker in workers),
    }
    return Busy(seen, memory)


class Connections:
    """The most connections that the store had while the block lasted, without the one that looks."""

    def __init__(self, url: str) -> None:
        self.most = 0
        self._url = url
        self._over = threading.Event()

    def __enter__(self) -> "Connections":
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        with redis.Redis.from_url(self._url) as client:
            while not self._over.wait(SAMPLE_SECONDS):
                self.most = max(self.most, len(client.client_list()) - 1)


def kept_bytes(ours: Ours, asked: Order, singles: int) -> float:
    """Bytes of the store's memory that each of so many finished single predictions keeps."""
    wanted = replace(asked, clients=KEPT_CLIENTS)
    with redis.Redis.from_url(ours.stack.redis_url) as client:
        answers_of("ours", replace(wanted, requests=WARM_SINGLES))
        before = _settled_bytes(client)
        answers_of("ours", replace(wanted, requests=singles))
        return (_settled_bytes(client) - before) / singles


def starts(ours: Ours, row: Sequence[float], times: int) -> list[float]:
    """Seconds from the start of the only worker to the end of a single prediction that waited for it, so many times.

    One more start goes before, after which everything is compiled and in the page cache.
    """
    return [_start(ours, row) for _ in range(times + 1)][1:]


def _start(ours: Ours, row: Sequence[float]) -> float:
    client = Client(ours.stack.url)
    waiting = _submit_single(ours.stack.url, row)
    began = time.time()
    with _worker(ours):
        job = client.ended(waiting)
    client.close()
    return _moment(job["ended_at"]) - began


def _submit_single(url: str, row: Sequence[float]) -> str:
    """The path of a job that was accepted."""
    body, kind = json.dumps({"input": row}).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/jobs?model={MODEL}", body, kind)) as answer:
        path: str = answer.headers["Location"]
        return path


@contextmanager
def _worker(ours: Ours) -> Iterator[None]:
    """One worker, while the block lasts; its start is not waited for."""
    worker = ours.stack.start_worker()
    try:
        yield
    finally:
        worker.signal(signal.SIGTERM)
        worker.end(STOP_SECONDS)
        ours.stack.workers.remove(worker)


def _moment(text: str) -> float:
    """What a job says of a moment, as `time.time()` counts."""
    return datetime.fromisoformat(text).timestamp()


def _settled_bytes(client: redis.Redis) -> int:
    time.sleep(SETTLE_SECONDS)
    return int(client.info("memory")["used_memory"])
