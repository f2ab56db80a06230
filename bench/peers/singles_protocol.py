"""What peers that make single predictions speak; beside bench/peers/protocol.py, which is for batches.

One that answers over HTTP says where, and stays until its input closes. One that is asked through its own client says
that it is ready, then for each order on its input (bench/peers/submitters.py) what its clients got.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import IO, Any

import joblib
import numpy as np
import submitters

# Whoever works on the model has it imported before it is asked; unpickling the model would do it with the first row.
from sklearn import linear_model  # noqa: F401

warnings.filterwarnings("ignore", "X does not have valid feature names")
FEATURES = 8


class Model:
    """The model in its file, asked for one row as a server would do it: an array, not a table, is what costs least."""

    def __init__(self, path: str) -> None:
        self._estimator: Any = joblib.load(path)

    def predict(self, row: list[float]) -> float:
        return float(self.predict_all(np.array([row]))[0])

    def predict_all(self, rows: Any) -> Any:
        return self._estimator.predict(rows)


def serve_at(url: str) -> None:
    """Says that `url` answers; returns when it is not needed any more."""
    print(url, file=_answers(), flush=True)
    sys.stdin.read()


def serve_orders(ask: Callable[[list[float]], float]) -> None:
    """Performs orders by `ask`, which has one row predicted through the queue, once somebody works on it."""
    answers = _answers()
    ask([1.0] * FEATURES)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(submitters.perform(ask, json.loads(line))), file=answers, flush=True)


def _answers() -> IO[str]:
    """Where answers go; what libraries print must not come between them."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers
