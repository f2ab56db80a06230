"""Predicts scikit-learn's 442 diabetes patients from a CSV through the API and two workers; run by bin/demo."""

import argparse
import csv
import http.client
import json
import shutil
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from local_store import Directory
from process import ROOT
from stack import FOLDER, Interrupted, Stack, StackError, interrupted_by_signals

_JOB_SECONDS = 120
_ENDED = ("succeeded", "failed", "canceled")
# Without proxies: the requests stay on this machine, whatever the user's environment says.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class DemoError(Exception):
    """Raised when the stack answers other than it should; says what it answered."""


def main() -> int:
    interrupted = interrupted_by_signals()
    argparse.ArgumentParser(
        prog="bin/demo",
        description="Shows Queuecast at work: predicts a CSV through the API and two workers, and stops everything.",
    ).parse_args()
    directory = Directory(FOLDER, "demo")
    logs = directory.path / "logs"
    try:
        _demonstrate(directory, interrupted)
    except Interrupted:
        return 130  # as a shell says it of Ctrl-C
    except (DemoError, StackError, OSError, http.client.HTTPException) as error:
        print(f"\nThe demo failed: {error}\nThe logs are in {logs}.", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory.path / "store", ignore_errors=True)
        directory.release()
    print("\nEverything is stopped. bin/serve starts Queuecast to stay.")
    return 0


def _demonstrate(directory: Directory, interrupted: threading.Event) -> None:
    for leftover in ("store", "logs"):
        shutil.rmtree(directory.path / leftover, ignore_errors=True)
    table = directory.path / "diabetes.csv"
    patients = _write_table(table)
    print(f"{patients} patients of scikit-learn's diabetes table are in {table}")
    print("Starting a store, the web process and two workers …", flush=True)
    environment = {"MODELS_PATH": str(ROOT / "models" / "artifacts"), "DEFAULT_MODEL": "housing"}
    stack = Stack(directory.path, environment=environment, lock=directory.lock, interrupted=interrupted).start()
    try:
        job = _submit(stack.url, table)
        _follow(stack.url, job, interrupted)
        _show_results(stack.url, job, directory.path / "diabetes-predicted.csv")
        _show_tutorial(stack.url)
    finally:
        stack.stop()


def _write_table(path: Path) -> int:
    """Writes the table with a number for each patient; returns how many there are."""
    from sklearn.datasets import load_diabetes  # noqa: PLC0415 (a second; the signals are handled by now)

    diabetes = load_diabetes(scaled=False)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", *diabetes.feature_names])
        for number, measures in enumerate(diabetes.data.tolist(), start=1):
            writer.writerow([number, *measures])
    return len(diabetes.data)


def _submit(url: str, table: Path) -> str:
    """Sends the file as it is read; returns the job's path."""
    print(f"\n$ curl -X POST '{url}/jobs?model=diabetes' -H 'Content-Type: text/csv' --data-binary @{table.name}")
    headers = {"Content-Type": "text/csv", "Content-Length": str(table.stat().st_size)}
    with table.open("rb") as body:
        answer = _ask(f"{url}/jobs?model=diabetes", "POST", body, headers, expected=http.client.ACCEPTED)
        with answer:
            location = str(answer.headers["Location"])
    print(f"202 Accepted, Location: {location}\n")
    return location


def _follow(url: str, job: str, interrupted: threading.Event) -> None:
    """Shows the progress until the job has ended; raises DemoError unless it succeeded."""
    deadline = time.monotonic() + _JOB_SECONDS
    state = _read_json(f"{url}{job}")
    while state["status"] not in _ENDED:
        _show_progress(state)
        if time.monotonic() > deadline:
            raise DemoError(f"the job has not ended after {_JOB_SECONDS} seconds: {state}")
        if interrupted.is_set():
            raise Interrupted
        state = _read_json(f"{url}{job}?wait=1")
    _show_progress(state, last=True)
    if state["status"] != "succeeded":
        raise DemoError(f"the job ended as {state['status']}: {state['error']}")


def _show_progress(state: dict[str, Any], last: bool = False) -> None:
    progress = state["progress"]
    total = progress["rows_total"]
    percent = "" if progress["percent"] is None else f"{progress['percent']:.0f} %"
    line = f"{state['status']:<10} {progress['rows_done']:>5} of {total or '…'} rows  {percent:>5}"
    if sys.stdout.isatty():
        print(f"\r{line}", end="\n" if last else "", flush=True)
    else:
        print(line, flush=True)


def _show_results(url: str, job: str, path: Path) -> None:
    with _ask(f"{url}{job}/results") as answer, path.open("wb") as file:
        shutil.copyfileobj(answer, file)
    print(f"\nThe predictions are in {path}; the first five:\n")
    with path.open(encoding="utf-8", newline="") as file:
        for line in _aligned(list(islice(csv.reader(file), 6))):
            print(f"  {line}")


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _show_tutorial(url: str) -> None:
    print("\nThe house with seven rooms of the tutorial:\n")
    print(f"""$ curl -X GET {url}/predict -H "Content-Type: application/json" -d '{{"input":"7"}}'""")
    with _ask(f"{url}/predict", "GET", b'{"input":"7"}', {"Content-Type": "application/json"}) as answer:
        print(answer.read().decode().rstrip())


def _read_json(url: str) -> dict[str, Any]:
    with _ask(url) as answer:
        state: dict[str, Any] = json.load(answer)
        return state


def _ask(
    url: str,
    method: str = "GET",
    body: IO[bytes] | bytes | None = None,
    headers: dict[str, str] | None = None,
    expected: int = http.client.OK,
) -> http.client.HTTPResponse:
    """The answer; raises DemoError when its status is not the expected one."""
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)  # noqa: S310 (own server)
    try:
        answer: http.client.HTTPResponse = _opener.open(request, timeout=60)
    except urllib.error.HTTPError as error:
        with error:
            raise DemoError(f"{method} {url} answered {error.code}: {error.read().decode(errors='replace')}") from None
    if answer.status != expected:
        with answer:
            raise DemoError(f"{method} {url} answered {answer.status}: {answer.read().decode(errors='replace')}")
    return answer


if __name__ == "__main__":
    sys.exit(main())
