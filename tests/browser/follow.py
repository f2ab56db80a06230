"""A browser's EventSource follows a batch to its end while the web process is restarted under it.

    python -m tests.browser.follow [--rows 100000]

The web process is asked to end once and killed once, and each time started anew on the same port. The page does what a
page has to do and nothing more: it opens one EventSource and listens. Prints what it saw as JSON.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bin"))

from process import ROOT
from stack import Stack, StackError

from tests.browser.chromium import Chromium, found
from tests.client import Client
from tests.waiting import wait_until
from tests.zoo.estimators import Slow, write

MODEL = "steady"
MILLISECONDS = 0.5  # that the model takes for a row
# When the web process is stopped: how much is done by then, and how.
RESTARTS = ((0.2, signal.SIGTERM), (0.5, signal.SIGKILL))
SCRIPT = """
    window.seen = {opened: [], errors: [], events: []};
    window.source = new EventSource(location.pathname + "/events");
    source.onopen = () => seen.opened.push(Date.now());
    source.onerror = () => seen.errors.push(Date.now());
    for (const name of ["status", "progress", "end", "gone"])
        source.addEventListener(name, event => seen.events.push(
            {name, id: event.lastEventId, at: Date.now(), data: JSON.parse(event.data)}));
"""
LOOK = "({...seen, readyState: source.readyState})"
DONE = 'seen.events.filter(e => e.name == "progress").map(e => e.data.rows_done).pop() || 0'
LATER = "(at => seen.events.map(event => event.at).filter(each => each > at)[0])"
CLOSED = 2  # EventSource.CLOSED: it does not come back any more


def main():
    """Runs it and prints what came of it; the exit code is 1 when it is not what it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.follow", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    program = found()
    if program is None:
        sys.exit("There is no Chromium here: apt-get install chromium, or another that is called chromium.")
    with tempfile.TemporaryDirectory(prefix="queuecast-browser-") as folder:
        report = followed(Path(folder), program, rows)
    print(json.dumps(report, indent=2))
    sys.exit(0 if report["wrong"] == [] else 1)


def followed(folder, program, rows):
    """What a browser saw of a batch, and what is wrong with it."""
    shutil.copytree(ROOT / "models" / "artifacts", folder / "models")
    write(folder / "models", MODEL, Slow(MILLISECONDS))
    settings = {"MODELS_PATH": str(folder / "models"), "PYTHONPATH": str(ROOT), "WEB_CONCURRENCY": "1"}
    stack = Stack(folder / "stack", workers=2, environment=settings)
    stack.start()
    try:
        client = Client(stack.url)
        path = client.submit(b"x\n" + b"1\n" * rows, f"?model={MODEL}&keep=none")
        with Chromium(program) as browser:
            page = browser.page(stack.url + path)
            wait_until(lambda: page.run("location.pathname") == path, 20, "the page is not there")
            page.run(SCRIPT)
            restarts = [restarted(stack, client, page, share * rows, number) for share, number in RESTARTS]
            wait_until(lambda: page.run("source.readyState") == CLOSED, 300, "the browser does not come to an end")
            seen = page.run(LOOK)
        return report(rows, client.job(path), seen, restarts)
    finally:
        stack.stop()


def restarted(stack, client, page, rows_done, number):
    """Stops the web process once the page knows of so many rows, and starts it anew; says what the page saw."""
    wait_until(lambda: page.run(DONE) >= rows_done, 300, "the page hears of no progress")
    done, opened, began = page.run(DONE), page.run("seen.opened.length"), time.time()
    stack.web.signal(number) if number == signal.SIGTERM else stack.web.signal_group(number)
    assert stack.web.wait(30)
    stack.web.end()
    down = time.time() - began
    stack.start_web()
    wait_until(lambda: page.run("seen.opened.length") > opened, 60, "the browser does not come back")
    heard_at = wait_until(lambda: page.run(f"{LATER}({began + down} * 1000)"), 60, "it is told nothing")
    return {
        "signal": signal.Signals(number).name,
        "rows_done_before": done,
        "seconds_until_it_had_ended": round(down, 2),
        "seconds_until_the_page_heard_of_the_next_one": round(heard_at / 1000 - began, 2),
    }


def report(rows, job, seen, restarts):
    """What the page saw in short, and what is wrong with it."""
    events = seen["events"]
    names = [event["name"] for event in events]
    done = [event["data"]["rows_done"] for event in events if event["name"] == "progress"]
    ids = [int(event["id"]) for event in events]
    told = events[-1]["data"] if names[-1:] == ["end"] else {}
    checks = {
        "the last event is the end, and there is one": names.count("end") == 1 and names[-1] == "end",
        "the end is the job as the API shows it": told == job,
        "the job has succeeded with all rows": job["status"] == "succeeded" and job["progress"]["rows_ok"] == rows,
        "rows_done never falls": done == sorted(done),
        "ids never fall": ids == sorted(ids),
        "the page came back after each restart": len(seen["opened"]) > len(restarts),
        "the page stopped by itself": seen["readyState"] == CLOSED,
    }
    return {
        "rows": rows,
        "status": job["status"],
        "seconds": round(_seconds(job["ended_at"]) - _seconds(job["created_at"]), 1),
        "opened": len(seen["opened"]),
        "errors": len(seen["errors"]),
        "events": {name: names.count(name) for name in ("status", "progress", "end", "gone")},
        "restarts": restarts,
        "seconds_from_the_end_to_its_event": round(events[-1]["at"] / 1000 - _seconds(job["ended_at"]), 3),
        "wrong": [what for what, holds in checks.items() if not holds],
    }


def _seconds(moment):
    return datetime.fromisoformat(moment).timestamp()


if __name__ == "__main__":
    try:
        main()
    except StackError as error:
        sys.exit(f"{error}")
