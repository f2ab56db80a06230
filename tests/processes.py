"""Which processes a worker consists of; read from /proc."""

from tests.waiting import wait_until


def children(pid):
    """The processes that one has started and that are not reaped yet."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as listing:
            return [int(child) for child in listing.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants(pid):
    """Its children, theirs, and so on."""
    found = children(pid)
    for each in found:
        found += children(each)
    return found


def is_alive(pid):
    """Whether it runs; one that nobody has reaped yet does not."""
    try:
        return _fields(pid)[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent_of(pid):
    """The process that it is a child of."""
    return int(_fields(pid)[1])


def nursery_of(worker):
    """The process that forks a worker's predictors."""
    return wait_until(lambda: children(worker), 10, "there is no nursery")[0]


def predictor_of(worker):
    """The process that predicts for a worker, once it is there: the nursery's only living child."""
    return wait_until(lambda: _living_child(nursery_of(worker)), 20, "there is no predictor")


def _living_child(nursery):
    living = [pid for pid in children(nursery) if is_alive(pid)]
    return living[0] if len(living) == 1 else None


def _fields(pid):
    """What /proc says of a process from its state on."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()
