"""A store with little room: what cannot fit is refused at its beginning, and nothing else suffers."""

import http.client
import json

import pytest
import redis

from tests.client import Client
from tests.waiting import wait_until

MIB = 1 << 20
ROOM = 6 * MIB  # connections take some of it for their buffers
ROWS = 300_000


def table(rows):
    """Rows that do not compress well: a kept batch takes about half of its bytes in the store."""
    places = range(1, rows // 10 + 1)  # a chunk holds fewer: none has a row twice
    numbers = (f"{pow(3, place, 1_000_003) / 1_000_003:.15f}" for place in places)
    lines = "".join(f"{number},{number[::-1][:12]},{place}\n" for place, number in zip(places, numbers, strict=True))
    return ("x,a,b\n" + lines * 10).encode()


@pytest.fixture(scope="module")
def body():
    return table(ROWS)


@pytest.fixture
def small(stack):
    """A stack whose jobs may take ROOM more than the empty store has now, and its client."""
    own = stack(2)
    with redis.Redis.from_url(own.redis_url) as store:
        used = store.info("memory")["used_memory"]
        # Four fifths of it are the budget.
        store.config_set("maxmemory", int((used + ROOM) / 0.8))
    return own, Client(own.url)


def send_without_length(own, body, query):
    connection = http.client.HTTPConnection("127.0.0.1", own.port, timeout=60)
    pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))
    connection.request("POST", f"/jobs{query}", pieces, {"Content-Type": "text/csv"}, encode_chunked=True)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_batch_whose_results_cannot_fit_is_refused_at_its_first_rows(small, body):
    _, client = small
    answer = client.send(body, "?model=identity")
    assert (answer.status, answer.code) == (507, "storage_full")
    assert int(answer.headers["Retry-After"]) > 0
    assert "MB" in answer.json["detail"]
    assert "keep" in answer.json["detail"]
    assert client.get("/jobs").json["jobs"] == []


def test_batch_of_unknown_length_that_does_not_fit_is_taken_back(small, body):
    own, client = small
    status, problem = send_without_length(own, body, "?model=identity")
    assert (status, problem["code"]) == (507, "storage_full")
    assert client.get("/jobs").json["jobs"] == []
    with redis.Redis.from_url(own.redis_url) as store:
        assert not list(store.scan_iter("qc:job:*"))
        assert store.hgetall("qc:promised") == {}


def test_batch_that_keeps_nothing_goes_through_and_others_go_on(small, body):
    _, client = small
    path = client.submit(body, "?model=zero&keep=none")
    single = client.ask("POST", "/predict?model=identity", b'{"input": 5}', {"Content-Type": "application/json"})
    assert single.json == {"response": 5.0}
    job = client.finished(path)
    assert (job["status"], job["progress"]["rows_ok"]) == ("succeeded", ROWS)
    assert len(client.rows(path)) == ROWS


def test_room_is_there_again_when_results_are_deleted(small, body):
    _, client = small
    half = body[: len(body) // 8].rpartition(b"\n")[0] + b"\n"
    paths = []
    while (answer := client.send(half, "?model=identity")).status == 202:
        paths.append(answer.headers["Location"])
        client.finished(paths[-1])
        assert len(paths) < 50
    assert answer.status == 507
    for path in paths:
        assert client.ask("DELETE", path).status == 204
    # The store gives memory of large values back in its own time.
    again = wait_until(lambda: client.send(half, "?model=identity").status == 202, 10, "no room again")
    assert again
