"""`python -m tests.chaos.summary RUN.json …`: several runs as one Markdown table, as docs/guarantees.md shows it."""

import json
import sys
from pathlib import Path

COLUMNS = (
    ("seed", lambda run: run["seed"]),
    ("faults", lambda run: sum(run["faults"]["injected"].values())),
    ("deaths", lambda run: sum(run["faults"]["deaths"].values())),
    ("submissions accepted", lambda run: run["submissions"]["accepted"]),
    ("rows accepted", lambda run: run["rows"]["accepted"]),
    ("lost", lambda run: run["rows"]["lost"]),
    ("unexpected", lambda run: run["rows"]["unexpected"]),
    ("duplicated", lambda run: run["rows"]["duplicated"]),
    ("longest recovery, s", lambda run: run["recovery"]["longest"]),
    ("slowest answer, s", lambda run: run["http"]["longest_seconds"]),
    ("checks that hold", lambda run: f"{sum(c['holds'] for c in run['checks'].values())} of {len(run['checks'])}"),
)


def table(runs):
    """One line for each run, by seed."""
    lines = [[title for title, _ in COLUMNS], ["---"] * len(COLUMNS)]
    lines += [[str(value(run)) for _, value in COLUMNS] for run in sorted(runs, key=lambda run: run["seed"])]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(table([json.loads(Path(name).read_text()) for name in sys.argv[1:]]))
