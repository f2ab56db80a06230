"""How many requests a web process answers at once, and how many may wait: docs/web-server.md has the reasons."""

import contextlib
import resource
from pathlib import Path

from settings import Settings

SPARE_THREADS = 32  # of all that the system allows: for the processes themselves, their listeners, a shell
FREE_SHARE = 6  # one in so many threads is never taken by who waits
SPARE_FILES = 100
PIDS_MAX = Path("/sys/fs/cgroup/pids.max")  # of a container


def threads(settings: Settings) -> int:
    """As many as the settings ask for, or as the system allows: small hosts allow 256 processes and threads in all."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    limits = [allowed] if allowed != resource.RLIM_INFINITY else []
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        limits.append(int(PIDS_MAX.read_text()))
    shares = [(limit - SPARE_THREADS) // settings.web_concurrency for limit in limits]
    return max(min([settings.web_threads, *shares]), 2)


def seats(threads: int) -> int:
    """How many requests may wait where there are so many threads: some stay free for all others."""
    return threads - max(threads // FREE_SHARE, 1)


def connections(threads: int) -> int:
    """How many connections a process may hold, and makes the system allow as many files, as far as it does.

    A process that cannot accept a connection any more ends. Each takes one file, and for a moment a second one.
    """
    wanted = threads + 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 2 * wanted + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < files:
        allowed = files if hard == resource.RLIM_INFINITY else min(files, hard)
        with contextlib.suppress(ValueError):  # macOS allows fewer than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(min(wanted, (soft - SPARE_FILES) // 2), 1)
    return wanted
