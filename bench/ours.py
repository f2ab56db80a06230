"""Queuecast as it is measured: one web process as the Procfile runs it, its workers, and what clients see of them."""

import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from bench.check import check_ours
from bench.client import Client, Refused
from bench.memory import Sampler
from bench.surroundings import Stack
from bench.work import ROOT, Model, expected, table

KEEPS = {"join": "all", "predictions": "id"}
RUN_SECONDS = 900
UPLOAD_BYTES_PER_SECOND = 5_000_000
DOWNLOAD_BYTES_PER_SECOND = 10_000_000
FIRST_ROW_SECONDS = 30
PAUSE_SECONDS = 0.005


class Ours:
    """A stack of its own, with an empty store, while the block lasts."""

    def __init__(self, models_path: Path, workers: int = 2, environment: Mapping[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-ours-", ignore_cleanup_errors=True)
        self.stack = Stack(
            Path(self._folder.name),
            workers=workers,
            environment={"MODELS_PATH": str(models_path), "DEFAULT_MODEL": "bench-linear", **(environment or {})},
        )
        self.output = Path(self._folder.name, "output.csv")

    def __enter__(self) -> "Ours":
        self.stack.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.stop()
        self._folder.cleanup()

    def batch(self, model: Model, rows: int, output: str, *more: str) -> dict[str, float]:
        """The seconds of one batch through a client in a process of its own; what came out is checked."""
        file = table(rows)
        command = [sys.executable, "-m", "bench.client", self.stack.url, str(file), str(self.output)]
        options = [f"--model={model.manifest.name}", f"--keep={KEEPS[output]}", *more]
        done = subprocess.run([*command, *options], cwd=ROOT, stdout=subprocess.PIPE, timeout=RUN_SECONDS, check=True)
        check_ours(file, self.output, KEEPS[output], expected(model, rows))
        self.output.unlink()
        phases: dict[str, float] = json.loads(done.stdout)
        return phases

    def first_row(self, model: Model, rows: int) -> float:
        """Seconds from the first byte of an upload at 5 MB/s until a result row is read; broken off then."""
        sender, reader = Client(self.stack.url), Client(self.stack.url)
        sender.connect()
        started = time.perf_counter()
        upload = threading.Thread(target=_send_until_cut, args=(sender, table(rows), model), daemon=True)
        upload.start()
        try:
            path = self._receiving(reader, started)
            while not self._has_row(reader, path):
                _pause(started)
            return time.perf_counter() - started
        finally:
            reader.delete(path)
            sender.close()
            upload.join()
            reader.close()

    def behind(self, model: Model, rows: int) -> dict[str, list[float]]:
        """Seconds of 100-row batches and of single predictions, in turn, while a large batch is being worked on."""
        client = Client(self.stack.url)
        large = client.submit(table(rows), f"model={model.manifest.name}&keep=id")["links"]["self"]
        seconds: dict[str, list[float]] = {"small": [], "single": []}
        while True:
            small = _seconds(lambda: self._small(client, model))
            if client.get(large)["ended_at"]:
                break
            seconds["small"].append(small)
            single = _seconds(lambda: client.post(f"/predict?model={model.manifest.name}", {"input": [1.0] * 8}))
            if client.get(large)["ended_at"]:
                break
            seconds["single"].append(single)
        client.delete(large)
        client.close()
        return seconds

    def memory(self, model: Model, rows: int) -> dict[str, float]:
        """Peaks in MB of one batch, *join*, sent fast and downloaded slowly; the stack must be a fresh one."""
        roots = {"web": self.stack.web.pid} if self.stack.web else {}
        roots |= {worker.name: worker.pid for worker in self.stack.workers}
        with Sampler(roots) as sampler:
            self.batch(model, rows, "join", f"--download-bytes-per-second={DOWNLOAD_BYTES_PER_SECOND}")
        workers = [sampler.peaks[worker.name] for worker in self.stack.workers]
        with redis.Redis.from_url(self.stack.redis_url) as store:
            info = store.info("memory")
        together = sampler.peaks["web"]["together"] + sum(worker["together"] for worker in workers)
        return {
            "all": round(together + info["used_memory_peak"] / 1e6, 1),
            "web process": max(sampler.peaks["web"]["processes"]),
            "web": sampler.peaks["web"]["together"],
            "worker": max(worker["together"] for worker in workers),
            # Or the nursery, whose memory is all its own before it forks.
            "predictor": max(max(worker["processes"]) for worker in workers),
            "redis": round(info["used_memory_peak"] / 1e6, 1),
        }

    def _receiving(self, reader: Client, started: float) -> str:
        while not (jobs := reader.get("/jobs?status=receiving")["jobs"]):
            _pause(started)
        path: str = jobs[0]["links"]["self"]
        return path

    def _has_row(self, reader: Client, path: str) -> bool:
        reader.download(f"{path}/results?partial=true", self.output)
        return self.output.read_bytes().count(b"\n") > 1

    def _small(self, client: Client, model: Model) -> None:
        job = client.submit(table(100), f"model={model.manifest.name}&keep=id")
        client.ended(job["links"]["self"])


def _send_until_cut(sender: Client, file: Path, model: Model) -> None:
    try:
        sender.submit(file, f"model={model.manifest.name}&keep=all", UPLOAD_BYTES_PER_SECOND)
    except (OSError, http.client.HTTPException, AttributeError, ValueError, Refused):
        return  # the job was deleted and the connection closed under its hands, as intended


def _pause(started: float) -> None:
    if time.perf_counter() - started > FIRST_ROW_SECONDS:
        raise TimeoutError("no first row")
    time.sleep(PAUSE_SECONDS)


def _seconds(action: Any) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
