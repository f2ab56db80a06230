"""What the predictor does with one chunk: records in, records with our columns out, in the same order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

from jobs.codec.chunk import Failure
from jobs.codec.layout import Layout, class_text
from models.catalog import Manifest
from models.predictor import Outcome, Predicted, Predictor, concatenated
from models.rows import RowError
from worker.reading import Reading, read_chunk
from worker.rendering import error_cells, join, outcome_cells, plain_records

# What is told of a step before it is taken: "predict" or "write", and of which rows up to which.
Begin = Callable[[str, int, int], None]

# The predictor looks at the outside between two sub-blocks, so a single prediction waits about this long.
SUB_BLOCK_SECONDS = 0.04
FIRST_GROWTH_ROWS = 32
LARGEST_SUB_BLOCK_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Scored:
    """The outcome of a chunk: one CSV record a row, and the rows that failed."""

    records: bytes
    failures: list[Failure]
    ok: int
    has_surplus: bool


class SubBlocks:
    """How many rows of a model make a sub-block: learnt from one to the next, across chunks."""

    def __init__(self) -> None:
        self.rows = 1  # of a model that nobody has measured, one row may take long

    def learn(self, rows: int, seconds: float) -> None:
        """Goes by the speed of the last sub-block, but grows by no more than eight times."""
        fitting = int(rows * SUB_BLOCK_SECONDS / max(seconds, 1e-6))
        self.rows = max(1, min(fitting, max(rows, FIRST_GROWTH_ROWS) * 8, LARGEST_SUB_BLOCK_ROWS))


def score(
    chunk: bytes,
    count: int,
    layout: Layout,
    predictor: Predictor,
    *,
    sub_blocks: SubBlocks,
    begin: Begin,
) -> Scored:
    """Predicts every row of a chunk of `count` records; `begin` is told of each step that follows the reading.

    Raises RecordCountDiffers.
    """
    reading = read_chunk(chunk, count, layout, predictor.manifest)
    predicted = _predict(reading, predictor, sub_blocks, begin)
    begin("write", 0, count)
    if not reading.errors and not predicted.errors:
        records = plain_records(predicted, reading, layout)
        if records is not None:
            return Scored(records, [], count, False)
    errors = {_place(reading, row): error for row, error in predicted.errors.items()}
    return _render(reading, outcome_cells(predicted, layout), {**reading.errors, **errors}, layout)


def _predict(reading: Reading, predictor: Predictor, sub_blocks: SubBlocks, begin: Begin) -> Predicted:
    """What the model says of the rows that are right, sub-block by sub-block."""
    parts: list[Predicted] = []
    done, rows = 0, len(reading.columns[0])
    while done < rows:
        end = min(done + sub_blocks.rows, rows)
        begin("predict", _place(reading, done), _place(reading, end - 1) + 1)
        began = perf_counter()
        block = [column[done:end] for column in reading.columns]
        parts.append(predictor.predict_columns(block, SUB_BLOCK_SECONDS))
        done += len(parts[-1].values)
        sub_blocks.learn(len(parts[-1].values), perf_counter() - began)
    return concatenated(parts)


def _place(reading: Reading, row: int) -> int:
    return row if reading.rows is None else int(reading.rows[row])


def _render(reading: Reading, predicted: list[bytes], errors: Mapping[int, RowError], layout: Layout) -> Scored:
    ours = [cell + layout.delimiter.encode() for cell in predicted]
    if reading.rows is not None:
        placed = [b""] * reading.count
        for place, cell in zip(reading.rows.tolist(), ours, strict=True):
            placed[place] = cell
        ours = placed
    failures = []
    for place in sorted(errors):
        error = errors[place]
        ours[place] = error_cells(error, layout)
        record = reading.records()[place].decode()
        failures.append(Failure(place, error.code, error.column, error.message, record))
    records = join(reading.kept(), ours, reading.line_ends, layout)
    return Scored(records, failures, reading.count - len(failures), reading.has_surplus)


def single_outcome(outcome: Outcome, manifest: Manifest) -> dict[str, object]:
    """The outcome of a single prediction as JSON carries it."""
    if isinstance(outcome, RowError):
        return {"code": outcome.code, "column": outcome.column, "message": outcome.message}
    result: dict[str, object] = {"prediction": outcome.value}
    if manifest.classes is not None and outcome.probabilities is not None:
        result["probabilities"] = dict(zip(map(class_text, manifest.classes), outcome.probabilities, strict=True))
    return {"result": result}
