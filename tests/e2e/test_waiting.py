"""Requests that wait: told of the end instead of asking for it, and never in the way of others."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from time import monotonic

import pytest
import redis

from tests.client import Client
from tests.waiting import wait_until

AT_ONCE_SECONDS = 5.0  # far below the waits that are asked for, on a machine that is busy
LONG = {"Prefer": "wait=25"}


# Of forty that wait some may look where a busy machine lets the subscription be silent for a second; none polls.
FEW = 10


class Waiting:
    """A stack, a client of it, and its store."""

    def __init__(self, stack):
        self.stack = stack
        self.client = Client(stack.url)
        self.store = redis.Redis.from_url(stack.redis_url)
        self._pool = ThreadPoolExecutor(64)

    def close(self):
        self._pool.shutdown()
        self.store.close()

    def predict(self, value, **headers):
        """The answer that is to come, and when it did."""
        return self._later(self.client.predict, value, "?model=identity", **(headers or LONG))

    def wait_for(self, path, **headers):
        return self._later(self.client.get, path, **(headers or LONG))

    def unended(self):
        return [job_id.decode() for job_id in self.store.zrange("qc:singles", 0, -1)]

    def have_come(self, count):
        """Waits until so many single predictions were accepted and have not ended; returns their ids."""
        wait_until(lambda: len(self.unended()) >= count, 20, f"there are not {count} predictions")
        return self.unended()

    def calls(self, command):
        """How often the store has run a command since the last reset."""
        return self.store.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]

    def subscriptions(self):
        """How many hear the news."""
        ((_, count),) = self.store.pubsub_numsub("qc:news")
        return count

    def is_there(self):
        """Whether the web process answers."""
        with suppress(OSError):
            return self.client.get("/healthz").status == 200
        return False

    def _later(self, ask, *arguments, **headers):
        def answered():
            return ask(*arguments, **headers), monotonic()

        return self._pool.submit(answered)


@pytest.fixture
def waiting(stack):
    made = []

    def start(**settings):
        made.append(Waiting(stack(**settings)))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_while_requests_wait_the_store_is_asked_nothing_for_them(waiting):
    """A worker that stands still and goes on is a model that is slow for as long as one likes."""
    stack = waiting(workers=1, WEB_CONCURRENCY=1)
    assert stack.client.predict(1, "?model=identity").status == 200  # the subscription is there
    (worker,) = stack.stack.workers
    worker.signal(signal.SIGSTOP)
    try:
        answers = [stack.predict(number) for number in range(20)]
        jobs = stack.have_come(20)
        stack.store.config_resetstat()
        more = [stack.wait_for(f"/jobs/{job_id}") for job_id in jobs]
        wait_until(lambda: stack.calls("hgetall") >= 20, 20, "not all wait")
        stack.store.config_resetstat()
        wait_until(lambda: stack.calls("ping") >= 4, 20, "the subscription is not looked after")
        assert stack.calls("hgetall") < FEW
        assert stack.subscriptions() == 1
    finally:
        worker.signal(signal.SIGCONT)
    found = [answer.result()[0] for answer in answers]
    assert [answer.json for answer in found] == [{"response": float(number)} for number in range(20)]
    assert {answer.result()[0].json["status"] for answer in more} == {"succeeded"}
    assert stack.calls("hgetall") < FEW  # what came out travelled in the message


def test_request_that_finds_no_seat_is_answered_at_once_with_what_there_is(waiting):
    stack = waiting(workers=0, WEB_CONCURRENCY=1, MAX_WAITING=3)
    seated = [stack.predict(number) for number in range(3)]
    jobs = stack.have_come(3)
    began = monotonic()
    turned_away = stack.client.predict(7, "?model=identity", **LONG)
    looked_at = stack.client.get(f"/jobs/{jobs[0]}?wait=25")
    assert monotonic() - began < AT_ONCE_SECONDS
    assert (turned_away.status, turned_away.json["status"]) == (202, "queued")
    assert int(turned_away.headers["Retry-After"]) >= 1
    assert (looked_at.status, looked_at.json["status"]) == (200, "queued")
    for job_id in jobs:
        stack.client.ask("POST", f"/jobs/{job_id}/cancel")
    assert [answer.result()[0].code for answer in seated] == ["job_canceled"] * 3
    next_one = stack.predict(8)
    (job_id,) = set(stack.have_come(2)) - {turned_away.json["id"]}
    stack.client.ask("POST", f"/jobs/{job_id}/cancel")
    assert next_one.result()[0].code == "job_canceled"  # it had a seat again


def test_nobody_waits_where_there_are_no_seats(waiting):
    stack = waiting(workers=0, WEB_CONCURRENCY=1, MAX_WAITING=0)
    found, _ = stack.predict(7).result(AT_ONCE_SECONDS)
    assert (found.status, found.json["status"]) == (202, "queued")


@pytest.mark.parametrize("processes", [1, 2])
def test_web_process_that_ends_answers_all_who_wait_with_what_there_is(waiting, processes):
    stack = waiting(workers=0, WEB_CONCURRENCY=processes)
    predictions = [stack.predict(number) for number in range(10)]
    jobs = stack.have_come(10)
    before = stack.calls("hgetall")
    looks = [stack.wait_for(f"/jobs/{job_id}") for job_id in jobs]
    wait_until(lambda: stack.calls("hgetall") >= before + 10, 20, "not all wait")
    ended_at = monotonic()
    stack.stack.web.signal(signal.SIGTERM)
    for answer in predictions:
        found, at = answer.result()
        assert (found.status, found.json["status"]) == (202, "queued")
        assert found.headers["Location"] == f"/jobs/{found.json['id']}"
        assert at - ended_at < AT_ONCE_SECONDS
    for answer in looks:
        found, at = answer.result()
        assert (found.status, found.json["status"]) == (200, "queued")
        assert at - ended_at < AT_ONCE_SECONDS
    assert stack.stack.web.wait(AT_ONCE_SECONDS)
    assert stack.stack.web.exit_code == 0
    stack.stack.start_web()
    wait_until(stack.is_there, 20, "the web process does not come back")
    assert {stack.client.job(f"/jobs/{job_id}")["status"] for job_id in jobs} == {"queued"}


def test_batch_is_waited_for_to_its_end_by_many(waiting):
    stack = waiting(workers=1, WEB_CONCURRENCY=1)
    path = stack.client.submit(b"x\n" + b"1\n" * 2_000, "?model=slow")
    found = [answer.result()[0] for answer in [stack.wait_for(path) for _ in range(20)]]
    assert {(answer.status, answer.json["status"]) for answer in found} == {(200, "succeeded")}
    assert {answer.json["progress"]["rows_done"] for answer in found} == {2_000}


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [("wait=20", "wait=20"), ("respond-async, wait=20", "wait=20"), ("wait=20;x=y, wait=1", "wait=20")],
)
def test_prediction_that_comes_within_the_wait_is_answered_in_place(client, prefer, applied):
    found = client.predict(7, "?model=identity", Prefer=prefer)
    assert (found.status, found.json) == (200, {"response": 7.0})
    assert found.headers["Preference-Applied"] == applied


def test_job_that_is_deleted_while_it_is_waited_for_is_gone(idle_stack):
    with closing(Waiting(idle_stack)) as stack:
        path = stack.client.submit(json.dumps({"input": 7}), "?model=identity", "application/json")
        before = stack.calls("hgetall")
        answer = stack.wait_for(path)
        wait_until(lambda: stack.calls("hgetall") > before, 20, "it does not wait")
        assert stack.client.ask("DELETE", path).status == 204
        gone, _ = answer.result(AT_ONCE_SECONDS)
    assert (gone.status, gone.code) == (410, "job_deleted")
