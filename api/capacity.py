"""How many requests a web process answers at once, and how many may wait: docs/web-server.md has the reasons."""

import resource

from settings import Settings

SPARE_THREADS = 32  # of all that the system allows: for the processes themselves, their listeners, a shell
FREE_SHARE = 5  # one in so many threads is never taken by who waits


def threads(settings: Settings) -> int:
    """As many as the settings ask for, or as the system allows: small hosts allow 256 processes and threads in all."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if allowed == resource.RLIM_INFINITY:
        return settings.web_threads
    return max(min(settings.web_threads, (allowed - SPARE_THREADS) // settings.web_concurrency), 2)


def seats(settings: Settings) -> int:
    """How many requests may wait, so that some threads stay free for all others."""
    count = threads(settings)
    return min(settings.max_waiting, count - max(count // FREE_SHARE, 1))


def allow_files(count: int) -> None:
    """Lets this process have so many files and connections open, as far as the system does.

    A web process that cannot accept another connection would end.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
