"""One program of a stack: started in a session of its own, its output kept, ended for certain."""

import contextlib
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from reaper import Reaper

ROOT = Path(__file__).resolve().parent.parent


class Process:
    """A running program; its output goes to `log`, and each line to `show` with the program's name."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        reaper: Reaper,
        *,
        environment: Mapping[str, str],
        log: Path,
        show: Callable[[str, str], None] | None = None,
        descriptors: Sequence[int] = (),
        told: bytes = b"",
    ) -> None:
        """`told` is what the program reads from its standard input; up to the 4 KiB that any pipe holds."""
        self.name = name
        self.log = log
        self._show = show
        self._reaper = reaper
        self._last = deque[str](maxlen=20)
        self._popen = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=descriptors,
            start_new_session=True,
        )
        reaper.add(self.pid)
        self._tell(told)
        self._reader = threading.Thread(target=self._read, args=(self._popen.stdout,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's id, which is its group's and its session's too."""
        return self._popen.pid

    @property
    def is_alive(self) -> bool:
        return self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal that ended it."""
        return self._popen.poll()

    def last_lines(self) -> str:
        """The last 20 lines of its output; all of them are there once it has ended."""
        if not self.is_alive:
            self._reader.join(timeout=1)
        return "\n".join(self._last)

    def signal(self, number: int) -> None:
        """Signals the program alone; nothing happens when it has ended."""
        self._popen.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Signals the program and whatever it has started in its group."""
        # macOS says PermissionError of a group of zombies.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within `seconds`."""
        try:
            self._popen.wait(timeout=max(seconds, 0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self, seconds: float = 0) -> None:
        """Waits up to `seconds` for it to end by itself, then kills what is left of its group."""
        self.wait(seconds)
        self.signal_group(signal.SIGKILL)
        self._popen.wait()
        self._reader.join(timeout=5)
        self._reaper.forget(self.pid)

    def _tell(self, told: bytes) -> None:
        assert self._popen.stdin is not None  # noqa: S101 (it was asked for above)
        # A program that has ended already says why by itself.
        with contextlib.suppress(BrokenPipeError), self._popen.stdin as stdin:
            stdin.write(told)

    def _read(self, output: IO[bytes]) -> None:
        with output, self.log.open("ab") as log:
            for line in output:
                log.write(line)
                log.flush()
                text = line.decode(errors="replace").rstrip()
                self._last.append(text)
                self._pass_on(text)

    def _pass_on(self, line: str) -> None:
        if self._show is None:
            return
        try:
            self._show(self.name, line)
        except OSError:
            # The terminal is gone; going on reading keeps the program from blocking on a full pipe.
            self._show = None
