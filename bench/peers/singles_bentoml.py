"""BentoML, both ways: synchronous with adaptive batching, and as tasks that are submitted and polled."""

import os
import sys

import bentoml
import numpy as np
from protocol import end, free_port, start, wait_for
from singles_protocol import Model, serve_at


@bentoml.service(traffic={"timeout": 60}, metrics={"enabled": False})
class Scoring:
    def __init__(self) -> None:
        self.model = Model(os.environ["MODEL"])

    @bentoml.api(batchable=True)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.model.predict_all(rows)

    @bentoml.task
    def score(self, row: list[float]) -> float:
        return self.model.predict(row)


if __name__ == "__main__":
    os.environ["MODEL"] = sys.argv[1]
    port = free_port()
    server = start("bentoml", "serve", "singles_bentoml:Scoring", "--host=127.0.0.1", f"--port={port}")
    wait_for(f"http://127.0.0.1:{port}/readyz")
    serve_at(f"http://127.0.0.1:{port}")
    end(server)
