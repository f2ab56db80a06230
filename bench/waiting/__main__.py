"""500 clients wait at once on one web process; what others see meanwhile: `python -m bench.waiting [--clients 500]`.

A stack as `bin/serve` starts it. Its workers are paused, so that nothing ends before all wait; then they go on. Prints
each figure with its limit and its goal; with --out, all is kept as JSON, with a page beside it. Exit code 1 says that
a limit does not hold.
"""

import argparse
import http.client
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from bench.recovery.page import Figure, Section, page
from bench.report import machine
from bench.surroundings import Stack
from bench.waiting.probes import KINDS, Probes
from bench.waiting.scene import Seen, a_job, see, status

WAYS = {
    "predict": "`POST /predict`",
    "wait": "`POST /jobs`, then `GET /jobs/<id>?wait=25`",
    "batch": "`GET /jobs/<id>?wait=25`, all of one batch",
    "events": "`GET /jobs/<id>/events`",
}
WORKERS = 2
QUIET_SECONDS = 5.0


def main() -> int:
    """0 when every limit holds."""
    options = _arguments()
    with tempfile.TemporaryDirectory(prefix="bench-waiting-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder), workers=WORKERS)
        stack.start()
        try:
            sections = _sections(stack, options)
        finally:
            stack.stop()
    text = "\n".join(line for section in sections for line in ["", *page(section)])
    print(text)
    if options.out:
        _keep(options.out, text, sections)
    return 0 if all(section.holds for section in sections) else 1


def _sections(stack: Stack, options: argparse.Namespace) -> list[Section]:
    path = a_job(stack)
    seen: dict[str, Seen] = {}
    with Probes(stack.port, path) as probes:
        began = time.time()
        time.sleep(QUIET_SECONDS)
        quiet_until = time.time()
        for way in options.ways:
            if way == "events" and status(stack, f"{path}/events") == http.client.NOT_FOUND:
                print("GET /jobs/<id>/events is 404: there are no server-sent events yet, and they are left out.")
            else:
                seen[way] = see(stack, way, options.clients, options.seconds)
    quiet = [f"while nobody waits, {line}" for line in _answers(probes, began, quiet_until)]
    return [_section(WAYS[way], each, probes, options.clients, quiet) for way, each in seen.items()]


def _section(title: str, seen: Seen, probes: Probes, clients: int, quiet: list[str]) -> Section:
    figures = [
        Figure(f"{kind}, p99 while all wait", _part(_during(probes, kind, seen), 0.99), "s", 0.1, 0.02)
        for kind in KINDS[:2]
    ]
    figures += [
        Figure("answer after the commit of its result, longest", max(seen.told_after, default=math.inf), "s", 1.0),
        Figure("clients without their result", clients - len(seen.told_after), "", 0, 0),
        Figure("connections to the store", seen.connections, "", 18, 12),
        Figure("memory (PSS) of the web processes", seen.megabytes, "MB", 512),
    ]
    facts = [
        f"all had asked after {seen.waiting_since - seen.began:.1f} s",
        f"{seen.tasks} processes and threads of the web, {seen.processor:.2f} of a processor while all wait",
        f"{seen.put_off} times a client was not let wait and told to come again",
        f"answer after the commit: {_spread(seen.told_after)}",
        *quiet,
        *(f"while all wait, {line}" for line in _answers(probes, seen.waiting_since, seen.waiting_until)),
        *(f"while all are answered, {line}" for line in _answers(probes, seen.waiting_until, seen.told)),
        *sorted(set(seen.problems))[:5],
    ]
    return Section(f"{clients} clients, {title}", figures, {"answer after the commit": seen.told_after}, facts)


def _during(probes: Probes, kind: str, seen: Seen) -> list[float]:
    return probes.during(kind, seen.waiting_since, seen.waiting_until)


def _answers(probes: Probes, since: float, until: float) -> list[str]:
    return [f"{kind}: {_spread(probes.during(kind, since, until))}" for kind in KINDS]


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    middle, most, longest = median(seconds), _part(seconds, 0.99), max(seconds)
    return f"p50 {middle * 1000:.1f}, p99 {most * 1000:.1f}, longest {longest * 1000:.1f} ms of {len(seconds)}"


def _part(seconds: Sequence[float], part: float) -> float:
    """The value that this part of all does not exceed; none at all does not hold any limit."""
    return sorted(seconds)[math.ceil(len(seconds) * part) - 1] if seconds else math.inf


def _keep(path: Path, text: str, sections: Sequence[Section]) -> None:
    where = list(machine())
    found = {"machine": where, "sections": [asdict(section) for section in sections]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    lines = ["# Many clients that wait", "", *(f"* {line}" for line in where)]
    path.with_suffix(".md").write_text("\n".join([*lines, text, ""]), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.waiting", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="which crowds, in this order")
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=12.0, help="how long all wait")
    parser.add_argument("--out", type=Path, help="the results file, JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
