"""The fast lane over HTTP: on connections that stay open, the same answers as ever, and no thread for each."""

import http.client
import io
import json
import random
import select
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from time import monotonic, sleep

import pytest
import redis

from tests.client import Answer, Client, answer
from tests.processes import children
from tests.waiting import wait_until

FEW_THREADS = 12
AT_ONCE_SECONDS = 5.0
ANSWER_SECONDS = 3.0  # design, rule 6
# What no two answers have in common.
OWN = {"Date", "X-Job-Id", "X-Request-Id", "Location", "Retry-After"}


def request(body, query="?model=identity", **headers):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Host": "here", "Content-Type": "application/json", "Content-Length": len(body)} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = [f"POST /predict{query} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


LISTENS, NOBODY = "0A", "0"  # in /proc/net/tcp: a socket's state, and the inode of one that no process has


class Kept:
    """A connection that has been used already: what comes next on it may take the lane."""

    def __init__(self, client):
        host, _, port = client.host.partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.ask(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")

    def ask(self, sent):
        self.socket.sendall(sent)
        return self.answer()

    def answer(self):
        """One answer, and not a byte more."""
        lines = b""
        while not lines.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            assert byte, "the connection was closed"
            lines += byte
        first, _, rest = lines.partition(b"\r\n")
        headers = http.client.parse_headers(io.BytesIO(rest))
        body = b""
        while len(body) < int(headers["Content-Length"]):
            body += self.socket.recv(int(headers["Content-Length"]) - len(body))
        return Answer(int(first.split()[1]), headers, body)

    def is_silent(self, seconds):
        """Whether nothing comes for so long."""
        return not select.select([self.socket], [], [], seconds)[0]

    def close(self):
        self.socket.close()


@pytest.fixture
def kept(client):
    with closing(Kept(client)) as kept:
        yield kept


@pytest.fixture
def own(stack):
    """Starts a stack of one web process: the client, its store, and the process' id."""
    with ExitStack() as closed:

        def start(**settings):
            made = stack(WEB_CONCURRENCY=1, **settings)
            client = Client(made.url)
            store = closed.enter_context(closing(redis.Redis.from_url(made.redis_url)))
            (web,) = children(made.web.pid)
            with closing(Kept(client)) as first:
                wait_until(
                    lambda: first.ask(request({"input": [1]}, "?model=identity&wait=0")).status == 202, 20, "not ready"
                )
                first.ask(request({"input": [1]}, "?model=identity&wait=0.2"))  # the subscription is there
            return made, client, store, web

        yield start


def threads_of(pid):
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


def unended(store):
    return store.zcard("qc:singles")


def test_many_who_wait_for_predictions_take_no_threads(own):
    _, client, _, web = own(workers=1)
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(Kept(client))) for _ in range(60)]
        assert (
            connections[0].ask(request({"input": [7]}, "?model=identity&wait=30")).status == 200
        )  # the model is loaded
        before = threads_of(web)
        assert before < FEW_THREADS
        for number, each in enumerate(connections):
            each.socket.sendall(request({"input": [number]}))
        found = [each.answer() for each in connections]
        assert [each.json for each in found] == [{"response": float(number)} for number in range(60)]
        # The lane's own, and where a busy machine took more than a second, those for whom it did.
        assert threads_of(web) < before + 20


BODIES = [
    {"input": [7]},
    {"input": {"x": 7, "more": 1}},
    {"input": [7], "model": "identity"},
    {"input": [7], "model": 1},
    {"input": [7, 8]},
    {"input": ["seven"]},
    {"input": [None]},
    {"input": [1e308]},
    {"input": {}},
    {"inputs": [[7]]},
    {},
    [7],
    b"",
    b"{",
    b'{"input":[7]}garbage',
    b'{"input":[7],"input":[8]}',
    b"\xef\xbb\xbf" + b'{"input":[7]}',
    b"\xff\xfe",
]
REQUESTS = [
    *(request(body) for body in BODIES),
    request({"input": [-1]}, "?model=raises"),
    request({"input": [7]}, "?model=nobody"),
    request({"input": [7]}, ""),
    request({"input": [7]}, "?model=identity&probabilities=true"),
    request({"input": [7]}, "?model=identity&wait=0"),
    request({"input": [7]}, X_Request_Id="mine"),
    request({"input": [7]}, X_Request_Id="not fit to be one"),
    request({"input": [7]}, Prefer="respond-async"),
    request({"input": [7]}, Prefer="wait=5"),
    request({"input": [7]}, Content_Type="text/csv"),
    request({"input": [7]}, Content_Type="application/json; charset=utf-8"),
    request({"input": [7]}, Content_Encoding="gzip"),
    request({"input": [7]}, Idempotency_Key="a,b"),
    request({"input": [7]}, User_Agent="curl/8.0", Accept="*/*", Via="1.1 router"),
    request({"input": [7]}, Connection="close"),
]


def common(found):
    headers = {name: value for name, value in found.headers.items() if name not in OWN}
    document = found.json
    if found.status == 202 or "status" in document:
        document = {name: document[name] for name in ("status", "title", "code", "detail", "kind") if name in document}
    ids = [bool(found.headers[name]) for name in ("X-Job-Id", "X-Request-Id")]
    return found.status, headers, document, ids


@pytest.mark.parametrize("sent", REQUESTS)
def test_answer_is_the_same_as_on_a_new_connection(client, kept, sent):
    """A new connection has a thread from its beginning, so its request goes the ordinary way."""
    with client.connected() as connection:
        connection.sendall(sent)
        ordinary = common(answer(connection))
    found = kept.ask(sent)
    assert common(found) == ordinary
    if found.headers["Connection"] != "close":
        assert kept.ask(request({"input": [8]})).json == {"response": 8.0}


def test_request_id_that_was_sent_comes_back(kept):
    assert kept.ask(request({"input": [7]}, X_Request_Id="mine")).headers["X-Request-Id"] == "mine"


def test_prediction_stays_as_a_job(client, kept):
    found = kept.ask(request({"input": [7]}))
    job = client.job(f"/jobs/{found.headers['X-Job-Id']}")
    assert (job["status"], job["kind"]) == ("succeeded", "single")


@pytest.mark.parametrize("pause", [False, True])
def test_request_may_come_in_pieces(kept, pause):
    sent = request({"input": [7]})
    for start in range(0, len(sent), 20):
        kept.socket.sendall(sent[start : start + 20])
        if pause and start == 40:  # longer than the lane waits for the rest
            assert kept.is_silent(1.8)
    assert kept.answer().json == {"response": 7.0}
    assert kept.ask(sent).json == {"response": 7.0}


def test_requests_that_are_sent_before_their_answers_are_answered_in_turn(kept):
    kept.socket.sendall(b"".join(request({"input": [number]}) for number in range(5)))
    for number in range(5):
        assert kept.answer().json == {"response": float(number)}
    for number in range(5):  # each in a packet of its own
        kept.socket.sendall(request({"input": [number]}))
    for number in range(5):
        assert kept.answer().json == {"response": float(number)}


def test_other_requests_are_answered_after_those_in_the_lane(kept):
    health = b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n"
    for number in range(150):
        kept.socket.sendall(request({"input": [number]}))
        kept.socket.sendall(health)
        assert kept.answer().json == {"response": float(number)}
        assert "response" not in kept.answer().json


def test_what_takes_longer_is_waited_for_as_ever(own):
    made, client, store, _ = own(workers=1, PREDICT_WAIT_SECONDS=20)
    (worker,) = made.workers
    before = store.zcard("qc:jobs:public:single")
    with closing(Kept(client)) as kept:
        worker.signal(signal.SIGSTOP)
        kept.socket.sendall(request({"input": [7]}))
        assert kept.is_silent(2.5)
        worker.signal(signal.SIGCONT)
        assert kept.answer().json == {"response": 7.0}
        assert kept.ask(request({"input": [8]})).json == {"response": 8.0}
    assert store.zcard("qc:jobs:public:single") == before + 2  # none was accepted twice


@pytest.mark.parametrize("wait_seconds", [0, 0.3, 2])
def test_wait_of_the_settings_holds_in_the_lane_too(own, wait_seconds):
    _, client, _, _ = own(workers=0, PREDICT_WAIT_SECONDS=wait_seconds)
    with closing(Kept(client)) as kept:
        began = monotonic()
        found = kept.ask(request({"input": [7]}))
        waited = monotonic() - began
    assert (found.status, found.json["status"]) == (202, "queued")
    assert wait_seconds <= waited < wait_seconds + AT_ONCE_SECONDS


def connections(client):
    """How many connections of clients the web process has open; those to the store are its own affair."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = int(client.host.partition(":")[2])
    return sum(int(row[1].partition(":")[2], 16) == port and row[3] != LISTENS and row[9] != NOBODY for row in rows)


@pytest.mark.parametrize("seconds", [(0, 0), (0.9, 1.4)])
def test_clients_that_go_away_leave_nothing_behind(own, seconds):
    """Also about the time at which requests are given back to the app."""
    made, client, store, web = own(workers=0)
    before = unended(store)
    with closing(Kept(client)):
        assert connections(client) == 1

    def ask(number):
        with closing(Kept(client)) as kept:
            kept.socket.sendall(request({"input": [number]}))
            sleep(random.Random(number).uniform(*seconds))

    with ThreadPoolExecutor(100) as pool:
        list(pool.map(ask, range(100)))
    wait_until(lambda: unended(store) == before + 100, 20, "they are not accepted")
    assert children(made.web.pid) == [web]
    wait_until(lambda: not connections(client), 20, "connections stay open")
    with closing(Kept(client)) as kept:
        assert kept.ask(request({"input": [7]}, "?model=identity&wait=0")).status == 202


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_web_process_that_ends_answers_those_in_the_lane_with_their_jobs(own, end):
    made, client, store, _ = own(workers=0)
    before = unended(store)
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(Kept(client))) for _ in range(20)]
        for each in connections:
            each.socket.sendall(request({"input": [7]}))
        wait_until(lambda: unended(store) == before + 20, 20, "they are not accepted")
        made.web.signal(end)
        began = monotonic()
        found = [each.answer() for each in connections]
        assert monotonic() - began < AT_ONCE_SECONDS
        assert {(each.status, each.json["status"]) for each in found} == {(202, "queued")}
        assert len({each.json["id"] for each in found}) == 20
    assert made.web.wait(10)
    assert made.web.exit_code == 0


@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL])
def test_store_that_goes_away_is_told_in_time_to_all_in_the_lane(own, fault):
    made, client, _, _ = own(workers=0)
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(Kept(client))) for _ in range(20)]
        made.store.process.signal(fault)
        try:
            with ThreadPoolExecutor(20) as pool:
                found = list(pool.map(timed, connections))
        finally:
            if fault == signal.SIGSTOP:
                made.store.process.signal(signal.SIGCONT)
    assert {each.status for each, _ in found} == {503}
    assert {each.code for each, _ in found} == {"queue_unavailable"}
    assert max(seconds for _, seconds in found) < ANSWER_SECONDS


def timed(kept):
    began = monotonic()
    return kept.ask(request({"input": [7]})), monotonic() - began


def test_connection_is_not_closed_as_idle_while_its_request_comes_or_waits(own):
    made, client, _, web = own(workers=0, PREDICT_WAIT_SECONDS=3, GUNICORN_CMD_ARGS="--keep-alive 1")
    sent = request({"input": [7]})
    with closing(Kept(client)), closing(Kept(client)) as kept:  # the first is closed as idle meanwhile
        assert kept.ask(sent).status == 202
        assert kept.is_silent(0.7)
        kept.socket.sendall(sent[:40])
        assert kept.is_silent(1.7)  # a thread waits for the rest by now
        kept.socket.sendall(sent[40:])
        assert kept.answer().status == 202
        assert kept.ask(sent).status == 202
    assert children(made.web.pid) == [web]


def test_request_that_leaves_the_lane_keeps_its_seat(own):
    _, client, store, _ = own(workers=0, MAX_WAITING=3, PREDICT_WAIT_SECONDS=8)
    before = unended(store)
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(Kept(client))) for _ in range(4)]
        for each in connections[:3]:
            each.socket.sendall(request({"input": [7]}))
        # What is accepted has its seat: the late one, on another connection, might be read before.
        wait_until(lambda: unended(store) == before + 3, 5, "they are not accepted")
        began, late = monotonic(), connections[3]
        while monotonic() < began + 2.5:
            assert late.ask(request({"input": [8]})).status == 202
        assert all(each.is_silent(0) for each in connections[:3])
        assert [each.answer().status for each in connections[:3]] == [202] * 3
        late.socket.sendall(request({"input": [8]}))
        assert late.is_silent(2)  # it has a seat again


def test_process_that_has_had_its_share_of_requests_is_started_anew(own):
    made, client, _, web = own(workers=0, PREDICT_WAIT_SECONDS=0.2, GUNICORN_CMD_ARGS="--max-requests 12")

    def is_another():
        with closing(Kept(client)) as kept:
            for _ in range(3):
                found = kept.ask(request({"input": [7]}))
                assert found.status == 202
                if found.headers["Connection"] == "close":
                    break
        return children(made.web.pid) != [web]

    wait_until(is_another, 30, "it goes on")
