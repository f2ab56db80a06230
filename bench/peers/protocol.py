"""What every peer speaks: says that it is ready, then for each order on its input how long the work took.

An order is a line of JSON: where the model's pickle lies, where the CSV, where the output goes, and which columns come
out beside the prediction ("all" or "id"). The answer is `{"wall": seconds, "rows": rows}`. It ends with its input.
Imports nothing but the standard library: every peer has an environment of its own.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Order:
    model: str
    table: str
    output: str
    keep: str


def serve(score: Callable[[Order], object]) -> None:
    """Performs orders by `score`, which writes the output: a file, or a folder of files that each have a header."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        order = Order(**json.loads(line))
        started = time.perf_counter()
        score(order)
        wall = time.perf_counter() - started
        print(json.dumps({"wall": wall, "rows": rows(Path(order.output))}), file=answers, flush=True)


def rows(output: Path) -> int:
    """The records of a CSV file, or of all that lie in a folder, without their headers."""
    files = [file for file in output.iterdir() if file.is_file()] if output.is_dir() else [output]
    return sum(_lines(file) - 1 for file in files)


def start(*command: str) -> subprocess.Popen[bytes]:
    """Starts a program of this environment that belongs to the peer."""
    program = Path(sys.executable).with_name(command[0])
    return subprocess.Popen([program, *command[1:]], cwd=Path(__file__).parent, stdout=sys.stderr)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def wait_for(url: str, seconds: float = 60) -> None:
    """Returns when something answers there."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def end(*processes: subprocess.Popen[bytes]) -> None:
    """Ends what `start` started."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()


def _lines(file: Path) -> int:
    with file.open("rb") as content:
        return sum(block.count(b"\n") for block in iter(lambda: content.read(1 << 20), b""))
