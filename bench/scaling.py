"""How the rate grows with the workers, on a model that sleeps for each row: `python -m bench.scaling`.

The model sleeps a millisecond a row, so that many workers fit on few cores: what is measured is whether every worker
always has work, not how fast the machine is.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench.check import Wrong
from bench.client import Client
from bench.ours import Ours
from bench.report import machine, markdown_table
from bench.work import ROOT
from tests.zoo.estimators import Slow, write

RESULTS = ROOT / "bench" / "results"
WORKERS = (1, 2, 4, 8, 16)
MILLISECONDS = 1.0
MUST, GOAL = 0.85, 0.95
# Enough that the first and the last chunk do not decide.
SECONDS_EACH = 20


def main() -> int:
    asked = _arguments()
    with tempfile.TemporaryDirectory(prefix="bench-scaling-", ignore_cleanup_errors=True) as folder:
        path = Path(folder)
        write(path / "models", "slow", Slow(MILLISECONDS))  # type: ignore[no-untyped-call]
        rates = {workers: _rate(path, workers, asked) for workers in asked.workers}
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    page = "\n".join([f"# Scaling, {today}\n", *(f"* {line}" for line in machine()), "", *_table(rates), ""])
    RESULTS.mkdir(exist_ok=True)
    result = RESULTS / f"{today}-scaling"
    result.with_suffix(".md").write_text(page, encoding="utf-8")
    result.with_suffix(".json").write_text(json.dumps(rates) + "\n", encoding="utf-8")
    print(page)
    return 0


def _rate(folder: Path, workers: int, asked: argparse.Namespace) -> float:
    """Rows per second of so many workers."""
    rows = asked.rows or round(workers * asked.seconds * 1000 / MILLISECONDS)
    # Unpickling the model needs the package `tests`.
    environment = {"DEFAULT_MODEL": "slow", "PYTHONPATH": str(ROOT)}
    with Ours(folder / "models", workers, environment) as ours:
        client = Client(ours.stack.url)
        # Every worker has loaded the model then.
        _score(client, folder, workers * 1000)
        rate: float = rows / _score(client, folder, rows)
        client.close()
    print(f"  {workers} workers, {rows:,} rows: {rate:,.0f} rows/s", file=sys.stderr, flush=True)
    return rate


def _score(client: Client, folder: Path, rows: int) -> float:
    """The seconds from the first byte sent until the job has ended; its results are checked."""
    body, output = folder / "rows.csv", folder / "output.csv"
    body.write_text("x\n" + "".join(f"{number}\n" for number in range(rows)))
    started = time.perf_counter()
    job = client.ended(client.submit(body, "model=slow&keep=none")["links"]["self"])
    seconds = time.perf_counter() - started
    client.download(job["links"]["results"], output)
    _check(output, rows)
    return seconds


def _check(output: Path, rows: int) -> None:
    """The model gives its one feature back, so the results are the numbers from 0 on, in order."""
    with output.open() as records:
        next(records)
        for number, record in zip(range(rows), records, strict=True):
            if float(record.split(",")[0]) != number:
                raise Wrong(f"record {number + 1} is {record!r}")


def _table(rates: dict[int, float]) -> Iterator[str]:
    one = 1000 / MILLISECONDS
    rows = []
    for workers, rate in rates.items():
        share = rate / (workers * one)
        verdicts = ["holds" if share >= MUST else "**does not hold**", "reached" if share >= GOAL else "not reached"]
        rows.append([str(workers), f"{rate:,.0f}", f"{workers * one:,.0f}", f"{share:.3f}", *verdicts])
    must, goal = f"must ≥ {MUST}", f"goal ≥ {GOAL}"
    yield from markdown_table(("workers", "rows/s", "linear", "of linear", must, goal), rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--rows", type=int, help="rows of every batch (default: as many as take --seconds)")
    parser.add_argument("--seconds", type=float, default=SECONDS_EACH, help="work of each run (default: 20)")
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS, help="default: 1 2 4 8 16")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
