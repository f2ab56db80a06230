"""Where a job is, and where it may go from there: the only table of its kind."""

from enum import StrEnum


class Status(StrEnum):
    """Where a job is."""

    RECEIVING = "receiving"  # the body is still arriving; work may already be running
    QUEUED = "queued"  # wholly received, nothing started yet
    RUNNING = "running"  # wholly received, some of it leased or done
    SUCCEEDED = "succeeded"  # every row was attempted and at least one has a prediction
    FAILED = "failed"  # no row has a prediction, or the job as a whole could not go on
    CANCELED = "canceled"  # stopped by its owner; what was done stays


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.RECEIVING: frozenset({Status.QUEUED, Status.RUNNING, Status.SUCCEEDED, Status.FAILED, Status.CANCELED}),
    Status.QUEUED: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELED}),
    Status.RUNNING: frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELED: frozenset(),
}

ENDED = frozenset(status for status, onward in TRANSITIONS.items() if not onward)


def may_move(current: Status, wanted: Status) -> bool:
    """Whether a job in `current` may go to `wanted`."""
    return wanted in TRANSITIONS[current]


def as_lua() -> str:
    """The same table for the scripts: `MOVES[current][wanted]` is true where the move is allowed."""
    rows = (
        f"{current.value} = {{ {', '.join(f'{wanted.value} = true' for wanted in sorted(onward))} }}"
        for current, onward in TRANSITIONS.items()
    )
    return f"local MOVES = {{ {', '.join(rows)} }}\n"


def as_mermaid() -> str:
    """The same table as a Mermaid diagram, for docs/guarantees.md."""
    moves = [
        f"    {current.value} --> {wanted.value}"
        for current, onward in TRANSITIONS.items()
        for wanted in TRANSITIONS
        if wanted in onward
    ]
    ends = [f"    {last.value} --> [*]" for last in TRANSITIONS if last in ENDED]
    return "\n".join(["stateDiagram-v2", *moves, *ends]) + "\n"
