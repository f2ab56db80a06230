"""One run of the whole measurement."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.check import Wrong
from bench.environments import CannotInstall
from bench.ours import Ours
from bench.peer import Peer, PeerFailed, RunningPeer
from bench.singles import ours as alone
from bench.singles.asking import Answers, NoAnswer, answers_of
from bench.singles.load import Order
from bench.singles.measured import Key, Measured
from bench.singles.peers import QUEUES, SERVERS, Server
from bench.singles.queue_only import submit
from bench.work import FEATURES, expected, models, table

INPUTS = 1000
MAIN_CLIENTS = (1, 16, 64)  # in every round
LADDER = (1, 2, 4, 8, 16, 32, 64, 128)  # in the last one, for the picture
JOBS_CLIENTS = (1, 16)
BEHIND_CLIENTS = (1, 4)
WARM_CLIENTS = 4
WARM_REQUESTS = 100


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who is measured, how often and how long."""

    only: Sequence[str]
    repeat: int = 3
    ladder: Sequence[int] = LADDER
    warm_seconds: float = 1.0
    seconds: float = 4.0
    idle_seconds: float = 2.0
    idle_samples: int = 10  # in each round
    behind_rows: int = 1_000_000
    kept_singles: int = 10_000
    starts: int = 5


class Run:
    """`all` does everything and returns what was measured."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.measured = Measured()
        self._models_path = folder / "models"
        self._models = models(self._models_path)
        self._inputs = folder / "inputs.json"
        self._rows = _rows()
        predictions = expected(self._models["linear"], INPUTS).tolist()
        self._inputs.write_text(json.dumps(list(zip(self._rows, predictions, strict=True))))
        # Read once, so that every run finds it in the page cache.
        table(plan.behind_rows).read_bytes()

    def all(self) -> Measured:
        for turn in range(self.plan.repeat):
            say(f"Round {turn + 1} of {self.plan.repeat}")
            if "ours" in self.plan.only:
                self._ours(turn)
            for name in self.plan.only:
                if name in self.measured.absent:
                    continue
                if name in SERVERS:
                    self._server(SERVERS[name], turn)
                elif name in QUEUES:
                    self._queue(QUEUES[name], turn)
        if "ours" in self.plan.only:
            say("Connections, memory and starts, in runs of their own")
            self._alone()
        return self.measured

    def _ours(self, turn: int) -> None:
        with Ours(self._models_path) as ours:
            asked = alone.order(ours, self._inputs, "predict", 1)
            _warm("ours", asked)
            for clients in self._clients(turn):
                self._load(Key("ours", "predict", clients), turn, asked)
            self._samples("first after idle", alone.after_idle(asked, self.plan.idle_seconds, self.plan.idle_samples))
            for way in ("jobs", "inputs"):
                for clients in JOBS_CLIENTS:
                    self._load(Key("ours", way, clients), turn, asked)
            for clients in BEHIND_CLIENTS:
                load = replace(asked, clients=clients)
                seconds = alone.behind(ours, load, self._models["hgb"], self.plan.behind_rows)
                self._samples(f"behind a batch, clients: {clients}", seconds)
        # A store of its own: the peers' is fresh too.
        with Ours(self._models_path) as ours:
            submit(ours, self._models_path, self._submitters(WARM_CLIENTS))
            for clients in MAIN_CLIENTS:
                found = submit(ours, self._models_path, self._submitters(clients))
                self._note_queue("ours", clients, turn, found)

    def _server(self, server: Server, turn: int) -> None:
        with self._present(server.peer), self._running(server.peer, *server.arguments) as running:
            asked = Order(url=running.said, way=server.way, inputs=str(self._inputs), clients=1)
            _warm(server.peer.name, asked)
            for clients in self._clients(turn):
                self._load(Key(server.peer.name, server.way, clients), turn, asked)

    def _queue(self, peer: Peer, turn: int) -> None:
        with self._present(peer), self._running(peer) as running:
            for clients in MAIN_CLIENTS:
                self._note_queue(peer.name, clients, turn, running.ask(self._submitters(clients)))

    def _alone(self) -> None:
        with Ours(self._models_path) as ours:
            asked = alone.order(ours, self._inputs, "predict", 1)
            self.measured.kept_bytes = alone.kept_bytes(ours, asked, self.plan.kept_singles)
            say(f"  a finished single prediction keeps {self.measured.kept_bytes:.0f} bytes")
        with Ours(self._models_path) as ours:
            asked = alone.order(ours, self._inputs, "predict", 1)
            busy = alone.busy(ours, asked, self.plan.seconds, self._models["hgb"], self.plan.behind_rows)
            self.measured.connections, self.measured.memory = busy.connections, busy.memory
            say(f"  connections: {busy.connections}; MB: {busy.memory}")
        with Ours(self._models_path, workers=0) as ours:
            self._samples("start of a worker", alone.starts(ours, self._rows[0], self.plan.starts))

    def _load(self, key: Key, turn: int, asked: Order) -> None:
        plan = self.plan
        order = replace(asked, way=key.way, clients=key.clients, seconds=plan.warm_seconds + plan.seconds)
        self._note(key, turn, answers_of(key.who, order))

    def _submitters(self, clients: int) -> dict[str, Any]:
        seconds = self.plan.warm_seconds + self.plan.seconds
        return {"clients": clients, "seconds": seconds, "inputs": str(self._inputs)}

    def _note_queue(self, who: str, clients: int, turn: int, found: Mapping[str, Any]) -> None:
        self._note(Key(who, "queue", clients), turn, Answers.read(who, found))

    def _note(self, key: Key, turn: int, answers: Answers) -> None:
        speed = answers.speed(self.plan.warm_seconds, self.plan.seconds)
        self.measured.add(key, turn, speed)
        errors = f"  errors: {dict(speed.errors)}" if speed.errors else ""
        times = f"p50 {speed.p50:8.2f}  p99 {speed.p99:8.2f} ms"
        say(f"  {key.who:<14}{key.way:<14}{key.clients:>4} clients {speed.per_second:>8,.0f}/s  {times}{errors}")

    def _samples(self, name: str, seconds: Sequence[float]) -> None:
        if not seconds:
            raise NoAnswer(f"{name}: no answer")
        self.measured.add_samples(name, seconds)
        found = sorted(seconds)
        say(f"  {name}: {found[len(found) // 2]:.4f} s in the middle, {found[-1]:.4f} s at worst of {len(found)}")

    def _clients(self, turn: int) -> Sequence[int]:
        return self.plan.ladder if turn == self.plan.repeat - 1 else MAIN_CLIENTS

    def _running(self, peer: Peer, *arguments: str) -> RunningPeer:
        return RunningPeer(peer, str(self._models["linear"].file), *arguments)

    @contextmanager
    def _present(self, peer: Peer) -> Iterator[None]:
        """Who cannot be measured is named with the reason, and the others go on."""
        try:
            yield
        except (CannotInstall, PeerFailed, NoAnswer, Wrong) as error:
            self.measured.absent[peer.name] = str(error)
            say(f"  {error}")


def _warm(who: str, asked: Order) -> None:
    """Before anything is measured, everybody has begun to answer."""
    answers_of(who, replace(asked, clients=WARM_CLIENTS, requests=WARM_REQUESTS))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _rows() -> list[list[float]]:
    """The features of the table's first rows, as they stand there."""
    with table(INPUTS).open("rb") as file:
        found = np.loadtxt(file, delimiter=",", skiprows=1, usecols=range(1, len(FEATURES) + 1))
    rows: list[list[float]] = found.tolist()
    return rows
