"""What the predictor does with one chunk: records in, records with our columns out, in the same order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from jobs.codec import cells, inputs, json_text
from jobs.codec.chunk import Failure
from jobs.codec.layout import Layout, class_text
from models.catalog import Manifest
from models.predictor import Outcome, Prediction, Predictor
from models.rows import RowError, Value, arrange, read_row

# The predictor looks at the outside between two sub-blocks, so a single prediction waits about this long.
SUB_BLOCK_SECONDS = 0.025
FIRST_SUB_BLOCK_ROWS = 32
LARGEST_SUB_BLOCK_ROWS = 16_384


class RecordCountDiffers(Exception):
    """Raised when a chunk holds other records than the splitter counted: a defect, never to be papered over."""


@dataclass(frozen=True, slots=True)
class Row:
    """One input record: as it was sent, its kept cells, and what the model gets or why it gets nothing."""

    record: bytes
    kept: bytes
    line_end: bytes
    values: list[Value] | RowError
    has_surplus: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """The outcome of a chunk: one CSV record a row, and the rows that failed."""

    records: bytes
    failures: list[Failure]
    ok: int
    has_surplus: bool


def score(
    chunk: bytes, expected_rows: int, layout: Layout, predictor: Predictor, between: Callable[[int], None]
) -> Scored:
    """Predicts every row of a chunk. `between` is called after each sub-block with the number of rows done."""
    rows = read_chunk(chunk, expected_rows, layout, predictor.manifest)
    return render(rows, predict(rows, predictor, between), layout)


def condemn(chunk: bytes, expected_rows: int, layout: Layout, manifest: Manifest, verdict: RowError) -> Scored:
    """Gives every row of a chunk that could not be predicted the same error; rows that are wrong keep their own."""
    rows = read_chunk(chunk, expected_rows, layout, manifest)
    outcomes: list[Outcome] = [row.values if isinstance(row.values, RowError) else verdict for row in rows]
    return render(rows, outcomes, layout)


def read_chunk(chunk: bytes, expected_rows: int, layout: Layout, manifest: Manifest) -> list[Row]:
    """The rows of a chunk. Raises RecordCountDiffers."""
    if layout.format == "csv":
        reader = _CsvReader(layout, manifest)
        rows = [reader.row(record) for record in cells.split_records(chunk, reader.delimiter)]
    else:
        rows = [_json_row(line, layout, manifest) for line in cells.split_lines(chunk)]
    if len(rows) != expected_rows:
        raise RecordCountDiffers(f"{expected_rows} records were counted and {len(rows)} were read")
    return rows


class _CsvReader:
    def __init__(self, layout: Layout, manifest: Manifest) -> None:
        self.delimiter = layout.delimiter.encode()
        self._layout = layout
        self._manifest = manifest
        self._width = len(layout.columns)
        self._feature_columns = [layout.columns.index(name) for name in manifest.feature_names]
        self._keeps_all = len(layout.keep) == self._width

    def row(self, record: bytes) -> Row:
        body, line_end = cells.split_line_end(record)
        line_end = line_end or self._layout.line_end.encode()
        found = cells.split_cells(body, self.delimiter)
        if len(found) != self._width:
            return self._uneven(body, line_end, len(found))
        kept = body if self._keeps_all else self.delimiter.join([found[index] for index in self._layout.keep])
        try:
            texts = [cells.unquote(found[column]) for column in self._feature_columns]
            return Row(body, kept, line_end, read_row(texts, self._manifest))
        except RowError as error:
            return Row(body, kept, line_end, error)

    def _uneven(self, body: bytes, line_end: bytes, count: int) -> Row:
        fitted, surplus = inputs.fitted(self._layout, body)
        kept = self.delimiter.join([fitted[index] for index in self._layout.keep])
        error = RowError("wrong_cell_count", None, f"{count} cells where the header has {self._width}")
        return Row(body, kept, line_end, error, has_surplus=bool(surplus))


def _json_row(line: bytes, layout: Layout, manifest: Manifest) -> Row:
    body = line.rstrip(b"\r\n")
    fitted, surplus = inputs.fitted(layout, body)
    kept = layout.delimiter.encode().join([fitted[index] for index in layout.keep])
    try:
        values: list[Value] | RowError = read_row(arrange(json_text.loads(body), manifest), manifest)
    except RowError as error:
        values = error
    return Row(body, kept, layout.line_end.encode(), values, has_surplus=bool(surplus))


def predict(rows: Sequence[Row], predictor: Predictor, between: Callable[[int], None]) -> list[Outcome]:
    """One outcome for each row; rows that cannot be predicted keep their error and never reach the model."""
    good = [(number, row.values) for number, row in enumerate(rows) if not isinstance(row.values, RowError)]
    outcomes: list[Outcome | None] = [row.values if isinstance(row.values, RowError) else None for row in rows]
    start, size = 0, FIRST_SUB_BLOCK_ROWS
    while start < len(good):
        block = good[start : start + size]
        began = perf_counter()
        predicted = predictor.predict([values for _, values in block])
        for (number, _), outcome in zip(block, predicted, strict=True):
            outcomes[number] = outcome
        start += len(block)
        size = _next_size(len(block), perf_counter() - began)
        between(start)
    return [outcome for outcome in outcomes if outcome is not None]


def _next_size(rows: int, seconds: float) -> int:
    """How many rows the next sub-block has: by the last one's speed, but growing by no more than eight times."""
    fitting = int(rows * SUB_BLOCK_SECONDS / max(seconds, 1e-6))
    return max(1, min(fitting, rows * 8, LARGEST_SUB_BLOCK_ROWS))


def render(rows: Sequence[Row], outcomes: Sequence[Outcome], layout: Layout) -> Scored:
    """The rows with our columns behind the kept cells. Every row has exactly one outcome."""
    delimiter = layout.delimiter.encode()
    records, failures = [], []
    for number, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
        if isinstance(outcome, Prediction):
            ours = _prediction_cells(outcome, layout, delimiter)
        else:
            ours = _error_cells(outcome, layout, delimiter)
            record = row.record.decode()
            failures.append(Failure(number, outcome.code, outcome.column, outcome.message, record))
        before = (row.kept, delimiter) if layout.keep else ()
        records.append(b"".join((*before, ours, row.line_end)))
    surplus = any(row.has_surplus for row in rows)
    return Scored(b"".join(records), failures, len(rows) - len(failures), surplus)


def _prediction_cells(outcome: Prediction, layout: Layout, delimiter: bytes) -> bytes:
    texts = [class_text(outcome.value)]
    if layout.has_probabilities and outcome.probabilities is not None:
        texts += [repr(probability) for probability in outcome.probabilities]
    return delimiter.join([*(cells.quote(text, delimiter) for text in texts), b""])


def _error_cells(error: RowError, layout: Layout, delimiter: bytes) -> bytes:
    empty = delimiter * (len(layout.outputs) - 1)
    return empty + cells.quote(f"{error.code}: {error.message}", delimiter)


def single_outcome(outcome: Outcome, manifest: Manifest) -> dict[str, object]:
    """The outcome of a single prediction as JSON carries it."""
    if isinstance(outcome, RowError):
        return {"code": outcome.code, "message": outcome.message}
    result: dict[str, object] = {"prediction": outcome.value}
    if manifest.classes is not None and outcome.probabilities is not None:
        result["probabilities"] = dict(zip(map(class_text, manifest.classes), outcome.probabilities, strict=True))
    return {"result": result}
