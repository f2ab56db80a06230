"""The predictor: the child process that holds the models and nothing else. Bytes in, bytes out.

Started by its parent through worker.leashed, with a scrubbed environment. It may leak, hang, crash or be killed: the
parent notices and goes on.

| asked | bodies | answered | bodies |
| --- | --- | --- | --- |
| `chunk`: number, model, layout, rows, span | compressed chunk | `doing`: stage, from, to | |
| | | `chunk`: ok, failed, csv_bytes, has_surplus, seconds | compressed records, failures or nothing |
| `singles`: number, model | JSON list of inputs | `singles`: seconds | JSON list of outcomes |
| `stop`: number | | `stopped`, for the chunk of that number | |
| | | `refused`: code, message, when the model cannot be loaded | |

A `span`, [from, to], asks for these rows of the chunk alone. Before each step the predictor says what it is `doing`:
the stage ("load", "read", "predict", "write" or "singles") and the rows, counted within the span; should it die, that
is where. Between two sub-blocks of a chunk it looks whether something else was asked: `singles` are done at once,
`stop` ends the chunk.
"""

import contextlib
import gc
import json
import os
import select
import socket
import sys
import traceback
from collections import OrderedDict, deque
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any

from jobs.codec import json_text
from jobs.codec.chunk import BrokenChunk, compress, decompress, pack_failures
from jobs.codec.layout import Layout
from jobs.codec.records import input_records
from models.loading import CannotLoad, load
from models.predictor import Predictor
from models.rows import RowError, arrange, read_row
from worker.frames import Frame, Frames, pack
from worker.memory import GROWN_TIMES, OUT_OF_MEMORY_STATUS, resident_bytes
from worker.records import RecordCountDiffers
from worker.scoring import Scored, SubBlocks, score, single_outcome

_PIECE_BYTES = 1 << 20
_MOST_MODELS = 32  # that are kept loaded


class Stopped(Exception):
    """Raised inside a chunk when the parent does not want it any more."""


class ParentGone(Exception):
    """Raised when the parent has closed its end."""


class Serving:
    """Answers one parent until it goes away."""

    def __init__(self, channel: socket.socket, models_path: Path) -> None:
        self._channel = channel
        self._frames = Frames()
        self._asked: deque[Frame] = deque()
        self._models_path = models_path
        self._spent_elsewhere = 0.0  # on single predictions, while the present chunk was worked on
        self._sub_blocks: dict[str, SubBlocks] = {}
        self._loaded: OrderedDict[tuple[str, ...], Predictor] = OrderedDict()
        self._has_dropped = False  # models, to make room: what they left behind, or who still uses them, takes some
        self._resident_at_first = 0  # after the first answer since a model was loaded

    def run(self) -> None:
        """Answers frame after frame."""
        while True:
            while not self._asked:
                self._receive()
            self._answer(self._asked.popleft())

    def _receive(self) -> None:
        piece = self._channel.recv(_PIECE_BYTES)
        if not piece:
            raise ParentGone
        self._asked.extend(self._frames.feed(piece))

    def _answer(self, frame: Frame) -> None:
        number = frame.head["number"]
        try:
            if frame.head["do"] == "chunk":
                self._answer_chunk(number, frame)
            elif frame.head["do"] == "singles":
                self._answer_singles(number, frame)
            # A `stop` for a chunk that is done already has nothing to stop.
        except CannotLoad as error:
            self._say(Frame({"is": "refused", "number": number, "code": error.code, "message": str(error)}))
        except (RecordCountDiffers, BrokenChunk) as error:
            self._say(Frame({"is": "refused", "number": number, "code": "record_count_differs", "message": str(error)}))
        except Stopped:
            self._say(Frame({"is": "stopped", "number": number}))
        self._resident_at_first = self._resident_at_first or resident_bytes(os.getpid())

    def _answer_chunk(self, number: int, frame: Frame) -> None:
        layout = _read_layout(frame.head["layout"])
        predictor = self._load(number, frame.head["model"])
        began, self._spent_elsewhere = perf_counter(), 0.0
        self._say_doing(number, "read", 0, _wanted(frame))
        chunk, rows = _asked_rows(frame, layout)
        sub_blocks = self._sub_blocks.setdefault(predictor.manifest.key, SubBlocks())
        scored = score(
            chunk,
            rows,
            layout,
            predictor,
            sub_blocks=sub_blocks,
            begin=partial(self._begin, number),
        )
        self._say(_chunk_frame(number, scored, seconds=perf_counter() - began - self._spent_elsewhere))

    def _begin(self, number: int, stage: str, start: int, stop: int) -> None:
        """Says what comes next, once nothing else is asked that comes first."""
        while select.select([self._channel], [], [], 0)[0]:
            self._receive()
        for _ in range(len(self._asked)):
            frame = self._asked.popleft()
            if frame.head["do"] == "singles":
                began = perf_counter()
                self._answer(frame)
                self._spent_elsewhere += perf_counter() - began
            elif frame.head["do"] == "stop" and frame.head["number"] == number:
                raise Stopped
            else:
                self._asked.append(frame)
        self._say_doing(number, stage, start, stop)

    def _say_doing(self, number: int, stage: str, start: int, stop: int) -> None:
        self._say(Frame({"is": "doing", "number": number, "stage": stage, "from": start, "to": stop}))

    def _answer_singles(self, number: int, frame: Frame) -> None:
        predictor = self._load(number, frame.head["model"])
        manifest = predictor.manifest
        sent = json.loads(frame.bodies[0])
        self._say_doing(number, "singles", 0, len(sent))
        began = perf_counter()
        rows = [_read_single(text, predictor) for text in sent]
        predicted = iter(predictor.predict([row for row in rows if not isinstance(row, RowError)]))
        outcomes = [row if isinstance(row, RowError) else next(predicted) for row in rows]
        body = json.dumps([single_outcome(outcome, manifest) for outcome in outcomes], allow_nan=False)
        seconds = perf_counter() - began
        self._say(Frame({"is": "singles", "number": number, "seconds": seconds}, (body.encode(),)))

    def _load(self, number: int, model: Sequence[str]) -> Predictor:
        """The predictor of a model version, loaded when it is first asked for."""
        name, version, sha256 = key = tuple(model)
        if key not in self._loaded:
            self._say_doing(number, "load", 0, 0)
            self._loaded[key] = self._load_alone_if_need_be(name, version, sha256)
            self._loaded[key].is_crowded = self._is_crowded
            self._resident_at_first = 0
            if len(self._loaded) > _MOST_MODELS:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(key)
        return self._loaded[key]

    def _load_alone_if_need_be(self, name: str, version: str, sha256: str) -> Predictor:
        """Loads a model; when there is no memory for it beside the others, these are dropped and it is tried again."""
        try:
            return load(self._models_path, name, version, sha256)
        except MemoryError:
            if not self._loaded:
                raise
        self._loaded.clear()
        self._has_dropped = True
        gc.collect()
        return load(self._models_path, name, version, sha256)

    def _is_crowded(self) -> bool:
        """Whether other models, or what earlier predictions left behind, take memory that a new process would have."""
        has_grown = 0 < GROWN_TIMES * self._resident_at_first < resident_bytes(os.getpid())
        return self._has_dropped or len(self._loaded) > 1 or has_grown

    def _say(self, frame: Frame) -> None:
        for piece in pack(frame):
            self._channel.sendall(piece)


def _wanted(frame: Frame) -> int:
    """How many rows are asked for."""
    start, stop = frame.head.get("span", (0, frame.head["rows"]))
    return int(stop - start)


def _asked_rows(frame: Frame, layout: Layout) -> tuple[bytes, int]:
    """The chunk's records, or those of the span that was asked for, and how many they are."""
    chunk, rows = decompress(frame.bodies[0]), frame.head["rows"]
    if "span" not in frame.head:
        return chunk, rows
    records = input_records(layout, chunk)
    if len(records) != rows:
        raise RecordCountDiffers(f"{rows} records were counted and {len(records)} were read")
    start, stop = frame.head["span"]
    return b"".join(records[start:stop]), stop - start


@lru_cache(maxsize=32)
def _read_layout(text: str) -> Layout:
    return Layout.from_json(text)


def _read_single(text: str, predictor: Predictor) -> Any:  # noqa: ANN401 - a row, or the RowError that it is
    try:
        return read_row(arrange(json_text.loads(text), predictor.manifest), predictor.manifest)
    except RowError as error:
        return error


def _chunk_frame(number: int, scored: Scored, seconds: float) -> Frame:
    head = {
        "is": "chunk",
        "number": number,
        "ok": scored.ok,
        "failed": len(scored.failures),
        "csv_bytes": len(scored.records),
        "has_surplus": scored.has_surplus,
        "seconds": seconds,
    }
    failures = pack_failures(scored.failures) if scored.failures else b""
    return Frame(head, (compress(scored.records), failures))


def serve(descriptor: int, models_path: Path) -> None:
    """Serves the parent at the other end of the descriptor until it goes away."""
    serving = Serving(socket.socket(fileno=descriptor), models_path)
    try:
        with contextlib.suppress(ParentGone, ConnectionError):
            serving.run()
    except MemoryError:  # while loading, reading or writing, or of one row in a crowd: nobody can be blamed yet
        print("the predictor ran out of memory", file=sys.stderr, flush=True)  # noqa: T201 - the log
        os._exit(OUT_OF_MEMORY_STATUS)  # at once: the parent waits a moment only between the channel's end and this
    except Exception as error:  # a defect of ours: its text may repeat a row's values, its type and place do not
        frames = "".join(traceback.format_tb(error.__traceback__))
        sys.exit(f"the predictor failed: {type(error).__name__}\n{frames}")
