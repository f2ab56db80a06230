"""A Celery chord: the file in 100 chunks, each predicted by one of two prefork processes, joined by the callback."""

import io
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
from celery import Celery, chord
from protocol import Order, end, serve, start

CHUNKS = 100
SECONDS = 250
app = Celery("celery_chord", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])


@lru_cache
def load(path: str) -> Any:
    return joblib.load(path)


@app.task(name="predict")
def predict(model_path: str, chunk: str, columns: list[str], keep: str) -> str:
    model = load(model_path)
    table = pd.read_csv(io.StringIO(chunk), names=columns)
    table["prediction"] = model.predict(table[model.feature_names_in_])
    kept = table if keep == "all" else table[[keep, "prediction"]]
    return kept.to_csv(index=False, header=False)


@app.task(name="join")
def join(parts: list[str]) -> str:
    return "".join(parts)


def score(order: Order) -> None:
    with open(order.table) as table:
        columns = table.readline().strip().split(",")
        size = Path(order.table).stat().st_size // CHUNKS + 1
        parts = [predict.s(order.model, chunk, columns, order.keep) for chunk in chunks(table, size)]
    result = chord(parts)(join.s()).get(timeout=SECONDS)
    kept = columns if order.keep == "all" else [order.keep]
    with open(order.output, "w") as output:
        output.write(",".join([*kept, "prediction"]) + "\n")
        output.write(result)


def chunks(table: Any, size: int) -> Iterator[str]:
    while lines := table.readlines(size):
        yield "".join(lines)


if __name__ == "__main__":
    # Two processes on two cores: more threads would only get in each other's way.
    os.environ["OMP_NUM_THREADS"] = "1"
    worker = start("celery", "--app=celery_chord", "worker", "--pool=prefork", "--concurrency=2", "--loglevel=WARNING")
    app.control.ping(timeout=20, limit=1)
    serve(score)
    end(worker)
