"""RQ: two `SimpleWorker` that keep the model; a result is waited for as RQ waits, in a blocking read of its stream."""

import os
import subprocess
import sys
import time
from functools import lru_cache

from protocol import end, start
from redis import Redis
from rq import Queue, SimpleWorker
from singles_protocol import Model, serve_orders

SECONDS = 60


@lru_cache
def model() -> Model:
    return Model(os.environ["MODEL"])


def predict(row: list[float]) -> float:
    return model().predict(row)


def connect() -> Queue:
    return Queue(connection=Redis.from_url(os.environ["REDIS_URL"]))


def work() -> None:
    """A worker that imports nothing for a job: what it is asked for is here."""
    sys.modules["singles_rq"] = sys.modules["__main__"]
    queue = connect()
    SimpleWorker([queue], connection=queue.connection).work(logging_level="WARNING")


def start_workers() -> list[subprocess.Popen[bytes]]:
    """Returns when both are there."""
    workers = [start("python", "singles_rq.py", "worker") for _ in range(2)]
    connection = connect().connection
    deadline = time.monotonic() + SECONDS
    while SimpleWorker.count(connection=connection) < len(workers):
        if time.monotonic() > deadline:
            raise TimeoutError("the workers do not start")
        time.sleep(0.05)
    return workers


def ask(row: list[float]) -> float:
    result = queue.enqueue("singles_rq.predict", row).latest_result(timeout=SECONDS)
    return result.return_value


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        work()
    else:
        os.environ["MODEL"] = sys.argv[1]
        queue = connect()
        workers = start_workers()
        serve_orders(ask)
        end(*workers)
