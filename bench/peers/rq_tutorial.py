"""The tutorials' way: Flask takes the upload, one RQ job gets the bytes, its return value is the result.

Kinder than the tutorials: the worker has imported everything before it forks, and the upload is not multipart.
"""

import io
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import joblib
import pandas as pd
from flask import Flask, request
from protocol import Order, end, free_port, serve, start, wait_for
from redis import Redis
from rq import Queue, Worker

POLL_SECONDS = 0.05
app = Flask(__name__)


def predict(model_path: str, content: bytes, keep: str) -> bytes:
    model = joblib.load(model_path)
    table = pd.read_csv(io.BytesIO(content))
    table["prediction"] = model.predict(table[model.feature_names_in_])
    columns = None if keep == "all" else [keep, "prediction"]
    return table.to_csv(columns=columns, index=False).encode()


@app.get("/")
def home() -> str:
    return "ok"


@app.post("/jobs")
def submit() -> dict[str, str]:
    job = queue().enqueue("rq_tutorial.predict", request.args["model"], request.get_data(), request.args["keep"])
    return {"id": job.id}


@app.get("/jobs/<job_id>")
def result(job_id: str) -> tuple[bytes, int]:
    job = queue().fetch_job(job_id)
    found = job.return_value()
    return (b"", 202) if found is None else (found, 200)


def queue() -> Queue:
    return Queue(connection=Redis.from_url(os.environ["REDIS_URL"]), default_timeout=600)


def ask(url: str) -> None:
    def score(order: Order) -> None:
        query = urllib.parse.urlencode({"model": order.model, "keep": order.keep})
        post = urllib.request.Request(f"{url}/jobs?{query}", Path(order.table).read_bytes())
        with urllib.request.urlopen(post) as answer:
            job_id = answer.read().decode().split('"')[3]
        while not fetch(f"{url}/jobs/{job_id}", order.output):
            time.sleep(POLL_SECONDS)

    serve(score)


def fetch(url: str, output: str) -> bool:
    """Whether the result was there; then it is in the file."""
    with urllib.request.urlopen(url) as answer:
        if answer.status == 200:
            Path(output).write_bytes(answer.read())
        return bool(answer.status == 200)


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        sys.modules["rq_tutorial"] = sys.modules["__main__"]
        Worker([queue()], connection=queue().connection).work(logging_level="WARNING")
    else:
        port = free_port()
        web = start("gunicorn", f"--bind=127.0.0.1:{port}", "--no-control-socket", "--timeout=300", "rq_tutorial:app")
        worker = start("python", "rq_tutorial.py", "worker")
        wait_for(f"http://127.0.0.1:{port}/")
        ask(f"http://127.0.0.1:{port}")
        end(web, worker)
