"""Which processes there are, and who started whom; read from /proc."""

import os


def children_of_all() -> dict[int, list[int]]:
    """The children of every process that has any."""
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            parent = _parent(int(name))
            found.setdefault(parent, []).append(int(name))
    return found


def tree(root: int, children: dict[int, list[int]]) -> list[int]:
    """A process, its children, theirs, and so on."""
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def started_at(pid: int) -> int | None:
    """When it was started, in ticks since the machine was; with its number that names a process for ever."""
    fields = _fields(pid)
    return int(fields[19]) if fields else None


def is_running(pid: int) -> bool:
    """Whether it runs; one that has ended and that nobody has asked for its exit code yet does not."""
    fields = _fields(pid)
    return bool(fields) and fields[0] != b"Z"


def _parent(pid: int) -> int:
    fields = _fields(pid)
    return int(fields[1]) if fields else 0


def _fields(pid: int) -> list[bytes]:
    """What /proc says of it from the state on, nothing when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as line:
            # The name stands in parentheses and may hold anything, parentheses too.
            return line.read().rpartition(b")")[2].split()
    except OSError:
        return []
