"""How long it took from a death until somebody worked on the chunk again."""

from collections import defaultdict
from dataclasses import dataclass

MOMENT_SECONDS = 1.0
LONG_STEP_SECONDS = 2.0
WORKER_LOSSES = frozenset({"death", "stopped", "exit"})


@dataclass(frozen=True)
class Gap:
    """One chunk (or single) that lost whoever worked on it. `seconds` is the longest time without a disturbance."""

    chunk: str
    died_at: float
    started_at: float
    seconds: float
    disturbed: bool


def gaps(events):
    """The gap after each death that left a chunk unfinished, in order.

    While nobody can reach the store, or no worker is free, nobody can take the work over: such times do not count,
    and the times before and after one count apart.
    """
    disturbances = [*outages(events), *without_workers(events)]
    held, open_since, found = {}, {}, []
    for event in events:
        kind = event["kind"]
        if kind == "leased":
            chunk = f"{event['job']} {event['chunk']}"
            if chunk in open_since:
                found.append(_gap(chunk, open_since.pop(chunk), event["at"], disturbances))
            held[chunk] = (event["pid"], event["token"])
        elif kind == "released":
            chunk = f"{event['job']} {event['chunk']}"
            if held.get(chunk, (None, None))[1] == event["token"]:
                del held[chunk]
            open_since.pop(chunk, None)
        elif kind in WORKER_LOSSES:
            for chunk in [chunk for chunk, (pid, _) in held.items() if pid == event["pid"]]:
                del held[chunk]
                open_since[chunk] = event["at"]
    return found


def _gap(chunk, died_at, started_at, disturbances):
    within = sorted((begin, end) for begin, end in disturbances if begin < started_at and end > died_at)
    longest, since = 0.0, died_at
    for begin, end in [*within, (started_at, started_at)]:
        longest = max(longest, begin - since)
        since = max(since, end)
    return Gap(chunk, died_at, started_at, round(longest, 3), bool(within))


def outages(events):
    """The times during which a fault kept processes from the store for longer than a moment."""
    faults = [event for event in events if event["kind"] == "fault" and event["outage"]]
    return [(event["began"], event["at"]) for event in faults if event["at"] - event["began"] > MOMENT_SECONDS]


def without_workers(events):
    """The times during which no worker was there that could have taken anything."""
    there, taken, gone, since, found = set(), set(), set(), None, []
    for event in sorted([*events, *occupied(events)], key=lambda event: event["at"]):
        pid, kind, before = event.get("pid"), event["kind"], bool(there - taken - gone)
        if event.get("web"):
            continue
        if kind == "continued" or event.get("state") in ("idle", "busy"):
            there.add(pid)
        elif kind in ("death", "exit"):
            gone.add(pid)  # who was frozen and killed is "continued" all the same
        elif kind in ("stopped", "terminated", "announced"):
            there.discard(pid)
        elif kind == "occupied":
            taken.add(pid)
        elif kind == "free":
            taken.discard(pid)
        is_free = bool(there - taken - gone)
        if before and not is_free:
            since = event["at"]
        elif since is not None and is_free:
            found.append((since, event["at"]))
            since = None
    return found


def occupied(events):
    """An event where a worker begins to be at one thing for long, as at a row that hangs, and one where it is free.

    One that is lost over it was at it until then.
    """
    last, holds, found = {}, defaultdict(set), []
    for event in events:
        if event["kind"] not in {"leased", "released", *WORKER_LOSSES}:
            continue
        pid, at = event["pid"], event["at"]
        if holds[pid] and at - last[pid] > LONG_STEP_SECONDS:
            found += [{"kind": "occupied", "pid": pid, "at": last[pid]}, {"kind": "free", "pid": pid, "at": at}]
        if event["kind"] in WORKER_LOSSES:
            holds[pid].clear()
        else:
            change = holds[pid].add if event["kind"] == "leased" else holds[pid].discard
            change((event["job"], event["chunk"]))
        last[pid] = at
    return found
