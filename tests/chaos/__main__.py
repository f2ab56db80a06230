"""`python -m tests.chaos --seed N --minutes M`: the long form; prints one JSON document on its standard output."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bin"))  # where the commands' own modules lie


def main():
    """1 when a check does not hold."""
    arguments = parsed()
    from tests.chaos import empty_store, run

    folder = Path(tempfile.mkdtemp(prefix="queuecast-chaos-", dir=arguments.folder))
    form = run.short() if arguments.short else run.long(arguments.minutes)
    make = empty_store.Run if arguments.empty_store else run.Run
    found = make(folder, arguments.seed, form, say).carry_out()
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    return 0 if found["holds"] else 1


def parsed():
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults under load, then the checker.")
    parser.add_argument("--seed", type=int, default=1, help="of the schedule and of everything submitted (default: 1)")
    parser.add_argument("--minutes", type=float, default=3, help="how long faults are injected (default: 3)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="writes the JSON there too")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the run's own folder is made; it stays")
    parser.add_argument("--short", action="store_true", help="the form of the test suite")
    parser.add_argument("--empty-store", action="store_true", help="only this: the store comes back empty")
    return parser.parse_args()


def say(line):
    """Progress, apart from the report."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
