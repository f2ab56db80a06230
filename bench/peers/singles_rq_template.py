"""The template of Flask and RQ: POST puts a job, GET says 202 until there is a result; two `SimpleWorker`.

The web process is as large as ours: two processes, of 8 threads each.
"""

import os
import sys

from flask import Flask, request
from protocol import end, free_port, start, wait_for
from singles_protocol import serve_at
from singles_rq import connect, start_workers

app = Flask(__name__)
queue = connect()


@app.get("/")
def home() -> str:
    return "ok"


@app.post("/jobs")
def submit() -> tuple[dict[str, str], int]:
    return {"id": queue.enqueue("singles_rq.predict", request.get_json()["input"]).id}, 202


@app.get("/jobs/<job_id>")
def result(job_id: str) -> tuple[dict[str, float], int]:
    found = queue.fetch_job(job_id).return_value()
    return ({}, 202) if found is None else ({"response": found}, 200)


if __name__ == "__main__":
    os.environ["MODEL"] = sys.argv[1]
    port = free_port()
    options = ["--workers=2", "--worker-class=gthread", "--threads=8", "--no-control-socket"]
    web = start("gunicorn", f"--bind=127.0.0.1:{port}", *options, "singles_rq_template:app")
    workers = start_workers()
    wait_for(f"http://127.0.0.1:{port}/")
    serve_at(f"http://127.0.0.1:{port}")
    end(web, *workers)
