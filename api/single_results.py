"""What came out of a single prediction, in the forms that results have."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from api.rendering import NOT_PROCESSED
from jobs.codec import inputs
from jobs.codec.json_text import dumps, loads
from jobs.codec.layout import free_names
from jobs.record import Job
from jobs.status import Status

_DELIMITER = ","
Json = Mapping[str, object]


@dataclass(frozen=True)
class SingleOutcome:
    """The outcome of an ended single prediction.

    `classes` are those that the model gives probabilities for, as texts; None when it gives none. They are needed
    where there is no result to tell them.
    """

    job: Job
    classes: Sequence[str] | None

    def json(self) -> bytes:
        """The row as one JSON object, with a line end."""
        row = {"row": 1, "input": self._input, "prediction": self._result.get("prediction")}
        if self._classes is not None:
            row["probabilities"] = self._result.get("probabilities")
        return dumps(row | {"error": self._error}).encode() + b"\n"

    def csv(self) -> bytes:
        """The header and the record: what was sent, then ours."""
        probabilities = cast(Json, self._result.get("probabilities") or {})
        names = ["prediction", *(f"probability_{name}" for name in self._classes or ()), "error"]
        ours = [
            self._result.get("prediction"),
            *(probabilities.get(name) for name in self._classes or ()),
            self._error_text,
        ]
        return self._line([*self._input, *free_names(names, self._input)]) + self._line([*self._input.values(), *ours])

    def failed_rows(self) -> bytes:
        """The header, and the record when the prediction failed, to be corrected and sent again."""
        header = self._line([*self._input, *free_names(["error"], self._input)])
        if not self.job.rows_failed:
            return header
        return header + self._line([*self._input.values(), self._error_text])

    @cached_property
    def _input(self) -> Json:
        return cast(Json, loads(self.job.input or "{}"))

    @cached_property
    def _result(self) -> Json:
        return cast(Json, loads(self.job.result or "{}"))

    @property
    def _classes(self) -> Sequence[str] | None:
        if not self._result:
            return self.classes
        probabilities = cast(Json | None, self._result.get("probabilities"))
        return None if probabilities is None else list(probabilities)

    @property
    def _error(self) -> Json | None:
        if self.job.status is Status.SUCCEEDED:
            return None
        if self.job.rows_failed:  # else the job failed and the row was never reached
            return {"code": self.job.error_code, "column": self.job.error_column, "message": self.job.error_message}
        return {"code": "not_processed", "column": None, "message": NOT_PROCESSED}

    @property
    def _error_text(self) -> str | None:
        return f"{self._error['code']}: {self._error['message']}" if self._error else None

    def _line(self, values: Iterable[object]) -> bytes:
        return _DELIMITER.encode().join([inputs.cell(value, _DELIMITER) for value in values]) + b"\n"
