"""Makes the project's environment, `.venv`, when it is missing or not what a requirements file asks for.

Runs under whatever Python 3.11 to 3.14 the machine has, so it uses the standard library only. Two that start together
take turns; one that is interrupted leaves an environment that the next one makes anew.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
# There while the environment is being changed: if it is found, the change was interrupted.
UNFINISHED = ENVIRONMENT / "unfinished"


def main(requirements: str) -> int:
    with _turn():
        if _is_installed(requirements):
            return 0
        try:
            _install(requirements)
        except subprocess.CalledProcessError as error:
            print(f"Setting up {ENVIRONMENT} failed:\n{error.stdout}", file=sys.stderr)
            return 1
    return 0


@contextmanager
def _turn() -> Iterator[None]:
    """Waits until no other installation runs; the system ends a turn with the process, however that ends."""
    with (ROOT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_installed(requirements: str) -> bool:
    stamp = _stamp(requirements)
    usable = os.access(PYTHON, os.X_OK) and not UNFINISHED.exists()
    return usable and stamp.is_file() and stamp.read_bytes() == _wanted(requirements)


def _install(requirements: str) -> None:
    print("Installing what Queuecast needs into .venv (once, about a minute) …", file=sys.stderr, flush=True)
    if UNFINISHED.exists() or not os.access(PYTHON, os.X_OK):
        _make_environment()
    UNFINISHED.touch()
    pip = [PYTHON, "-m", "pip"] if _has_pip() else [sys.executable, "-m", "pip", f"--python={PYTHON}"]
    _run(*pip, "install", "--quiet", "--disable-pip-version-check", "--requirement", ROOT / requirements)
    _compile()
    for each in _chain(requirements):
        _stamp(each).write_bytes(_wanted(each))
    UNFINISHED.unlink()


def _make_environment() -> None:
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    ENVIRONMENT.mkdir()
    UNFINISHED.touch()
    # By its real path, such as /usr/bin/python3.11: when the system moves on to another version the link breaks,
    # and the environment is made anew instead of failing at its first import.
    python = os.path.realpath(sys.executable)
    try:
        _run(python, "-m", "venv", ENVIRONMENT)
    except subprocess.CalledProcessError:
        # Debian's Python comes without ensurepip; then the pip outside installs into the environment.
        _run(python, "-m", "venv", "--without-pip", ENVIRONMENT)


def _has_pip() -> bool:
    return subprocess.run([PYTHON, "-c", "import pip"], check=False, capture_output=True).returncode == 0


def _compile() -> None:
    # pip may have been told not to; a package may carry files for other versions, so errors do not count.
    command: list[str | Path] = [PYTHON, "-m", "compileall", "-qq", "-j", "0", ENVIRONMENT / "lib"]
    subprocess.run(command, check=False, capture_output=True)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _chain(requirements: str) -> list[str]:
    """The requirements files that one includes, the innermost first, itself last."""
    included = [
        line.split()[1] for line in (ROOT / requirements).read_text(encoding="utf-8").splitlines() if line[:3] == "-r "
    ]
    return [each for one in included for each in _chain(one)] + [requirements]


def _wanted(requirements: str) -> bytes:
    return b"".join((ROOT / each).read_bytes() for each in _chain(requirements))


def _stamp(requirements: str) -> Path:
    """The file that holds, word for word, the requirements that are installed."""
    return ENVIRONMENT / f"{requirements}.installed"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
