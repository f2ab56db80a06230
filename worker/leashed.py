"""`python -m worker.leashed <descriptor> <parent's pid> <memory bytes> <models path>`: the nursery, tied to its parent.

What predicts takes a second to import. Before that the kernel is asked to end this process with its parent, and the
signals that hosts send to every process are left to the parent: it decides for all. Then predictors are forked
whenever the parent asks, see worker.forking; this file is what each of them runs too.
"""

import ctypes
import gc
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
    """Forks predictors for the parent at the other end of the descriptor that was handed over, and is each of them."""
    descriptor, parent, memory_bytes, models_path = sys.argv[1:]
    die_with_parent(int(parent))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # A collection would leave holes between what is imported, which each predictor then writes to: a page of its own.
    gc.disable()
    from worker.forking import Forks  # noqa: PLC0415 - only now: see above
    from worker.predictor import serve  # noqa: PLC0415

    channel = Forks(int(descriptor), int(memory_bytes)).run()
    serve(channel, Path(models_path))


if __name__ == "__main__":
    main()
