"""Predicts rows with a loaded model. Only the predicting process, and who adds a model, import this."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.catalog import Class, Manifest
from models.estimator import Estimator, categories, plain
from models.rows import RowError, Value


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one row; probabilities stand in the order of the manifest's classes."""

    value: Class
    probabilities: tuple[float, ...] | None = None


Outcome = Prediction | RowError

_WANTS_MEMORY = "out_of_memory"

# The values of one feature: float64 with NaN where one is missing, or objects with None there.
Column = npt.NDArray[Any]


class Answer(NamedTuple):
    """What the model said of a block of rows."""

    values: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class Predicted:
    """What came out of a block of rows: one value a row, which means nothing where `errors` has the row."""

    values: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64] | None
    errors: dict[int, RowError]

    def outcomes(self) -> list[Outcome]:
        """One outcome a row, in order."""
        probabilities = self.probabilities.tolist() if self.probabilities is not None else None
        return [
            self.errors.get(row)
            or Prediction(cast(Class, plain(value)), tuple(probabilities[row]) if probabilities else None)
            for row, value in enumerate(self.values.tolist())
        ]


def concatenated(parts: Sequence[Predicted]) -> Predicted:
    """The parts of a block, one behind the other, as one."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Predicted(np.empty(0), None, {})
    probabilities = [part.probabilities for part in parts if part.probabilities is not None]
    *starts, count = np.cumsum([0, *(len(part.values) for part in parts)]).tolist()
    width = probabilities[0].shape[1] if probabilities else 0
    placed = list(zip(starts, parts, strict=True))
    # Where every row has an error the values mean nothing, nor does their type.
    answers = [(start, part.values) for start, part in placed if len(part.errors) < len(part.values)]
    return Predicted(
        values=_as_one(answers, count),
        probabilities=np.concatenate(
            [
                np.zeros((len(part.values), width)) if part.probabilities is None else part.probabilities
                for part in parts
            ]
        )
        if probabilities
        else None,
        errors={start + row: error for start, part in placed for row, error in part.errors.items()},
    )


def columns_of(rows: Sequence[Sequence[Value]], manifest: Manifest) -> list[Column]:
    """Rows that `rows.read_row` has read, as columns."""
    return [
        _objects(cells) if feature.type == "text" else np.array(cells, dtype=np.float64)  # None becomes NaN
        for feature, cells in zip(
            manifest.features, zip(*rows, strict=True) if rows else [()] * len(manifest.features), strict=True
        )
    ]


class Predictor:
    """One loaded model."""

    def __init__(self, manifest: Manifest, estimator: Estimator) -> None:
        self.manifest = manifest
        self._estimator = estimator
        self.is_crowded: Callable[[], bool] = lambda: False  # whether others have the memory that a row may lack
        known = categories(estimator, manifest.feature_names)
        # An encoder that was fitted on None takes NaN for something it has never seen, and the other way round.
        self._absent = [None if None in known.get(name, ()) else np.nan for name in manifest.feature_names]

    def predict(self, rows: Sequence[Sequence[Value]]) -> list[Outcome]:
        """One outcome a row, in order, for rows that `rows.read_row` has read."""
        return self.predict_columns(columns_of(rows, self.manifest)).outcomes()

    def predict_columns(self, columns: Sequence[Column], seconds: float = math.inf) -> Predicted:
        """What the model says of the rows whose values stand in the columns, one for each feature.

        When the model raises, the block is halved until the rows that make it raise stand alone. That may take long,
        so after `seconds` it ends early: with the first rows of the block, one at least.

        Raises MemoryError when a row that stands alone wants more memory than there is and `is_crowded` says that it
        may not be to blame.
        """
        count = len(columns[0])
        answers: list[tuple[int, Answer]] = []
        errors: dict[int, RowError] = {}
        done = self._ask_halving(columns, monotonic() + seconds, answers, errors) if count else 0
        # Only now: while the model's exception was at hand it held what the model had taken.
        if any(error.code == _WANTS_MEMORY for error in errors.values()) and self.is_crowded():
            raise MemoryError
        return self._checked(_joined(answers, done), errors, done)

    def ask(self, columns: Sequence[Column]) -> Answer:
        """The model's own answer to a block of rows; raises whatever the model raises."""
        block = self.build_block(columns)
        with warnings.catch_warnings():
            # Columns were matched by name already; an array is faster, and all that is missed is the names.
            warnings.filterwarnings("ignore", "X (has|does not have valid) feature names", UserWarning)
            values = np.asarray(self._estimator.predict(block))
            probabilities = None
            if self.manifest.has_probabilities:
                # Many estimators give a transposed array; what is rendered in bulk has to lie row by row.
                probabilities = np.asarray(self._estimator.predict_proba(block), dtype=np.float64, order="C")
        if values.ndim == 2 and values.shape[1] == 1:  # fitted on a target of one column
            values = values[:, 0]
        return Answer(values, probabilities)

    def build_block(self, columns: Sequence[Column]) -> npt.NDArray[np.float64] | pd.DataFrame:
        """The rows as the estimator takes them: a C-ordered array, or a frame where it chooses columns by name."""
        if not self.manifest.needs_frame:
            return np.column_stack(columns)
        features = zip(self.manifest.features, self._absent, columns, strict=True)
        return pd.DataFrame(
            {
                feature.name: _text_column(column, absent) if feature.type == "text" else column
                for feature, absent, column in features
            }
        )

    def _ask_halving(
        self, columns: Sequence[Column], until: float, answers: list[tuple[int, Answer]], errors: dict[int, RowError]
    ) -> int:
        """Fills in answers and errors from the first row on; how many rows are done when time or rows are over."""
        done, blocks = 0, [(0, len(columns[0]))]
        while blocks and (done == 0 or monotonic() < until):
            start, stop = blocks.pop()
            try:
                answer = self.ask([column[start:stop] for column in columns])
            except Exception as error:  # a model may raise anything
                if stop - start > 1:
                    middle = (start + stop) // 2
                    blocks += [(middle, stop), (start, middle)]
                    continue
                errors[start] = _raised(error)
            else:
                problem = self._misfit(answer, stop - start)
                if problem:
                    errors.update(dict.fromkeys(range(start, stop), problem))
                else:
                    answers.append((start, answer))
            done = stop
        return done

    def _misfit(self, answer: Answer, count: int) -> RowError | None:
        """What is wrong with the shape of an answer."""
        if answer.values.shape != (count,):
            return _model_error("the model did not give one prediction for each row")
        expected = (count, len(self.manifest.classes or ()))
        if answer.probabilities is not None and answer.probabilities.shape != expected:
            return _model_error("the model did not give one probability for each class")
        return None

    def _checked(self, answer: Answer, errors: dict[int, RowError], count: int) -> Predicted:
        """The answer, with an error for each prediction that is none."""
        values, probabilities = answer
        for row in np.flatnonzero(~_finite(answer, count)).tolist():
            errors.setdefault(row, RowError("not_finite", None, "the prediction is not a finite number"))
        if values.dtype.kind not in "fiubU":
            for row, value in enumerate(values.tolist()):
                if not isinstance(plain(value), str | int | float):
                    problem = "the prediction is neither a number nor text nor a boolean"
                    errors.setdefault(row, _model_error(problem))
        return Predicted(values, probabilities, errors)


def _joined(answers: Sequence[tuple[int, Answer]], count: int) -> Answer:
    """The answers to the parts of a block as one; rows without an answer are filled with nothing in particular."""
    if len(answers) == 1 and len(answers[0][1].values) == count:
        return answers[0][1]
    widths = {answer.probabilities.shape[1] for _, answer in answers if answer.probabilities is not None}
    probabilities = np.zeros((count, widths.pop())) if widths else None
    if probabilities is not None:
        for start, answer in answers:
            probabilities[start : start + len(answer.values)] = answer.probabilities
    return Answer(_as_one([(start, answer.values) for start, answer in answers], count), probabilities)


def _as_one(parts: Sequence[tuple[int, npt.NDArray[Any]]], count: int) -> npt.NDArray[Any]:
    """Values that stand from these rows on as one array of `count`, with nothing in particular between them.

    Each keeps its type, for 1 and 1.0 are different predictions, and not every int is a float.
    """
    types = {values.dtype for _, values in parts}
    if types and all(kind.kind == "U" for kind in types):
        types = {max(types, key=lambda kind: kind.itemsize)}  # texts differ in their longest one only
    one = np.zeros(count, dtype=types.pop() if len(types) == 1 else object if types else float)
    for start, values in parts:
        one[start : start + len(values)] = values
    return one


def _finite(answer: Answer, count: int) -> npt.NDArray[np.bool_]:
    values, probabilities = answer
    finite: npt.NDArray[np.bool_]
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
    elif values.dtype.kind == "O":
        plain_values = map(plain, values)  # a numpy float32 is no float
        finite = np.array([not isinstance(value, float) or math.isfinite(value) for value in plain_values], dtype=bool)
    else:
        finite = np.ones(count, dtype=bool)
    if probabilities is not None:
        finite &= np.isfinite(probabilities).all(axis=1)
    return finite


def _raised(error: Exception) -> RowError:
    if isinstance(error, MemoryError):
        return RowError(_WANTS_MEMORY, None, "the model wants more memory for this row than there is")
    # The exception's text may hold the row's values, its type does not.
    return _model_error(f"the model raised {type(error).__name__}")


def _model_error(message: str) -> RowError:
    return RowError("model_error", None, message)


def _objects(cells: Sequence[Value]) -> Column:
    column = np.empty(len(cells), dtype=object)
    column[:] = cells
    return column


def _text_column(column: Column, absent: float | None) -> pd.Series:
    if absent is not None:
        column = _objects([absent if cell is None else cell for cell in column])
    # A plain array of objects would become a column of pandas' own text type, in which None turns into NaN.
    return pd.Series(column, dtype=object)
