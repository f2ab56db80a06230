"""SIGTERM to every process of a worker, once or several times, as hosts send it."""

import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from bench.recovery.asked import Asked
from bench.recovery.load import Load, Outcome
from bench.recovery.page import Figure, Section, longest, lost_nothing
from bench.recovery.stage import Stage, processes_of, send, wait_for
from bench.recovery.takeover import Takeover
from bench.surroundings import Process
from tests.zoo.estimators import Animal, Grinds, Slow

TIMES = 50
SLOW_ROWS, SLOW_SECONDS = 30_000, 0.001
# A row's call keeps the interpreter's lock for two seconds: longer than the parent lets a stopped chunk go on.
GRIND_ROWS, GRIND_SECONDS = 24, 2.0
REST_SECONDS = 2.0  # before a signal, at most
AGAIN_SECONDS = 0.4  # between two signals, at most
EXIT_SECONDS, TAKEN_SECONDS = 10.0, 5.0
GIVE_UP_SECONDS = 60.0
CALIBRATION_ITEMS = 20_000_000


@dataclass(frozen=True)
class State:
    """What the worker is in when it gets the signal."""

    says: str
    animals: Mapping[str, Animal]
    environment: Mapping[str, str]
    rows: int = 0  # none: it is idle
    row_seconds: float = 0.0


@dataclass
class Ends:
    """What was seen of the ends in one state."""

    exits: list[float] = field(default_factory=list)
    codes: list[int | None] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)
    outcome: Outcome = field(default_factory=lambda: Outcome(0, [], 0, []))


def term(asked: Asked) -> Section:
    """A third of the times each: an idle worker, one in the middle of a chunk, one inside a long call of C code."""
    chance, times = asked.chance(), asked.times_or(TIMES)
    states = _states(asked)
    seen = {
        state.says: _in_state(state, chance, times // 3 + (place < times % 3)) for place, state in enumerate(states)
    }
    outcomes = [ends.outcome for ends in seen.values()]
    wrong = [line for outcome in outcomes for line in outcome.wrong]
    exits = [seconds for ends in seen.values() for seconds in ends.exits]
    taken = [seconds for ends in seen.values() for seconds in ends.taken]
    codes = [code for ends in seen.values() for code in ends.codes]
    return Section(
        f"SIGTERM to all processes of a worker, {times} times, once, twice or thrice",
        [
            longest("until its exit", exits, EXIT_SECONDS),
            longest("until others had its rows", taken, TAKEN_SECONDS),
            Figure("exit codes that are not 0", sum(code != 0 for code in codes), "", 0, 0),
            Figure("attempts counted", sum(outcome.counted for outcome in outcomes), "", 0, 0),
            *lost_nothing(wrong, sum(outcome.failed for outcome in outcomes)),
        ],
        {
            **{f"Until the exit, {says}": ends.exits for says, ends in seen.items()},
            **{f"Until others had the rows, {says}": ends.taken for says, ends in seen.items() if ends.taken},
        },
        [
            *(f"{says}: {_facts(ends.outcome)}" for says, ends in seen.items() if ends.outcome.rows),
            *wrong[:10],
        ],
    )


def _facts(outcome: Outcome) -> str:
    counted = [attempt for attempt in outcome.attempts if attempt["counted"]]
    listed = f"{outcome.rows:,} rows, {len(outcome.attempts)} attempts listed"
    return f"{listed}, counted: {counted[:5]}" if counted else listed


def _states(asked: Asked) -> list[State]:
    slow = {"slow": Slow(SLOW_SECONDS * 1000)}  # type: ignore[no-untyped-call]
    grinds = {"grinds": Grinds(_items_in(GRIND_SECONDS))}  # type: ignore[no-untyped-call]
    return [
        State("idle", slow, {}),
        State("in the middle of a chunk", slow, {}, asked.rows_or(SLOW_ROWS), SLOW_SECONDS),
        # Chunks of one row, so that each call is of one.
        State("inside a long call", grinds, {"CHUNK_ROWS": "1", "FIRST_CHUNK_ROWS": "1"}, GRIND_ROWS, GRIND_SECONDS),
    ]


def _items_in(seconds: float) -> int:
    """How many items of its loop the model Grinds does in so many seconds on this machine."""
    model = Grinds(CALIBRATION_ITEMS)  # type: ignore[no-untyped-call]
    began = time.perf_counter()
    model.grind(1)  # type: ignore[no-untyped-call]
    return int(CALIBRATION_ITEMS * seconds / (time.perf_counter() - began))


def _in_state(state: State, chance: Random, times: int) -> Ends:
    ends = Ends()
    with Stage(state.animals, environment=state.environment) as stage:
        load = Load(stage, next(iter(state.animals)), state.rows, state.row_seconds) if state.rows else None
        for number in range(times):
            wait_for(lambda: all(map(stage.name_of, stage.stack.workers)), GIVE_UP_SECONDS, "a worker does not come up")
            time.sleep(chance.uniform(0, REST_SECONDS))
            _end_one(stage, load, chance, 1 + number % 3, ends)
        if load:
            ends.outcome = load.finish()
    return ends


def _end_one(stage: Stage, load: Load | None, chance: Random, signals: int, ends: Ends) -> None:
    busy = load.busy(chance) if load else None
    worker = busy.worker if busy else chance.choice(stage.stack.workers)
    takeover = Takeover(stage, busy, stage.held_by(busy.batch, busy.name), stage.now()) if busy else None
    began = time.monotonic()
    exited: list[float] = []

    def is_over() -> bool:
        if not exited and not worker.is_alive:
            exited.append(time.monotonic() - began)
        taken = takeover is None or takeover.is_complete()
        return bool(exited) and taken

    _tell(worker, chance, signals)
    stage.replace(worker)
    wait_for(is_over, GIVE_UP_SECONDS, f"{worker.name} does not end, or nobody takes its rows")
    ends.exits += exited
    ends.codes.append(worker.exit_code)
    ends.taken += takeover.seconds if takeover else []
    worker.end()


def _tell(worker: Process, chance: Random, signals: int) -> None:
    for number in range(signals):
        if number:
            time.sleep(chance.uniform(0, AGAIN_SECONDS))
        pids = processes_of(worker)
        chance.shuffle(pids)
        send(pids, signal.SIGTERM)
