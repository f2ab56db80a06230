"""Rows that do harm, one of each kind, in large batches: exactly they must fail, and how long that takes."""

import time
from collections.abc import Mapping

from bench.recovery.asked import Asked
from bench.recovery.page import Figure, Section
from bench.recovery.stage import Stage
from tests.zoo.estimators import Poisons

ROWS = 100_000
CHUNK_ROWS = 5_000
CHUNK_SECONDS = 30.0  # for a chunk with one poison row
GIVE_UP_SECONDS = 600.0
CODES = {-1: "model_error", -2: "worker_crashed", -3: "worker_crashed", -4: "timeout", -5: "out_of_memory"}
KINDS = {-1: "raises", -2: "segfaults", -3: "calls os._exit", -4: "never returns from C", -5: "allocates 50 GB"}


def poison(asked: Asked) -> Section:
    """Five poison rows in a large batch, scattered and all in one chunk; then one row of each kind in one chunk."""
    chance, rows = asked.chance(), asked.rows_or(ROWS)
    seconds: dict[str, float] = {}
    wrong: list[str] = []
    facts: list[str] = []
    animals = {"poisons": Poisons()}
    with Stage(animals) as stage:
        for says, places in (
            ("five rows, scattered", chance.sample(range(rows), len(CODES))),
            # Behind the first chunk, which is small, and within the second.
            ("five rows in one chunk", chance.sample(range(1_000, 2_000), len(CODES))),
        ):
            found = _once(stage, rows, dict(zip(places, CODES, strict=True)))
            seconds[f"{rows:,} rows, {says}"] = found[0]
            wrong += found[1]
            facts.append(f"{says}: {found[2]}")
        pids = stage.pids()
    with Stage(animals, environment={"FIRST_CHUNK_ROWS": str(CHUNK_ROWS)}) as stage:
        for value, kind in KINDS.items():
            found = _once(stage, CHUNK_ROWS, {chance.randrange(CHUNK_ROWS): value})
            seconds[f"one chunk of {CHUNK_ROWS:,} rows, one that {kind}"] = found[0]
            wrong += found[1]
            facts.append(f"one chunk, {kind}: {found[2]}")
        pids += stage.pids()
    return Section(
        "Poison rows",
        [
            *(Figure(says, took, "s", _limit(says)) for says, took in seconds.items()),
            Figure("workers that ended", 4 - len(pids), "", 0, 0),
            Figure("rows that are not right", len(wrong), "", 0, 0),
        ],
        {},
        [*facts, *wrong[:10]],
    )


def _once(stage: Stage, rows: int, poisons: Mapping[int, int]) -> tuple[float, list[str], str]:
    """Seconds from the submission to the end, what is not as it must be, and the chunks and attempts that it took."""
    values = [poisons.get(place, place) for place in range(rows)]
    began = time.monotonic()
    batch = stage.begin("poisons", values)
    job = stage.ended(batch, GIVE_UP_SECONDS)
    seconds = time.monotonic() - began
    wrong = stage.wrong_rows(batch, {place: CODES[value] for place, value in poisons.items()})
    sizes = stage.chunk_sizes(batch)
    hit = len({_chunk_of(place, sizes) for place in poisons})
    reasons = [attempt["reason"] for attempt in job["attempts"]]
    listed = ", ".join(f"{reasons.count(reason)} {reason}" for reason in sorted(set(reasons))) or "none"
    return seconds, wrong, f"{len(sizes)} chunks, {hit} with poison; attempts listed: {listed}"


def _limit(says: str) -> float:
    return CHUNK_SECONDS if says.startswith("one chunk") else len(CODES) * CHUNK_SECONDS


def _chunk_of(place: int, sizes: list[int]) -> int:
    """The index of the chunk that holds a row."""
    for index, size in enumerate(sizes):
        if place < size:
            return index
        place -= size
    raise ValueError("the row is in no chunk")
