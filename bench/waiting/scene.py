"""A crowd that waits while the workers are paused, is told when they go on, and what was seen of it."""

import http.client
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import redis

from bench.client import Client
from bench.memory import MEGABYTE, pss
from bench.processes import children_of_all, tree
from bench.surroundings import Stack
from bench.waiting.crowd import Crowd

SUBMIT_SECONDS = 30.0
# A paused worker's connections may have to be made anew, and what waited long has to be asked for again.
ANSWER_SECONDS = 60.0
SAMPLE_SECONDS = 0.25
TABLE = b"RM\n" + b"7\n" * 100


@dataclass(frozen=True)
class Seen:
    """Of one crowd. Moments are seconds since the epoch; `told_after` are seconds from a result's commit to its answer.

    `megabytes`, `tasks` (processes and threads) and `processor` (its seconds a second) are of gunicorn's parent and
    everything below it while all waited; `put_off` counts answers that told to come again.
    """

    began: float
    waiting_since: float
    waiting_until: float
    told: float
    told_after: list[float]
    problems: list[str]
    megabytes: float
    tasks: int
    processor: float
    connections: int
    put_off: int


class Connections:
    """The most connections that the store had at once, without the one that asks."""

    def __init__(self, store: redis.Redis) -> None:
        self._store = store
        self.most = 0

    def sample(self) -> None:
        self.most = max(self.most, len(self._store.client_list()) - 1)


def see(stack: Stack, way: str, clients: int, seconds: float) -> Seen:
    """One crowd, that waits for so many seconds."""
    began = time.time()
    with redis.Redis.from_url(stack.redis_url) as store:
        connections = Connections(store)
        with _paused(stack):
            crowd = Crowd(stack.port, clients, way, _batch(stack) if way == "batch" else None)
            crowd.run(SUBMIT_SECONDS, lambda: not crowd.submitting)
            waiting_since, used = time.time(), _processor_seconds(stack)
            _run(crowd, connections, seconds, lambda: False)
            waiting_until, used = time.time(), _processor_seconds(stack) - used
            megabytes, tasks = _size(stack)
        _run(crowd, connections, ANSWER_SECONDS, lambda: not crowd.waiting)
    told = time.time()
    told_after, problems = _told_after(stack, crowd)
    crowd.close()
    return Seen(
        began=began,
        waiting_since=waiting_since,
        waiting_until=waiting_until,
        told=told,
        told_after=told_after,
        problems=problems,
        megabytes=megabytes,
        tasks=tasks,
        processor=used / (waiting_until - waiting_since),
        connections=connections.most,
        put_off=sum(waiter.put_off for waiter in crowd.waiters),
    )


def a_job(stack: Stack) -> str:
    """The path of a single prediction that has ended."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
    connection.request("POST", "/jobs", b'{"input": 7}', {"Content-Type": "application/json"})
    path = connection.getresponse().headers["Location"]
    connection.close()
    client = Client(stack.url)
    client.ended(path)
    client.close()
    return path


def status(stack: Stack, path: str) -> int:
    """What a GET of it is answered with."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    connection.close()
    return answer.status


def _run(crowd: Crowd, connections: Connections, seconds: float, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        crowd.run(SAMPLE_SECONDS, until)
        connections.sample()


@contextmanager
def _paused(stack: Stack) -> Iterator[None]:
    for worker in stack.workers:
        worker.signal_group(signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in stack.workers:
            worker.signal_group(signal.SIGCONT)


def _batch(stack: Stack) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
    connection.request("POST", "/jobs", TABLE, {"Content-Type": "text/csv"})
    job_id: str = connection.getresponse().headers["Location"].rpartition("/")[2]
    connection.close()
    return job_id


def _web(stack: Stack) -> list[int]:
    assert stack.web is not None, "not started"
    return tree(stack.web.pid, children_of_all())


def _size(stack: Stack) -> tuple[float, int]:
    pids = _web(stack)
    return sum(map(pss, pids)) / MEGABYTE, sum(map(_threads, pids))


def _threads(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Threads:"))


def _processor_seconds(stack: Stack) -> float:
    return sum(map(_ticks, _web(stack))) / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as line:
        # The name stands in parentheses and may hold anything; then the state, and 12 fields on user and system time.
        fields = line.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _told_after(stack: Stack, crowd: Crowd) -> tuple[list[float], list[str]]:
    """How long after the commit each client was told, and what went wrong for the others."""
    client = Client(stack.url)
    ended_at: dict[str, float] = {}
    told_after, problems = [], []
    for waiter in crowd.waiters:
        if waiter.answered_at is None or waiter.job_id is None:
            problems.append(waiter.problem or "was not told")
            continue
        if waiter.job_id not in ended_at:
            moment = client.get(f"/jobs/{waiter.job_id}")["ended_at"]
            ended_at[waiter.job_id] = datetime.fromisoformat(moment).timestamp()
        told_after.append(waiter.answered_at - ended_at[waiter.job_id])
    client.close()
    return told_after, problems
