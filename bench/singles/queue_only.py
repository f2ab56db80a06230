"""Ours without HTTP, one submission a round trip: `python -m bench.singles.queue_only ORDER`.

Orders and answers are those of the peers' submitters (bench/peers/submitters.py); the settings say where the store is.
"""

import json
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import redis

import settings
from api.context import ANONYMOUS
from bench.ours import Ours
from bench.peers.submitters import perform
from bench.singles.ways import MODEL
from bench.work import FEATURES, ROOT
from jobs.codec.json_text import dumps, loads
from jobs.connection import news_client
from jobs.intake import Intake
from jobs.lookup import Lookup
from jobs.news import LOOK_SECONDS, News, Watch
from jobs.record import Job, ModelVersion, changed
from jobs.scripts import Limits, Scripts
from jobs.tickets import TicketQueue
from models.catalog import Catalog

END_SECONDS = 60


class Submitting:
    """What a web process does of a single prediction, but for HTTP."""

    def __init__(self, chosen: settings.Settings) -> None:
        # As many connections as threads ask: what the peers' clients have too.
        client = redis.Redis.from_url(chosen.redis_url)
        limits = Limits.of(chosen)
        self._scripts = Scripts(client, limits)
        self._lookup = Lookup(client, limits)
        self._own = threading.local()
        self._tickets = TicketQueue(client)
        self._news = News(partial(news_client, chosen.redis_url))
        manifest = Catalog.read(chosen.models_path, chosen.default_model).find(MODEL)
        self._model = ModelVersion(manifest.name, manifest.version, manifest.sha256)

    def ask(self, row: list[float]) -> float:
        """Accepted, predicted by a worker, told."""
        sent = dumps(dict(zip(FEATURES, row, strict=True)))
        with self._news.watch() as watch:
            job, tickets = self._intake.accept_single(ANONYMOUS, self._model, sent, on_id=watch.add)
            if tickets:
                self._tickets.put(tickets)
            ended = self._told_of_end(job, watch)
        found: Any = loads(ended.result or "{}")
        return float(found["prediction"])

    @property
    def _intake(self) -> Intake:
        """The thread's own: submissions through one that is shared would be combined, and this is about single ones."""
        if not hasattr(self._own, "intake"):
            self._own.intake = Intake(self._scripts, self._lookup)
        intake: Intake = self._own.intake
        return intake

    def _told_of_end(self, job: Job, watch: Watch) -> Job:
        """The job once it has ended: how a web process waits for that."""
        deadline = time.monotonic() + END_SECONDS
        while not job.ended:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{job.id} does not end")
            change = watch.wait(LOOK_SECONDS)
            if change is not None and change.fields:
                return changed(job, change.fields)
            if change is not None:
                job = self._lookup.find(job.id, ANONYMOUS)
        return job


def submit(ours: Ours, models_path: Path, order: dict[str, Any]) -> dict[str, Any]:
    """What the clients of an order get of a stack, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.singles.queue_only", json.dumps(order)],
        cwd=ROOT,
        env=settings.inherited(REDIS_URL=ours.stack.redis_url, MODELS_PATH=str(models_path), DEFAULT_MODEL=MODEL),
        stdout=subprocess.PIPE,
        timeout=order["seconds"] + 2 * END_SECONDS,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    print(json.dumps(perform(Submitting(settings.load()).ask, json.loads(sys.argv[1]))))
