"""A BentoML task: submitted over HTTP, polled, the files handed over by their paths on the same disk."""

import json
import time
import urllib.request
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import bentoml
import joblib
import pandas as pd
from protocol import Order, end, free_port, serve, start, wait_for

POLL_SECONDS = 0.02


@lru_cache
def load(path: str) -> Any:
    return joblib.load(path)


@bentoml.service(traffic={"timeout": 300}, metrics={"enabled": False})
class Scoring:
    @bentoml.task
    def score(self, model: str, table: str, output: str, keep: str) -> int:
        estimator = load(model)
        rows = pd.read_csv(table)
        rows["prediction"] = estimator.predict(rows[estimator.feature_names_in_])
        columns = None if keep == "all" else [keep, "prediction"]
        rows.to_csv(output, columns=columns, index=False)
        return len(rows)


def ask(url: str) -> None:
    """Plain HTTP: `submit` of this version's own client raises AttributeError (`_opened_files`)."""

    def score(order: Order) -> None:
        task = call(f"{url}/score/submit", asdict(order))["task_id"]
        while (status := call(f"{url}/score/status?task_id={task}")["status"]) == "in_progress":
            time.sleep(POLL_SECONDS)
        if status != "completed":
            raise RuntimeError(f"the task ended with {status}")

    serve(score)


def call(url: str, body: object = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, content, {"Content-Type": "application/json"})) as answer:
        return json.load(answer)


if __name__ == "__main__":
    port = free_port()
    server = start("bentoml", "serve", "bentoml_task:Scoring", "--host=127.0.0.1", f"--port={port}")
    wait_for(f"http://127.0.0.1:{port}/readyz")
    ask(f"http://127.0.0.1:{port}")
    end(server)
