"""What happened, on disk: one JSON line for each event, written before the call returns."""

import json
import os
from pathlib import Path
from time import time  # bound here: some processes set the clock of the module `time` wrong


class Journal:
    """A file that any number of threads and processes append events to; a line survives the end of its writer."""

    def __init__(self, path):
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, kind, **facts):
        """Writes one event with its moment, in seconds since the epoch."""
        line = json.dumps({"kind": kind, "at": facts.pop("at", time()), **facts}) + "\n"
        os.write(self._descriptor, line.encode())


def read(folder):
    """All events of the journals in a folder, in the order of their moments."""
    events = [json.loads(line) for path in Path(folder).glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted(events, key=lambda event: event["at"])
