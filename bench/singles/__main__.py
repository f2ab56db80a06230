"""Single predictions, ours beside the peers, in one run: `python -m bench.singles`. bench/README.md says how."""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench.singles.goals import misses
from bench.singles.page import page
from bench.singles.peers import FLASK, QUEUES, SERVERS
from bench.singles.picture import draw
from bench.singles.run import MAIN_CLIENTS, Plan, Run
from bench.work import ROOT

RESULTS = ROOT / "bench" / "results"
EVERYONE = ("ours", *SERVERS, *QUEUES)
QUICK = Plan(
    only=("ours", FLASK),
    repeat=1,
    ladder=MAIN_CLIENTS,
    warm_seconds=0.5,
    seconds=2.0,
    idle_samples=5,
    behind_rows=200_000,
    kept_singles=2_000,
    starts=2,
)


def main() -> int:
    """0 when every limit holds."""
    asked = _arguments()
    plan = _plan(asked)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-singles-", ignore_cleanup_errors=True) as folder:
        measured = Run(plan, Path(folder)).all()
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    text = page(f"Single predictions, {today}", measured)
    text += f"\nMedians of {plan.repeat} rounds; load of the machine before the run: {load:.2f}.\n"
    path = RESULTS / f"{today}-{asked.name}"
    RESULTS.mkdir(exist_ok=True)
    text += f"\n![latency over load]({path.name}.svg)\n"
    draw(path.with_suffix(".svg"), measured)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(measured.to_json(), indent=1) + "\n", encoding="utf-8")
    print("\n" + text)
    missed = misses(measured, complete=not asked.quick and set(plan.only) == set(EVERYONE))
    for figure in missed:
        print(f"Does not hold: {figure}", file=sys.stderr)
    return 1 if missed else 0


def _plan(asked: argparse.Namespace) -> Plan:
    plan = QUICK if asked.quick else Plan(only=EVERYONE)
    only = [who for who in EVERYONE if who in asked.only.split(",")] if asked.only else plan.only
    return replace(plan, only=only, repeat=asked.repeat or plan.repeat)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.singles", description=__doc__)
    parser.add_argument("--repeat", type=int, help="rounds (default: 3, with --quick 1)")
    parser.add_argument("--only", help=f"who: {','.join(EVERYONE)}")
    parser.add_argument("--quick", action="store_true", help="ours and Flask alone, some two minutes")
    parser.add_argument("--name", help="of the files in bench/results (default: singles, singles-quick)")
    asked = parser.parse_args()
    asked.name = asked.name or ("singles-quick" if asked.quick else "singles")
    unknown = set(asked.only.split(",")) - set(EVERYONE) if asked.only else set()
    if unknown:
        parser.error(f"nobody is called {', '.join(sorted(unknown))}; there are {', '.join(EVERYONE)}")
    return asked


if __name__ == "__main__":
    sys.exit(main())
