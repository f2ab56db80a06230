"""An environment of its own for every peer, made from its pinned requirements when it is missing or out of date."""

import shutil
import subprocess
import sys
from pathlib import Path

from bench.work import CACHE, ROOT

PEERS = ROOT / "bench" / "peers"
INSTALL_SECONDS = 900


class CannotInstall(Exception):
    """Raised when a peer's requirements cannot be installed here; says why."""


def environment(peer: str) -> Path:
    """The Python of the peer's environment; raises CannotInstall."""
    folder = CACHE / "environments" / peer
    wanted, stamp = PEERS / f"{peer}.txt", folder / "requirements.txt"
    if not stamp.exists() or stamp.read_bytes() != wanted.read_bytes():
        print(f"Installing {peer} …", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", folder)
        pip = (folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check")
        _run(*pip, "install", "--quiet", "--requirement", wanted)
        # Compiled now, whatever PYTHONDONTWRITEBYTECODE says: a first import must not count for anybody.
        subprocess.run([folder / "bin" / "python", "-m", "compileall", "-qq", folder / "lib"], check=False)
        shutil.copyfile(wanted, stamp)
    return folder / "bin" / "python"


def _run(*command: str | Path) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.CalledProcessError as error:
        raise CannotInstall((error.stderr.strip() or "no reason given").splitlines()[-1][:300]) from None
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"not installed within {INSTALL_SECONDS} s") from None
