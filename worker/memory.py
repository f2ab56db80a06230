"""How much memory a predictor may take, how much it takes, and what makes the kernel keep to it."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Of the machine or container when no other limit is set: the rest is for the parent and what else runs there.
_SHARE = 0.75
# What libraries and a model of moderate size take: below it no predictor could ever work.
LEAST_BYTES = 256 * 1024 * 1024
# The exit status of a predictor that ran out of memory outside a model, where no row can be blamed for it.
OUT_OF_MEMORY_STATUS = 12
GROWN_TIMES = 1.25  # what it took at first: a predictor that takes more than so much holds what it has left behind
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_KIB = 1024
_OOM_SCORE = 500  # of 1000: far above what a parent or a store is given for its size


def limit_of(wanted: int, system: Path = Path("/")) -> int:
    """The most that a predictor may have resident, in bytes: `wanted`, or a share of all there is when that is 0."""
    return wanted or max(LEAST_BYTES, int(there_is(system) * _SHARE))


def there_is(system: Path = Path("/")) -> int:
    """The memory of the container or of the machine, whichever is smaller, in bytes."""
    machine = os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES
    return min([machine, *_container_limits(system)])


def resident_bytes(pid: int) -> int:
    """What a process has in memory; 0 when it is gone, or where that cannot be known."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as line:
            return int(line.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):  # IndexError: it is just ending
        return 0


def data_allowance(memory_bytes: int) -> int | None:
    """The data segment that a process like this one may have so that at most `memory_bytes` become resident.

    Much of what is mapped is never touched, so that is added to the limit. None where it cannot be known.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            sizes = dict(line.split(":", 1) for line in lines)
        mapped, resident = (int(sizes[name].split()[0]) * _KIB for name in ("VmData", "VmRSS"))
    except (OSError, KeyError):
        return None
    return max(0, mapped + memory_bytes - resident)


def limit_data(allowance: int | None) -> None:
    """From now on an allocation beyond the allowance fails at once, in this process, with a MemoryError."""
    if allowance is not None:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        allowed = allowance if most == resource.RLIM_INFINITY else min(allowance, most)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))


def offer_to_the_kernel() -> None:
    """When the machine runs out of memory the kernel takes this process before its parent."""
    if sys.platform == "linux":
        with suppress(OSError), open("/proc/self/oom_score_adj", "r+", encoding="ascii") as score:
            # Some sandboxes refuse it; then the kernel goes by size, and that is usually this process too.
            score.write(str(max(_OOM_SCORE, int(score.read()))))


def _container_limits(system: Path) -> Iterator[int]:
    """What the control groups of this process allow, the ones that they lie in included (cgroup v1 and v2)."""
    for file in _limit_files(system):
        with suppress(OSError, ValueError):  # the file of another mount; "max": no limit
            yield int(file.read_text(encoding="ascii"))


def _limit_files(system: Path) -> Iterator[Path]:
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, name = system / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            root, name = system / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be the host's, and only the root of the mount is there.
        group = root / path.lstrip("/")
        yield from (folder / name for folder in (group, *group.parents) if folder.is_relative_to(root))
