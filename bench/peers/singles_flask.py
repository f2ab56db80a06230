"""The model in the web process, and no queue: Flask under gunicorn, as many processes as asked for, of 8 threads."""

import os
import sys

from flask import Flask, request
from protocol import end, free_port, start, wait_for
from singles_protocol import Model, serve_at

app = Flask(__name__)
model = Model(os.environ["MODEL"]) if __name__ != "__main__" else None


@app.get("/")
def home() -> str:
    return "ok"


@app.post("/predict")
def predict() -> dict[str, float]:
    assert model is not None
    return {"response": model.predict(request.get_json()["input"])}


if __name__ == "__main__":
    os.environ["MODEL"], processes = sys.argv[1:]
    port = free_port()
    options = [f"--workers={processes}", "--worker-class=gthread", "--threads=8", "--no-control-socket"]
    web = start("gunicorn", f"--bind=127.0.0.1:{port}", *options, "singles_flask:app")
    wait_for(f"http://127.0.0.1:{port}/")
    serve_at(f"http://127.0.0.1:{port}")
    end(web)
