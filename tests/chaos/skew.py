"""A clock that is off: what a process would see on a machine that nobody has set right."""

import datetime
import sys
import time


def install(seconds):
    """Moves the clock that this process's own code and RQ's look at by so many seconds."""
    import rq.utils
    import rq.worker  # whatever of RQ takes the time has to be there to be changed

    right, now, off = time.time, rq.utils.now, datetime.timedelta(seconds=seconds)
    time.time = lambda: right() + seconds
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "rq" and getattr(module, "now", None) is now:
            module.now = lambda: now() + off
