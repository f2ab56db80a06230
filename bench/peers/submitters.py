"""Threads in a closed loop, each asking a queue again as soon as it has its answer. Standard library only."""

import gc
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CHECKED_EVERY = 16  # answers of a thread
RELATIVE_ERROR = 1e-12
AGAIN_SECONDS = 0.05  # after an error


class Submitters:
    """As many threads as there are clients; `ask` gets a row and returns its prediction."""

    def __init__(self, ask: Callable[[list[float]], float], inputs: list[tuple[list[float], float]]) -> None:
        self._ask = ask
        self._inputs = inputs
        self._answers: list[tuple[float, float]] = []
        self._errors: Counter[str] = Counter()
        self._wrong: list[str] = []

    def run(self, clients: int, seconds: float) -> dict[str, Any]:
        """What bench.singles.load says of a load over HTTP."""
        began_at = time.time()
        self._ends_at = time.monotonic() + seconds
        threads = [threading.Thread(target=self._loop, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        shift = time.time() - time.monotonic()
        return {
            "began_at": began_at,
            "answers": [(round(at + shift, 6), round(took, 6)) for at, took in self._answers],
            "errors": dict(self._errors),
            "wrong": self._wrong,
        }

    def _loop(self, number: int) -> None:
        turn = 0
        while (began := time.monotonic()) < self._ends_at:
            row, wanted = self._inputs[(number * 31 + turn) % len(self._inputs)]
            turn += 1
            try:
                found = self._ask(row)
            except Exception as error:  # whatever its library raises is counted, and shown in the table
                self._errors[type(error).__name__] += 1
                time.sleep(AGAIN_SECONDS)
                continue
            now = time.monotonic()
            self._answers.append((now, now - began))
            if turn % CHECKED_EVERY == 1 and not math.isclose(found, wanted, rel_tol=RELATIVE_ERROR):
                self._wrong.append(f"{found!r} instead of {wanted!r}")


def perform(ask: Callable[[list[float]], float], order: Mapping[str, Any]) -> dict[str, Any]:
    """What so many clients get in so many seconds; `order["inputs"]` is a JSON file of rows and their predictions."""
    gc.freeze()
    inputs = json.loads(Path(order["inputs"]).read_text())
    return Submitters(ask, inputs).run(order["clients"], order["seconds"])
