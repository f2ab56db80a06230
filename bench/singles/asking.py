"""Loads, seen from the process that measures: started, waited for, and what they got."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

from bench.check import Wrong
from bench.singles.load import ANSWER_SECONDS, Order
from bench.singles.measured import Speed, speed_of
from bench.work import ROOT

LONGEST_SECONDS = 900


class NoAnswer(Exception):
    """Raised when a load got nothing; says what it got instead."""


@dataclass(frozen=True)
class Answers:
    """When each answer came, by the machine's clock, and how many seconds it took; errors by their reasons."""

    began_at: float
    answers: Sequence[tuple[float, float]]
    errors: Mapping[str, int]

    @classmethod
    def read(cls, who: str, found: Mapping[str, Any]) -> "Answers":
        """Raises Wrong when a prediction was."""
        if found["wrong"]:
            raise Wrong(f"{who}: {found['wrong'][0]}, and {len(found['wrong']) - 1} more")
        return cls(found["began_at"], [(at, seconds) for at, seconds in found["answers"]], found["errors"])

    def speed(self, warm_seconds: float, seconds: float) -> Speed:
        """Of the answers that came in the `seconds` after the warm-up. Raises NoAnswer."""
        start = self.began_at + warm_seconds
        counted = [took for at, took in self.answers if start <= at < start + seconds]
        if not counted:
            raise NoAnswer(f"no answer in {seconds:g} s; errors: {dict(self.errors)}")
        return speed_of(counted, seconds, self.errors)

    def within(self, start: float, stop: float) -> list[float]:
        """The seconds of those whose requests were sent between two moments."""
        return [took for at, took in self.answers if start <= at - took <= stop]


class RunningLoad:
    """A load that goes on until the block is left, unless its order ends it before; `answers` is what it got."""

    def __init__(self, who: str, order: Order) -> None:
        self._who = who
        self._order = order

    def __enter__(self) -> "RunningLoad":
        self._output = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.singles.load", json.dumps(asdict(self._order))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=self._output,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        with self._output:
            if kind is not None:
                self._process.kill()
            # That ends it.
            self._process.stdin.close()
            self.wait(2 * ANSWER_SECONDS)
            if kind is None:
                self._output.seek(0)
                self.answers = Answers.read(self._who, json.load(self._output))

    def wait(self, seconds: float = LONGEST_SECONDS) -> None:
        """Returns when its order has ended it."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise


def answers_of(who: str, order: Order) -> Answers:
    """What a load got that its order ends."""
    with RunningLoad(who, order) as load:
        load.wait()
    return load.answers
