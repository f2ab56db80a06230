"""`python -m worker.leashed <descriptor> <parent's pid> <models path>`: the predictor, tied to its parent first.

What predicts takes a second to import. Before that the kernel is asked to end this process with its parent, and the
signals that hosts send to every process are left to the parent: it decides for both.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when its parent dies; where that cannot be had, the closed channel ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we could ask
            os._exit(1)


def main() -> None:
    """Serves the parent at the other end of the descriptor that was handed over."""
    descriptor, parent, models_path = sys.argv[1:]
    die_with_parent(int(parent))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    from worker.predictor import serve  # noqa: PLC0415 - only now: see above

    serve(int(descriptor), Path(models_path))


if __name__ == "__main__":
    main()
