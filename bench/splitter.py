"""How fast the splitter cuts bodies of different kinds: `python -m bench.splitter`."""

import random
import time
import tracemalloc
from collections.abc import Callable
from functools import partial

from jobs.codec.cells import split_records
from jobs.splitter import CsvSplitter, NdjsonSplitter

ROWS = 200_000
PIECE_BYTES = 64 * 1024
CHUNK_ROWS, CHUNK_BYTES = 10_000, 1 << 20
MAX_RECORD_BYTES = 1 << 20
REPEATS = 5


def main() -> None:
    """Prints a table: the best of some runs, and the most memory that one run took."""
    print(f"{ROWS:,} rows, pieces of {PIECE_BYTES // 1024} KiB, chunks of at most {CHUNK_ROWS:,} rows or 1 MiB\n")
    print(f"{'body':<28}{'MB':>6}{'split MB/s':>12}{'records MB/s':>14}{'peak MB':>9}")
    for name, (body, json) in bodies().items():
        split_seconds = best(partial(split, body, json))
        records_seconds = best(partial(split_records, body, b",")) if not json else None
        size = len(body) / 1e6
        records = f"{size / records_seconds:14.0f}" if records_seconds else " " * 14
        print(f"{name:<28}{size:>6.0f}{size / split_seconds:>12.0f}{records}{peak_megabytes(body, json):>9.1f}")


def bodies() -> dict[str, tuple[bytes, bool]]:
    """The bodies by name, and whether each is NDJSON."""
    draw = random.Random(1)
    numbers = [[f"{draw.random():.5f}" for _ in range(10)] for _ in range(ROWS)]
    names = [f"c{number}" for number in range(10)]

    def csv(line_end: str, rows: list[list[str]]) -> bytes:
        return "".join(",".join(row) + line_end for row in [names[: len(rows[0])], *rows]).encode()

    def named(cell: Callable[[int], str]) -> list[list[str]]:
        return [[cell(place), *row[1:]] for place, row in enumerate(numbers)]

    quoted = [[f'"{cell}"' for cell in row] for row in numbers]
    objects = "".join(
        "{" + ",".join(f'"{name}":{cell}' for name, cell in zip(names, row, strict=True)) + "}\n" for row in numbers
    )
    return {
        "no quotes, LF": (csv("\n", numbers), False),
        "no quotes, CRLF": (csv("\r\n", numbers), False),
        "one column, LF": (csv("\n", [row[:1] for row in numbers * 3]), False),
        "one quoted cell a row": (csv("\n", named(lambda n: f'"street, ""{n}"""')), False),
        "one cell of two lines a row": (csv("\n", named(lambda n: f'"street\n{n}"')), False),
        "all cells quoted, CRLF": (csv("\r\n", quoted), False),
        "an ordinary quote a row": (csv("\n", named(lambda n: f'{n}" pipe')), False),
        "blank line after each row": (csv("\n\n", numbers), False),
        "NDJSON objects": (objects.encode(), True),
    }


def split(body: bytes, json: bool) -> int:
    """Cuts a body that arrives in pieces into chunks; returns its rows."""
    splitter = NdjsonSplitter(MAX_RECORD_BYTES) if json else CsvSplitter(",", MAX_RECORD_BYTES, 1000)
    rows = 0
    for start in range(0, len(body), PIECE_BYTES):
        splitter.feed(body[start : start + PIECE_BYTES])
        while chunk := splitter.take(CHUNK_ROWS, CHUNK_BYTES):
            rows += chunk.rows
    splitter.finish()
    while chunk := splitter.take(CHUNK_ROWS, CHUNK_BYTES, flush=True):
        rows += chunk.rows
    return rows


def best(run: Callable[[], object]) -> float:
    """The shortest time of some runs, in seconds."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def peak_megabytes(body: bytes, json: bool) -> float:
    """The most memory that one run takes beside the body."""
    tracemalloc.start()
    split(body, json)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


if __name__ == "__main__":
    main()
