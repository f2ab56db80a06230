"""Celery: two prefork processes that keep the model; results come by Redis' subscriptions, as Celery does it."""

import os
import sys
from functools import lru_cache

from celery import Celery
from protocol import end, start
from singles_protocol import Model, serve_orders

SECONDS = 60
app = Celery("singles_celery", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])


@lru_cache
def model() -> Model:
    return Model(os.environ["MODEL"])


@app.task(name="predict")
def predict(row: list[float]) -> float:
    return model().predict(row)


def ask(row: list[float]) -> float:
    return predict.delay(row).get(timeout=SECONDS)


if __name__ == "__main__":
    os.environ["MODEL"] = sys.argv[1]
    options = ["--pool=prefork", "--concurrency=2", "--loglevel=WARNING", "--without-gossip", "--without-mingle"]
    worker = start("celery", "--app=singles_celery", "worker", *options)
    app.control.ping(timeout=20, limit=1)
    serve_orders(ask)
    end(worker)
