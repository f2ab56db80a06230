"""Ends a stack's processes when the one that started them is gone, however it went.

Run as a program it is told process groups on its standard input, `+123` when one starts and `-123` when it has ended.
The input closes when its starter ends, by `kill -9` too; then the groups that are left are ended. A session of its own
keeps it out of the reach of Ctrl-C and of a closing terminal. It works where there is no PR_SET_PDEATHSIG (macOS), and
reaches grandchildren.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

# Enough to hand work back and to write the store's last commands to disk.
GRACE_SECONDS = 5.0


class Reaper:
    """A reaper process, seen from the process that starts the others."""

    def __init__(self) -> None:
        # -I -S: nothing but the standard library, up in ten milliseconds.
        command = [sys.executable, "-I", "-S", __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def add(self, group: int) -> None:
        self._tell(f"+{group}")

    def forget(self, group: int) -> None:
        self._tell(f"-{group}")

    def close(self) -> None:
        """Ends the groups that were added and not forgotten, and then the reaper."""
        assert self._process.stdin is not None  # noqa: S101 (it was asked for above)
        self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 (it was asked for above)
        # Without a reaper the stack still ends what it started, only not after its own kill -9.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()


def main() -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    deadline = time.monotonic() + GRACE_SECONDS
    groups = {group for group in groups if _signal(group, signal.SIGTERM)}
    while groups and time.monotonic() < deadline:
        time.sleep(0.05)
        groups = {group for group in groups if _signal(group, 0)}
    for group in groups:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Whether the group was there to get it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS says the second of a group of zombies
        return False
    return True


if __name__ == "__main__":
    main()
