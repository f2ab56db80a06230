"""Harms a stack of its own and measures how it recovers.

`python -m bench.recovery kill child term store poison singles full` measures everything.

Each measurement prints its page; with --out, all of them are kept in one JSON file, and in a Markdown page beside it.
`python -m bench.recovery times` prints what docs/guarantees.md shows of the newest results file in bench/results.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bench.recovery import ends, kills, outages, poison, singles
from bench.recovery.asked import Asked
from bench.recovery.page import Section, add, last_results, page, recovery_times

MEASUREMENTS: dict[str, Callable[[Asked], Section]] = {
    "kill": kills.kill,
    "child": kills.child,
    "term": ends.term,
    "store": outages.store,
    "poison": poison.poison,
    "singles": singles.singles,
    "full": outages.full,
}
SEED = 20260131


def main() -> int:
    """0 when every limit holds."""
    options = _arguments()
    asked = Asked(options.seed, options.times, options.rows)
    holds = True
    for name in options.what:
        if name == "times":
            print(recovery_times(last_results()))
            continue
        section = MEASUREMENTS[name](asked)
        print("\n".join(page(section)), flush=True)
        holds = holds and section.holds
        if options.out:
            add(options.out, name, section)
    return 0 if holds else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.recovery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", choices=[*MEASUREMENTS, "times"], help="in this order")
    parser.add_argument("--times", type=int, help="how often the fault happens (default: 20 kills, 50 ends, 5 outages)")
    parser.add_argument("--rows", type=int, help="rows of each batch")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, help="the results file, JSON; what it has of other measurements stays")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
