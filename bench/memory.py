"""How much memory trees of processes take: `python -m bench.memory web=123 worker-1=456`.

Samples the proportional set size (PSS) of every process in every tree until its input closes, then prints the peaks
as JSON. A process of its own, so that sampling does not disturb the one that measures; even so it costs the others
time, which is why memory is never sampled in a run whose time counts.
"""

import json
import os
import sys
from typing import Any

from bench.beside import Beside, until_input_closes
from bench.processes import children_of_all, tree

INTERVAL_SECONDS = 0.1
MEGABYTE = 1_000_000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Sampler(Beside):
    """The sampler, seen from the process that measures; `peaks` holds what it found once the block is left.

    `peaks[name]["together"]` is the tree's peak in MB, `peaks[name]["processes"]` are the peaks of its processes.
    """

    def __init__(self, roots: dict[str, int]) -> None:
        super().__init__("bench.memory", *(f"{name}={pid}" for name, pid in roots.items()))
        self.peaks: dict[str, dict[str, Any]] = {}

    def take(self, seen: dict[str, dict[str, Any]]) -> None:
        """Keeps the peaks."""
        self.peaks = seen


class Peak:
    """The peaks of one tree."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.together = 0
        self.processes: dict[int, int] = {}

    def sample(self, children: dict[int, list[int]]) -> None:
        sizes = {pid: pss(pid) for pid in tree(self.root, children)}
        self.together = max(self.together, sum(sizes.values()))
        for pid, size in sizes.items():
            self.processes[pid] = max(self.processes.get(pid, 0), size)

    def to_json(self) -> dict[str, object]:
        processes = sorted((round(size / MEGABYTE, 1) for size in self.processes.values()), reverse=True)
        return {"together": round(self.together / MEGABYTE, 1), "processes": processes}


def pss(pid: int) -> int:
    """In bytes, 0 when the process is gone; the resident size where the kernel hides the other."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as lines:
            return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:")), 0)
    except PermissionError:  # a worker's parent hides its memory from everyone but root
        return _resident(pid)
    except OSError:
        return 0


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as line:
            return int(line.read().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


def main() -> None:
    peaks = {name: Peak(int(pid)) for name, _, pid in (argument.partition("=") for argument in sys.argv[1:])}
    for _ in until_input_closes(INTERVAL_SECONDS):
        children = children_of_all()
        for peak in peaks.values():
            peak.sample(children)
    print(json.dumps({name: peak.to_json() for name, peak in peaks.items()}))


if __name__ == "__main__":
    main()
