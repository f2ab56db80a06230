"""Single predictions of which some kill the predictor: exactly they must fail, and how long the others take."""

import http.client
import json
import socket
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlsplit

from bench.recovery.asked import Asked
from bench.recovery.page import Figure, Section
from bench.recovery.stage import Stage, ask
from bench.singles.ways import Reply
from tests.zoo.estimators import Poisons

ROWS = 10_000
CLIENTS = 64
EVERY = 500  # one row of so many is poison
HARMS = (-2, -3)  # a segfault and os._exit in turn
CODE = "worker_crashed"
ANSWER_SECONDS = 60
READ_BYTES = 64 * 1024
EDGES = (0.05, 0.1, 0.2, 0.3, 0.5)  # seconds
MODEL = "poisons"


@dataclass(frozen=True)
class Answer:
    """What one client got for one row; `status` is 0 where no answer came. `job_id` is empty where none was named."""

    value: int
    seconds: float
    status: int
    job_id: str
    body: dict[str, Any]

    @property
    def is_right(self) -> bool:
        """Whether it is answered in place with its prediction or, if it is poison, with its error."""
        if not self.job_id:
            return False
        if self.value < 0:
            return self.status == http.client.UNPROCESSABLE_ENTITY and self.body.get("code") == CODE
        return self.status == http.client.OK and self.body.get("response") == self.value


class Crowd:
    """Clients in a closed loop, each on a connection of its own, that share the rows.

    They share the cores with what they measure: so of an answer no more is read than is needed.
    """

    def __init__(self, url: str, values: Sequence[int]) -> None:
        self._address = urlsplit(url)
        self._values = values
        self._places = count()

    def ask_all(self, clients: int) -> list[Answer]:
        """The answers to all rows."""
        with ThreadPoolExecutor(clients) as threads:
            asking = [threads.submit(self._ask_one_after_another) for _ in range(clients)]
        return [answer for each in asking for answer in each.result()]

    def _ask_one_after_another(self) -> list[Answer]:
        answers: list[Answer] = []
        while (place := next(self._places)) < len(self._values):
            self._ask_from(place, answers)
        return answers

    def _ask_from(self, place: int, answers: list[Answer]) -> None:
        """Asks for this row, and then for others as long as the connection lasts."""
        began = time.monotonic()
        try:
            with socket.create_connection((self._address.hostname, self._address.port), ANSWER_SECONDS) as connection:
                while place < len(self._values):
                    began = time.monotonic()
                    reply = _exchange(connection, self._request(place))
                    answers.append(_answer(self._values[place], time.monotonic() - began, reply))
                    place = next(self._places)
        except OSError as error:
            answers.append(Answer(self._values[place], time.monotonic() - began, 0, "", {"code": type(error).__name__}))

    def _request(self, place: int) -> bytes:
        body = b'{"input": %d}' % self._values[place]
        head = f"POST /predict?model={MODEL} HTTP/1.1\r\nHost: {self._address.netloc}\r\n"
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def singles(asked: Asked) -> Section:
    """Single predictions by `POST /predict`, first none that kills, then one in each EVERY, at a random place."""
    chance, rows = asked.chance(), asked.rows_or(ROWS)
    good = list(range(rows))
    values = list(good)
    for number, start in enumerate(range(0, rows, EVERY)):
        values[start + chance.randrange(min(EVERY, rows - start))] = HARMS[number % len(HARMS)]
    with Stage({MODEL: Poisons()}) as stage:
        _ask(stage, good[: CLIENTS * 4])  # the model is loaded, and its speed known
        without, seconds_without = _ask(stage, good)
        answers, seconds = _ask(stage, values)
        deaths = _deaths(stage, [answer.job_id for answer in answers if answer.value < 0])
        ended = 2 - len(stage.pids())
    poison = [answer for answer in answers if answer.value < 0]
    others = [answer for answer in answers if answer.value >= 0]
    waits = [answer.seconds for answer in others]
    wrong = [answer for answer in [*without, *answers] if not answer.is_right]
    return Section(
        f"{rows:,} single predictions by {CLIENTS} clients, of which {len(poison)} kill the predictor",
        [
            Figure("poison rows that were not 422 worker_crashed", _not_right(poison), "", 0, 0),
            Figure("others that were not answered in place with their prediction", _not_right(others), "", 0, 0),
            Figure("rows that were not asked for", rows - len(answers), "", 0, 0),
            Figure("wrong answers where none kills", _not_right(without), "", 0, 0),
            Figure("workers that ended", ended, "", 0, 0),
            *_times("the others", waits),
            Figure("longest of those that kill", max(answer.seconds for answer in poison), "s"),
            Figure("all of them", seconds, "s"),
            *_times("as many of which none kills", [answer.seconds for answer in without]),
            Figure("all of these", seconds_without, "s"),
        ],
        {},  # ten thousand times would fill the results file
        [
            f"of the others, {_waited(waits)}",
            f"{len(deaths)} deaths of a predictor, {len(deaths) / len(poison):.1f} for each row that kills",
            *(f"{number} times {what}" for what, number in Counter(map(_in_words, wrong)).most_common(10)),
        ],
    )


def _ask(stage: Stage, values: Sequence[int]) -> tuple[list[Answer], float]:
    """The answers to all rows, and how many seconds that took."""
    began = time.monotonic()
    answers = Crowd(stage.stack.url, values).ask_all(CLIENTS)
    return answers, time.monotonic() - began


def _waited(seconds: Sequence[float]) -> str:
    """How many waited up to each edge."""
    counts = [sum(each <= edge for each in seconds) for edge in EDGES]
    return ", ".join(f"{count:,} waited up to {edge:g} s" for edge, count in zip(EDGES, counts, strict=True))


def _times(who: str, seconds: Sequence[float]) -> list[Figure]:
    figures = {"median": median(seconds), "p99": quantiles(seconds, n=100)[98], "longest": max(seconds)}
    return [Figure(f"{what} of {who}", value, "s") for what, value in figures.items()]


def _exchange(connection: socket.socket, request: bytes) -> Reply:
    """One request and its answer; raises OSError."""
    connection.sendall(request)
    found = b""
    while (end := found.find(b"\r\n\r\n")) < 0:
        found += _more(connection)
    reply = Reply(int(found[9:12]), found[:end], b"")
    body, length = found[end + 4 :], int(reply.header(b"content-length"))
    while len(body) < length:
        body += _more(connection)
    return Reply(reply.status, reply.head, body)


def _more(connection: socket.socket) -> bytes:
    received = connection.recv(READ_BYTES)
    if not received:
        raise ConnectionError("the server closed the connection")
    return received


def _answer(value: int, seconds: float, reply: Reply) -> Answer:
    job_id = reply.header(b"x-job-id").decode() if b"x-job-id: " in reply.head.lower() else ""
    return Answer(value, seconds, reply.status, job_id, json.loads(reply.body))


def _not_right(answers: Sequence[Answer]) -> int:
    return sum(not answer.is_right for answer in answers)


def _in_words(answer: Answer) -> str:
    kind = "poison" if answer.value < 0 else "another"
    return (
        f"{kind}: {answer.status} {answer.body.get('code') or answer.body.get('status') or 'with another prediction'}"
    )


def _deaths(stage: Stage, job_ids: Sequence[str]) -> set[tuple[str, str]]:
    """Every death of a predictor is an attempt of some poison row; of several that died together each lists it."""
    jobs = [json.loads(ask(stage.stack.url, f"/jobs/{job_id}")[1]) for job_id in job_ids if job_id]
    return {(attempt["worker"], attempt["ended_at"]) for job in jobs for attempt in job["attempts"]}
