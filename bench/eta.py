"""How right `eta_seconds` is through a batch: `python -m bench.eta` writes a picture and a table beside the truth."""

import argparse
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.client import Client
from bench.ours import Ours
from bench.work import ROOT, models, table

RESULTS = ROOT / "bench" / "results"
PAUSE_SECONDS = 0.1
TWICE = 2.0  # an estimate is called right within this factor, and when it is off by less than a second


def main() -> None:
    """Follows one batch from its first row to its end."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--model", default="hgb", choices=["linear", "hgb"])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = models(Path(folder))[asked.model]
        table(asked.rows)
        with Ours(Path(folder)) as ours:
            ours.batch(model, 10_000, "predictions")
            seen = follow(ours, model.manifest.name, asked.rows)
    write(RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-eta-{asked.model}", seen)


def follow(ours: Ours, model: str, rows: int) -> list[tuple[float, float | None, float]]:
    """Moments of a batch: seconds since its first byte, the estimate of what is left, and what was left."""
    sender, reader = Client(ours.stack.url), Client(ours.stack.url)
    sent: dict[str, Any] = {}
    upload = threading.Thread(target=lambda: sent.update(sender.submit(table(rows), f"model={model}&keep=id")))
    began = time.time()
    upload.start()
    job: dict[str, Any] = {}
    moments: list[tuple[float, float | None]] = []
    while not job.get("ended_at"):
        jobs = reader.get("/jobs?limit=1")["jobs"]
        job = jobs[0] if jobs and jobs[0]["progress"]["rows_received"] > 10_000 else {}
        moments.append((time.time(), job["progress"]["eta_seconds"] if job else None))
        time.sleep(PAUSE_SECONDS)
    upload.join()
    ended = datetime.fromisoformat(job["ended_at"]).timestamp()
    return [(moment - began, eta, ended - moment) for moment, eta in moments if moment < ended]


def write(path: Path, seen: list[tuple[float, float | None, float]]) -> None:
    """The table as Markdown and the picture as SVG; prints how often the estimate was right."""
    told = [(eta, left) for _, eta, left in seen if eta is not None]
    right = sum(abs(eta - left) < 1 or left / TWICE <= eta <= left * TWICE for eta, left in told)
    verdict = f"{right} of {len(told)} estimates were within a factor of two, or a second, of the truth."
    lines = ["| seconds | eta_seconds | truth |", "| --- | --- | --- |"]
    lines += [f"| {at:.1f} | {'' if eta is None else f'{eta:.1f}'} | {left:.1f} |" for at, eta, left in seen]
    path.with_suffix(".md").write_text("\n".join(["# eta_seconds", "", verdict, "", *lines, ""]), encoding="utf-8")
    mpl.rcParams.update({"svg.hashsalt": "queuecast", "svg.fonttype": "none"})
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([at for at, _, _ in seen], [left for *_, left in seen], color="#7f8c8d", label="truth")
    known = [(at, eta) for at, eta, _ in seen if eta is not None]
    axes.plot(*zip(*known, strict=True), "o", markersize=3, color="#c0392b", label="eta_seconds")
    axes.set_xlabel("seconds since the first byte was sent")
    axes.set_ylabel("seconds left")
    axes.legend()
    figure.savefig(path.with_suffix(".svg"), format="svg", metadata={"Date": None})
    print(verdict)


if __name__ == "__main__":
    main()
