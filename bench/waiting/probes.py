"""What a web process takes to answer others: `python -m bench.waiting.probes PORT PATH` asks until its input closes.

In turn: `/healthz` with a new connection, `/healthz` on a kept one, and PATH on a kept one. Prints each as JSON: what
was asked, when (seconds since the epoch), and how many seconds the answer took. A process of its own, so that
hundreds of answers to others do not hold it up.
"""

import http.client
import json
import sys
import time
from dataclasses import dataclass

from bench.beside import Beside, until_input_closes

PAUSE_SECONDS = 0.015
# What took longer counts as so long: nobody waits longer for a health check.
TIMEOUT_SECONDS = 5.0
KINDS = ("health, new connection", "health, kept connection", "a job, kept connection")


@dataclass(frozen=True)
class Probe:
    """One request: which of KINDS, when it was sent, and the seconds until its answer."""

    kind: str
    at: float
    seconds: float


class Probes(Beside):
    """The probing process, seen from the one that measures; `found` is there once the block is left."""

    def __init__(self, port: int, path: str) -> None:
        super().__init__("bench.waiting.probes", str(port), path)
        self.found: list[Probe] = []

    def take(self, seen: list[tuple[str, float, float]]) -> None:
        """Keeps the probes."""
        self.found = [Probe(*each) for each in seen]

    def during(self, kind: str, since: float, until: float) -> list[float]:
        """The seconds of the probes of one kind that were sent between two moments."""
        return [probe.seconds for probe in self.found if probe.kind == kind and since <= probe.at < until]


class _Asker:
    """One thing that is asked again and again."""

    def __init__(self, port: int, path: str, *, keep: bool) -> None:
        self._port, self._path, self._keep = port, path, keep
        self._connection: http.client.HTTPConnection | None = None

    def seconds(self) -> float:
        """How long one answer takes; the timeout when there is none, or not the one that was hoped for."""
        began = time.perf_counter()
        connection = self._connection or http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", self._path, headers={} if self._keep else {"Connection": "close"})
            answer = connection.getresponse()
            answer.read()
            taken = time.perf_counter() - began if answer.status == http.client.OK else TIMEOUT_SECONDS
        except (OSError, http.client.HTTPException):
            taken = TIMEOUT_SECONDS
        self._connection = connection if self._keep and taken < TIMEOUT_SECONDS else None
        if self._connection is None:
            connection.close()
        return taken


def main() -> None:
    """Asks in turn until the input closes."""
    port, path = int(sys.argv[1]), sys.argv[2]
    askers = dict(
        zip(
            KINDS,
            (
                _Asker(port, "/healthz", keep=False),
                _Asker(port, "/healthz", keep=True),
                _Asker(port, path, keep=True),
            ),
            strict=True,
        )
    )
    found = []
    for _ in until_input_closes(0):
        for kind, asker in askers.items():
            found.append((kind, time.time(), asker.seconds()))
            time.sleep(PAUSE_SECONDS)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
