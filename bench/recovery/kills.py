"""`kill -9` of busy workers, and of predictors alone."""

import signal
import time
from dataclasses import dataclass
from random import Random

from bench.processes import is_running
from bench.recovery.asked import Asked
from bench.recovery.load import Load
from bench.recovery.page import Figure, Section, longest, lost_nothing
from bench.recovery.stage import Batch, Stage, predictor_of, processes_of, send, wait_for
from bench.recovery.takeover import Takeover
from bench.surroundings import Process
from jobs.keys import job_key
from tests.zoo.estimators import Slow

KILLS = 20
ROWS = 100_000
ROW_SECONDS = 0.001  # what the model sleeps
REST_SECONDS = 3.0  # before a kill, at most
SETTLE_SECONDS = 0.1  # what a dying process has sent is in the store then, and no other has taken anything yet
MUST_SECONDS, GOAL_SECONDS = 15.0, 10.0
ORPHAN_SECONDS = 1.0
GIVE_UP_SECONDS = 60.0

CHILD_ROWS = 20_000
CHILD_CHUNK_ROWS = 20  # some 20 ms of predicting, so that a first result says when predicting went on
NOTICED_SECONDS = 1.0
AGAIN_MUST_SECONDS, AGAIN_GOAL_SECONDS = 2.0, 0.3
SAMPLE_SECONDS = 0.005


@dataclass(frozen=True)
class Lost:
    """One kill: what the worker held, and how it went on from there."""

    starts: list[float]  # seconds from the kill to the next start of each chunk
    orphans: float | None  # seconds until its other processes were gone, where only the parent was killed


def kill(asked: Asked) -> Section:
    """From the kill of a busy worker to the next start of each chunk that it held."""
    chance, times = asked.chance(), asked.times_or(KILLS)
    lost: list[Lost] = []
    with Stage({"slow": Slow()}) as stage:  # type: ignore[no-untyped-call]
        load = Load(stage, "slow", asked.rows_or(ROWS), ROW_SECONDS)
        while len(lost) < times:
            time.sleep(chance.uniform(0, REST_SECONDS))
            found = _kill_one(stage, load, chance, parent_alone=len(lost) % 2 == 0)
            if found.starts:  # else it had just handed in what it held
                lost.append(found)
        outcome = load.finish()
    starts = [max(each.starts) for each in lost]
    orphans = [each.orphans for each in lost if each.orphans is not None]
    return Section(
        f"kill -9 of a busy worker, {times} times",
        [
            longest("until what it held was started elsewhere", starts, MUST_SECONDS, GOAL_SECONDS),
            longest("until its other processes were gone, the parent alone killed", orphans, ORPHAN_SECONDS),
            *lost_nothing(outcome.wrong, outcome.failed),
        ],
        {"From the kill to the next start": starts},
        [
            f"{outcome.rows:,} rows in {len(load.batches)} batches, {outcome.counted} attempts listed",
            f"chunks that the killed worker held: {sum(len(each.starts) for each in lost)}",
            *outcome.wrong[:10],
        ],
    )


def child(asked: Asked) -> Section:
    """From the kill of a busy predictor until that is noticed, and until the next result."""
    chance, times = asked.chance(), asked.times_or(KILLS)
    noticed: list[float] = []
    again: list[float] = []
    animals = {"slow": Slow()}  # type: ignore[no-untyped-call]
    with Stage(animals, workers=1, environment={"CHUNK_ROWS": str(CHILD_CHUNK_ROWS)}) as stage:
        (worker,) = stage.stack.workers
        load = Load(stage, "slow", asked.rows_or(CHILD_ROWS), ROW_SECONDS)
        while len(noticed) < times:
            time.sleep(chance.uniform(0.3, REST_SECONDS / 2))
            found = _kill_predictor(stage, load.present(), worker)
            if found:
                noticed.append(found[0])
                again.append(found[1])
        outcome = load.finish()
        ended = [] if worker.is_alive else [f"the worker ended with {worker.exit_code}"]
    return Section(
        f"kill -9 of a predictor, {times} times",
        [
            longest("until it was noticed", noticed, NOTICED_SECONDS),
            longest("until the next result", again, AGAIN_MUST_SECONDS, AGAIN_GOAL_SECONDS),
            Figure("workers that ended", len(ended), "", 0, 0),
            *lost_nothing(outcome.wrong, outcome.failed),
        ],
        {"Until it was noticed": noticed, "Until the next result": again},
        [
            f"{outcome.rows:,} rows, {outcome.counted} attempts listed",
            f"a result is a chunk of {CHILD_CHUNK_ROWS} rows, or a part of it, at 1 ms a row",
            *ended,
            *outcome.wrong[:10],
        ],
    )


def _kill_one(stage: Stage, load: Load, chance: Random, parent_alone: bool) -> Lost:
    busy = load.busy(chance)
    victim = busy.worker
    pids = processes_of(victim)
    chance.shuffle(pids)
    killed_at = stage.now()
    send([victim.pid] if parent_alone else pids, signal.SIGKILL)
    orphans = _until_gone([pid for pid in pids if pid != victim.pid]) if parent_alone else None
    time.sleep(SETTLE_SECONDS)
    held = stage.held_by(busy.batch, busy.name)
    stage.replace(victim)
    victim.end()
    takeover = Takeover(stage, busy, held, killed_at)
    wait_for(takeover.is_complete, GIVE_UP_SECONDS, f"chunks {held} are not started again")
    return Lost(takeover.seconds, orphans)


def _until_gone(pids: list[int]) -> float:
    began = time.monotonic()
    wait_for(lambda: not any(map(is_running, pids)), GIVE_UP_SECONDS, f"{pids} outlive their parent", pause=0.005)
    return time.monotonic() - began


def _kill_predictor(stage: Stage, batch: Batch, worker: Process) -> tuple[float, float] | None:
    """Seconds until it was noticed and until the next result; None when nothing was asked of the predictor."""
    wait_for(lambda: stage.leases(batch), GIVE_UP_SECONDS, "nothing is leased")
    before = set(processes_of(worker))
    attempts = _attempts(stage, batch)
    began = time.monotonic()
    victim = predictor_of(worker)
    if victim is None:
        return None
    send([victim], signal.SIGKILL)
    wait_for(lambda: set(processes_of(worker)) - before, GIVE_UP_SECONDS, "no new predictor", pause=SAMPLE_SECONDS)
    replaced = time.monotonic() - began
    finished = _finished(stage, batch)
    wait_for(lambda: _finished(stage, batch) != finished, GIVE_UP_SECONDS, "no result", pause=SAMPLE_SECONDS)
    again = time.monotonic() - began
    return (replaced, again) if _attempts(stage, batch) > attempts else None


def _attempts(stage: Stage, batch: Batch) -> int:
    return int(stage.store.hget(job_key(batch.job_id), "attempts") or 0)


def _finished(stage: Stage, batch: Batch) -> tuple[int, int]:
    """How many chunks of a batch are done, and how many parts of chunks that are being searched."""
    parts = stage.store.hkeys(job_key(batch.job_id, "parts"))
    return stage.chunks_done(batch), sum(b":" in part for part in parts)
