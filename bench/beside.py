"""A process beside the one that measures: it notes what it sees until its input closes, and prints that as JSON.

One of its own, so that neither holds up the other.
"""

import json
import selectors
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent


class Beside:
    """One of our modules, run as a process while the block lasts; `take` is given what it printed."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = [sys.executable, "-m", module, *arguments]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        output, _ = self._process.communicate()
        if kind is None:
            self.take(json.loads(output))

    def take(self, seen: Any) -> None:
        """Keeps what the process has seen."""
        raise NotImplementedError


def until_input_closes(pause_seconds: float) -> Iterator[None]:
    """Comes again and again, after so long each time, until the starter of this process leaves its block."""
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while not selector.select(pause_seconds):
            yield
