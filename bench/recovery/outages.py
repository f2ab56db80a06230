"""A store that is killed and comes back, and one that is full for a while, during a batch."""

import http.client
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

from bench.recovery.asked import Asked
from bench.recovery.load import Outcome
from bench.recovery.page import Figure, Section, longest, lost_nothing
from bench.recovery.stage import Batch, Stage, ask, wait_for
from jobs.keys import job_key
from tests.zoo.estimators import Slow

TIMES = 5
ROWS = 300_000  # two workers need two and a half minutes
FULL_ROWS = 60_000
ROW_SECONDS = 0.001
AWAY_SECONDS = 5.0
FULL_SECONDS = 10.0
POLL_SECONDS = 0.2
ANSWER_SECONDS, ON_SECONDS = 3.0, 5.0
GIVE_UP_SECONDS = 60.0
PLENTY_BYTES = 512 << 20
SMALL = b"x\n1\n"


@dataclass(frozen=True)
class Answered:
    """One request of the poller; `status` is 0 where no answer came."""

    path: str
    seconds: float
    status: int


class Poller:
    """Asks for some paths all the time while the block lasts, each in a thread of its own."""

    def __init__(self, url: str, *paths: str) -> None:
        self.answers: list[Answered] = []
        self._url = url
        self._paths = paths
        self._over = Event()

    def __enter__(self) -> "Poller":
        self._threads = ThreadPoolExecutor(len(self._paths))
        self._asking = [self._threads.submit(self._poll, path) for path in self._paths]
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for asking in self._asking:
            asking.result()
        self._threads.shutdown()

    def _poll(self, path: str) -> None:
        while not self._over.wait(POLL_SECONDS):
            began = time.perf_counter()
            try:
                status, _ = ask(self._url, path)
            except (OSError, http.client.HTTPException):
                status = 0
            self.answers.append(Answered(path, time.perf_counter() - began, status))

    @property
    def slowest(self) -> float:
        return max(answer.seconds for answer in self.answers)

    def strange(self) -> list[Answered]:
        """Answers that are neither 200 nor 503."""
        return [answer for answer in self.answers if answer.status not in (200, 503)]

    def count(self, status: int) -> int:
        return sum(answer.status == status for answer in self.answers)


def store(asked: Asked) -> Section:
    """`kill -9` of the store with an append-only file, away for some seconds each time, during one batch."""
    times, rows = asked.times_or(TIMES), asked.rows_or(ROWS)
    chance = asked.chance()
    on: list[float] = []
    with Stage({"slow": Slow(ROW_SECONDS * 1000)}) as stage:  # type: ignore[no-untyped-call]
        pids = stage.pids()
        batch = stage.begin("slow", range(rows))
        with Poller(stage.stack.url, batch.path, "/healthz") as poller:
            for number in range(times):
                # Spread over the batch, so that the last one is well within it.
                wanted = rows * (number + chance.uniform(0.3, 0.9)) / (times + 0.5)
                _wait_for_rows(stage, batch, wanted)
                stage.server.process.signal(signal.SIGKILL)
                time.sleep(AWAY_SECONDS)
                stage.server.restart()
                on.append(_until_work_goes_on(stage, batch))
            outcome = _outcome(stage, batch)
        gone = sorted(set(pids) - set(stage.pids()))
    return _section(
        f"kill -9 of the store, {times} times, {AWAY_SECONDS:g} s away each, append-only file",
        [longest("from its return until the next chunk was done", on, ON_SECONDS)],
        {"From the store's return to the next chunk done": on},
        poller=poller,
        gone=gone,
        outcome=outcome,
    )


def full(asked: Asked) -> Section:
    """The store's memory is taken away during a batch, and given back after some seconds."""
    rows = asked.rows_or(FULL_ROWS)
    with Stage({"slow": Slow(ROW_SECONDS * 1000)}) as stage:  # type: ignore[no-untyped-call]
        stage.store.config_set("maxmemory", PLENTY_BYTES)
        pids = stage.pids()
        batch = stage.begin("slow", range(rows))
        with Poller(stage.stack.url, batch.path, "/healthz") as poller:
            _wait_for_rows(stage, batch, rows / 4)
            refused, done = _while_full(stage, batch)
            on = [_until_work_goes_on(stage, batch)]
            outcome = _outcome(stage, batch)
        gone = sorted(set(pids) - set(stage.pids()))
        accepted_again = _submit(stage)
    return _section(
        f"maxmemory reached during a batch, given back after {FULL_SECONDS:g} s",
        [
            longest("from giving it back until the next chunk was done", on, ON_SECONDS),
            Figure("submissions while it was full that were not 507", sum(s != 507 for s in refused), "", 0, 0),
            Figure("submissions afterwards that were not 202", int(accepted_again != 202), "", 0, 0),
        ],
        {},
        poller=poller,
        gone=gone,
        outcome=outcome,
        facts=[f"while it was full, {len(refused)} submissions were refused and {done} chunks were done"],
    )


def _while_full(stage: Stage, batch: Batch) -> tuple[list[int], int]:
    """What submissions were answered, and how many chunks were done, while there was no memory to be had."""
    before = stage.chunks_done(batch)
    refused = []
    stage.store.config_set("maxmemory", 1)  # whatever there is, is too much
    until = time.monotonic() + FULL_SECONDS
    while time.monotonic() < until:
        refused.append(_submit(stage))
        time.sleep(POLL_SECONDS)
    done = stage.chunks_done(batch) - before
    stage.store.config_set("maxmemory", PLENTY_BYTES)
    return refused, done


def _submit(stage: Stage) -> int:
    """The status that a small batch is answered with."""
    host = stage.stack.url.partition("//")[2]
    connection = http.client.HTTPConnection(host, timeout=30)
    try:
        connection.request("POST", "/jobs", SMALL, {"Content-Type": "text/csv"})
        return connection.getresponse().status
    finally:
        connection.close()


def _wait_for_rows(stage: Stage, batch: Batch, rows: float) -> None:
    def is_there() -> bool:
        done = int(stage.store.hget(job_key(batch.job_id), "rows_ok") or 0)
        return done >= rows

    wait_for(is_there, 60 + rows * ROW_SECONDS * 5, f"{rows:.0f} rows are not done")


def _until_work_goes_on(stage: Stage, batch: Batch) -> float:
    began, before = time.monotonic(), stage.chunks_done(batch)
    wait_for(lambda: stage.chunks_done(batch) > before, GIVE_UP_SECONDS, "no chunk is done")
    return time.monotonic() - began


def _outcome(stage: Stage, batch: Batch) -> Outcome:
    job = stage.ended(batch, 60 + len(batch.values) * ROW_SECONDS * 5)
    failed, attempts = job["progress"]["rows_failed"], job["attempts"]
    return Outcome(len(batch.values), stage.wrong_rows(batch), failed, attempts)


def _section(
    title: str,
    figures: list[Figure],
    times: dict[str, list[float]],
    *,
    poller: Poller,
    gone: list[int],
    outcome: Outcome,
    facts: Sequence[str] = (),
) -> Section:
    return Section(
        title,
        [
            *figures,
            Figure("slowest answer of the web process", poller.slowest, "s", ANSWER_SECONDS),
            Figure("answers that were neither 200 nor 503", len(poller.strange()), "", 0, 0),
            Figure("worker processes that ended", len(gone), "", 0, 0),
            *lost_nothing(outcome.wrong, outcome.failed),
        ],
        times,
        [
            f"{outcome.rows:,} rows at 1 ms, {outcome.counted} attempts counted",
            f"{len(poller.answers)} requests of a poller, {poller.count(503)} answered with 503",
            *facts,
            *map(str, poller.strange()[:5]),
            *outcome.wrong[:10],
        ],
    )
