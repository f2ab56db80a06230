"""How each server is asked for a prediction over HTTP, and where its answer has it.

Nothing but the standard library: the load comes from a process of its own that should cost little.
"""

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

MODEL = "bench-linear"
ROWS = 100  # in a small batch
# Between two polls; the longer it takes, the less often. Those who are polled did best with these, of three tried.
FIRST_PAUSE_SECONDS = 0.005
PAUSE_GROWTH = 2
LONGEST_PAUSE_SECONDS = 0.4


class Unexpected(Exception):
    """Raised when an answer is not what it must be; says in a few words what it is."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole answer."""

    status: int
    head: bytes
    body: bytes

    def must_be(self, status: int) -> None:
        if self.status != status:
            raise Unexpected(str(self.status))

    def header(self, name: bytes) -> bytes:
        """The value of a header, by its name in small letters."""
        start = self.head.lower().index(b"\r\n" + name + b": ") + len(name) + 4
        end = self.head.find(b"\r\n", start)
        return self.head[start:] if end < 0 else self.head[start:end]


@dataclass(frozen=True, slots=True)
class Pause:
    """A step that sends nothing for a while."""

    seconds: float


# What is sent one after the other until there is a prediction; returns what `prediction` reads.
Steps = Generator[bytes | Pause, Reply, bytes]


class Way:
    """Asking with one request that is answered in place: what Flask with the model in its process takes."""

    path = "/predict"

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).netloc

    def request(self, rows: Sequence[Sequence[float]], place: int) -> bytes:
        """The first request for the row at `place`, ready to be sent."""
        return self._post(self.path, self.document(rows, place))

    def document(self, rows: Sequence[Sequence[float]], place: int) -> object:
        return {"input": rows[place]}

    def steps(self, request: bytes) -> Steps:
        reply = yield request
        reply.must_be(200)
        return reply.body

    def prediction(self, found: bytes) -> float | None:
        """What was predicted; None where the answer does not say."""
        return float(json.loads(found)["response"])

    def _post(self, path: str, document: object) -> bytes:
        body = json.dumps(document, separators=(",", ":")).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def _get(self, path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode()


class Predict(Way):
    """Ours, answered in place: `POST /predict`."""

    path = f"/predict?model={MODEL}"


class Jobs(Way):
    """Ours, in two requests: `POST /jobs`, then `GET /jobs/<id>?wait=10`."""

    path = f"/jobs?model={MODEL}"

    def steps(self, request: bytes) -> Steps:
        reply = yield request
        reply.must_be(202)
        asking = self._get(reply.header(b"location").decode() + "?wait=10")
        while True:
            reply = yield asking
            reply.must_be(200)
            status = json.loads(reply.body)["status"]
            if status == "succeeded":
                return reply.body
            if status not in ("queued", "running"):
                raise Unexpected(status)

    def prediction(self, found: bytes) -> float | None:
        return float(json.loads(found)["result"]["prediction"])


class Inputs(Jobs):
    """Ours, a hundred rows in one JSON document."""

    def document(self, rows: Sequence[Sequence[float]], place: int) -> object:
        return {"inputs": [rows[(place + number) % len(rows)] for number in range(ROWS)]}

    def prediction(self, found: bytes) -> float | None:
        ok = json.loads(found)["progress"]["rows_ok"]
        if ok != ROWS:
            raise Unexpected(f"{ok} rows of {ROWS}")
        return None


class Template(Way):
    """The template of Flask and RQ: `POST /jobs`, then `GET /jobs/<id>` until it is 200."""

    path = "/jobs"

    def steps(self, request: bytes) -> Steps:
        reply = yield request
        reply.must_be(202)
        asking = self._get(f"/jobs/{json.loads(reply.body)['id']}")
        pauses = _pauses()
        while True:
            yield next(pauses)
            reply = yield asking
            if reply.status == 200:
                return reply.body
            reply.must_be(202)


class BentoML(Way):
    def document(self, rows: Sequence[Sequence[float]], place: int) -> object:
        return {"rows": [rows[place]]}

    def prediction(self, found: bytes) -> float | None:
        return float(json.loads(found)[0])


class BentoMLTask(Way):
    """Submitted, polled, fetched."""

    path = "/score/submit"

    def document(self, rows: Sequence[Sequence[float]], place: int) -> object:
        return {"row": rows[place]}

    def steps(self, request: bytes) -> Steps:
        reply = yield request
        reply.must_be(200)
        named = f"?task_id={json.loads(reply.body)['task_id']}"
        pauses = _pauses()
        status = "in_progress"
        while status == "in_progress":
            yield next(pauses)
            reply = yield self._get("/score/status" + named)
            reply.must_be(200)
            status = json.loads(reply.body)["status"]
        if status != "completed":
            raise Unexpected(status)
        reply = yield self._get("/score/get" + named)
        reply.must_be(200)
        return reply.body

    def prediction(self, found: bytes) -> float | None:
        return float(json.loads(found))


class MLServer(Way):
    """The Open Inference Protocol."""

    path = "/v2/models/linear/infer"

    def document(self, rows: Sequence[Sequence[float]], place: int) -> object:
        row = rows[place]
        return {"inputs": [{"name": "x", "shape": [1, len(row)], "datatype": "FP64", "data": row}]}

    def prediction(self, found: bytes) -> float | None:
        return float(json.loads(found)["outputs"][0]["data"][0])


WAYS: dict[str, type[Way]] = {
    "predict": Predict,
    "jobs": Jobs,
    "inputs": Inputs,
    "flask": Way,
    "rq_template": Template,
    "bentoml": BentoML,
    "bentoml_task": BentoMLTask,
    "mlserver": MLServer,
}


def _pauses() -> Generator[Pause, None, None]:
    seconds = FIRST_PAUSE_SECONDS
    while True:
        yield Pause(seconds)
        seconds = min(seconds * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)
