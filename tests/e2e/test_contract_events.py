"""Server-sent events: a job followed to its end, whatever happens on the way."""

import contextlib
import json
import signal
import time

import pytest
import redis
from process import ROOT
from stack import Stack

from tests.client import Client
from tests.event_stream import COMMENT, OF_THE_STREAM, Stream
from tests.proxy import Proxy
from tests.waiting import wait_until

ROWS = b"x\n1\n2\n3\n"
SINGLE = b'{"input": 7}'


def slow(rows):
    """A body that takes `rows` milliseconds of one worker."""
    return b"x\n" + b"1\n" * rows


def followed(client, path, last_id=None):
    """All events of a job up to its end, without what is none."""
    with Stream(client, path, last_id) as stream:
        assert stream.status == 200
        return [event for event in stream if event.id is not None or event.name == "gone"]


def names(events):
    return [event.name for event in events]


def check_whole(client, path, events):
    """The events tell a job's whole story, from what it was at the beginning to its end."""
    assert names(events)[:2] == ["status", "progress"]
    assert names(events)[-3:] == ["status", "progress", "end"]
    assert set(names(events)) == {"status", "progress", "end"}
    ids = [int(event.id) for event in events]
    assert ids == sorted(ids)
    assert ids[-1] > ids[-2]
    order = ["receiving", "queued", "running", events[-1].json["status"]]
    statuses = [event.json["status"] for event in events if event.name == "status"]
    assert statuses == sorted(set(statuses), key=order.index)
    assert events[-1].json == client.job(path)
    assert events[-2].json == client.job(path)["progress"]


@pytest.fixture
def queued(idle):
    """The path of a batch that stays queued."""
    return idle.submit(ROWS, "?model=identity")


@pytest.fixture
def watched(idle, queued):
    """A stream of that batch that has told the present state, and all that it told."""
    with Stream(idle, queued) as stream:
        yield stream, stream.until("progress")


def test_batch_is_followed_to_its_end(client):
    path = client.submit(slow(2_000), "?model=slow")
    began = time.monotonic()
    events = followed(client, path)
    seconds = time.monotonic() - began
    check_whole(client, path, events)
    done = [event.json["rows_done"] for event in events if event.name == "progress"]
    assert done == sorted(done)
    assert len(set(done)) > 2
    assert len(done) <= 4 * seconds + 3


def test_progress_is_told_four_times_a_second_at_most(stack):
    own = Client(stack(workers=1, CHUNK_ROWS=10, FIRST_CHUNK_ROWS=10).url)
    path = own.submit(slow(3_000), "?model=slow")
    began = time.monotonic()
    events = followed(own, path)
    seconds = time.monotonic() - began
    check_whole(own, path, events)
    assert seconds > 2
    assert names(events).count("progress") <= 4 * seconds + 3  # the first, the last, and one that the clock hides


@pytest.mark.parametrize("body", [SINGLE, b'{"input": -3}'])
def test_single_prediction_is_followed_to_its_end(client, body):
    path = client.submit(body, "?model=raises", "application/json")
    check_whole(client, path, followed(client, path))


def test_stream_says_what_it_is_and_that_nobody_keeps_it(idle, watched):
    stream, seen = watched
    assert stream.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["Cache-Control"] == "no-store"
    assert stream.headers["X-Accel-Buffering"] == "no"
    assert (seen[0].name, seen[0].text) == (OF_THE_STREAM, "2000")


def test_head_of_a_stream_is_answered_at_once(idle, queued):
    with Stream(idle, queued, method="HEAD") as stream:
        assert (stream.status, stream.read()) == (200, b"")
        assert stream.headers["Content-Type"] == "text/event-stream; charset=utf-8"


def test_job_names_its_events(idle, queued):
    assert idle.job(queued)["links"]["events"] == f"{queued}/events"


@pytest.mark.parametrize("last_id", [None, "1", "3", "999999", "abc", "ä".encode().decode("latin-1")])
def test_present_state_comes_once_whatever_was_told_before(idle, queued, last_id):
    with Stream(idle, queued, last_id) as stream:
        seen = stream.until("progress")
        assert names(seen) == [OF_THE_STREAM, "status", "progress"]
        assert seen[1].json == {"id": queued.removeprefix("/jobs/"), "status": "queued"}
        assert seen[2].json == idle.job(queued)["progress"]
        idle.ask("POST", f"{queued}/cancel")
        assert names(stream.until("end")) == ["status", "progress", "end"]


@pytest.mark.parametrize("body", [ROWS, SINGLE])
def test_ended_job_is_told_whole_and_who_knows_its_end_gets_204(client, body):
    path = client.done(body, "?model=identity", "text/csv" if body is ROWS else "application/json")
    events = followed(client, path)
    assert names(events) == ["status", "progress", "end"]
    for other in ("0", events[0].id, events[1].id, f"{events[2].id}0"):
        assert followed(client, path, other) == events
    for method in ("GET", "HEAD"):
        with Stream(client, path, events[2].id, method) as again:
            assert (again.status, again.headers["Content-Type"], again.read()) == (204, None, b"")


def test_job_that_never_was_has_no_events_and_one_that_is_gone_neither(idle, queued):
    unknown = idle.get(f"{queued[:-1]}{'a' if queued[-1] != 'a' else 'b'}/events")
    assert (unknown.status, unknown.code) == (404, "unknown_job")
    assert idle.get("/jobs/abc/events").code == "unknown_job"
    idle.ask("DELETE", queued)
    for last_id in ("", "3"):
        gone = idle.get(f"{queued}/events", Last_Event_ID=last_id)
        assert (gone.status, gone.code) == (410, "job_deleted")


def test_deletion_is_told_and_ends_the_stream(idle, queued, watched):
    stream, _ = watched
    idle.ask("DELETE", queued)
    (gone,) = list(stream)
    assert (gone.name, gone.id) == ("gone", None)
    assert (gone.json["status"], gone.json["code"]) == (410, "job_deleted")
    assert gone.json == idle.get(f"{queued}/events").json


def test_cancel_is_told_and_ends_the_stream(idle, queued, watched):
    stream, _ = watched
    idle.ask("POST", f"{queued}/cancel")
    events = list(stream)
    assert names(events) == ["status", "progress", "end"]
    assert events[0].json["status"] == events[2].json["status"] == "canceled"


def test_stream_without_events_has_a_comment_within_twenty_seconds(watched):
    stream, _ = watched
    began = time.monotonic()
    assert next(iter(stream)).name == COMMENT
    assert time.monotonic() - began < 20


def test_stream_that_cannot_go_on_ends_and_no_value_is_logged(idle, idle_stack, queued, watched):
    stream, _ = watched
    job_id = queued.removeprefix("/jobs/")
    with redis.Redis.from_url(idle_stack.redis_url) as store:
        store.hset(f"qc:job:{job_id}", "rows_ok", "canary")  # no record of ours
        store.publish("qc:news", json.dumps([[job_id, 0]]))
    assert list(stream) == []
    log = wait_until(lambda: "ValueError" in (text := idle_stack.web.log.read_text()) and text, 5, "it is not logged")
    assert "canary" not in log
    with redis.Redis.from_url(idle_stack.redis_url) as store:
        store.hdel(f"qc:job:{job_id}", "rows_ok")  # or it would spoil the queue of all tests that follow
    assert idle.ask("DELETE", queued).status == 204


def test_upload_is_followed_while_it_arrives(client):
    with client.connected() as connection:
        before = set(client.listed("?limit=100"))
        connection.sendall(
            b"POST /jobs?model=identity HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + b"258\r\nx\n" + b"1\n" * 299 + b"\r\n"
        )
        path = wait_until(lambda: set(client.listed("?limit=100")) - before, 10, "the upload is not listed").pop()
        with Stream(client, path) as stream:
            events = stream.until("progress")
            assert events[1].json["status"] == "receiving"
            connection.sendall(b"4\r\n2\n3\n\r\n0\r\n\r\n")
            events = stream.until("end", events)
    check_whole(client, path, [event for event in events if event.id])
    assert events[-1].json["progress"]["rows_total"] == 301


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stream_goes_on_through_a_web_process_that_is_started_anew(stack, number):
    own = stack(workers=1, WEB_CONCURRENCY=1)
    client = Client(own.url)
    path = client.submit(slow(6_000), "?model=slow")
    with Stream(client, path) as stream:
        first = [event for event in stream.until("progress") if event.id]
        own.web.signal(signal.SIGTERM) if number == signal.SIGTERM else own.web.signal_group(number)
        # Quietly, and as a whole after a SIGTERM.
        with contextlib.nullcontext() if number == signal.SIGTERM else contextlib.suppress(ConnectionError, OSError):
            first += [event for event in stream if event.id]
    assert "end" not in names(first)
    assert own.web.wait(10)
    own.web.end()
    own.start_web()
    wait_until(lambda: reached(client), 20, "the web process does not come back")
    second = followed(client, path, first[-1].id)
    check_whole(client, path, second)
    done = [event.json["rows_done"] for event in first + second if event.name == "progress"]
    assert done == sorted(done)
    ids = [int(event.id) for event in first + second]
    assert ids == sorted(ids)


def reached(client):
    try:
        return client.get("/healthz").status == 200
    except OSError:
        return False


def test_who_finds_no_seat_is_told_the_state_and_comes_back_until_one_is_free(stack):
    own = Client(stack(workers=0, WEB_CONCURRENCY=1, MAX_WAITING=1).url)
    path = own.submit(ROWS, "?model=identity")
    with Stream(own, path) as seated:
        seated.until("progress")
        with Stream(own, path) as other:
            events = list(other)
        assert names(events) == [OF_THE_STREAM, "status", "progress"]
        assert events[0].text == "5000"
        assert own.get(f"{path}?wait=20").json["status"] == "queued"
    # The seat of a client that has gone is free soon, though nothing happens that could be told.
    wait_until(lambda: first_event(own, path).text == "2000", 5, "the seat is not free again")


def first_event(client, path):
    with Stream(client, path) as stream:
        return next(iter(stream))


def test_who_follows_a_job_looks_after_it_where_there_is_no_worker(stack):
    own = Client(stack(workers=0, JOB_MAX_AGE_SECONDS=2).url)
    path = own.submit(ROWS, "?model=identity")
    events = followed(own, path)
    assert names(events)[-1] == "end"
    assert events[-1].json["error"]["code"] == "deadline_exceeded"


class Reached:
    """A stack that reaches its store through a proxy."""

    def __init__(self, directory, models_path):
        self.proxy = None
        settings = {"MODELS_PATH": str(models_path), "PYTHONPATH": str(ROOT), "WEB_CONCURRENCY": "1"}
        self.stack = Stack(directory, workers=1, environment=settings, reach=self._reach)

    def _reach(self, store):
        self.proxy = Proxy("127.0.0.1", store.port)
        return store.url.replace(f":{store.port}/", f":{self.proxy.port}/")


@pytest.fixture
def remote(tmp_path, models_path):
    """A stack with its store behind a proxy."""
    own = Reached(tmp_path, models_path)
    own.stack.start()
    yield own
    own.stack.stop()
    own.proxy.close()


@pytest.mark.parametrize("fault", ["refuse", "stall"])
def test_stream_outlasts_a_store_that_is_away(remote, fault):
    client = Client(remote.stack.url)
    path = client.submit(slow(6_000), "?model=slow")
    with Stream(client, path) as stream:
        events = stream.until("progress")
        getattr(remote.proxy, fault)()
        wait_until(lambda: client.get(path).status == 503, 10, "the store is not away")
        # A browser that comes back would never try again after a 503.
        with Stream(client, path, events[-1].id) as other:
            assert other.status == 200
            refused = client.get(f"{path}/events")
            assert (refused.status, refused.code) == (503, "queue_unavailable")
            remote.proxy.resume()
            for each in (stream, other):
                told = [event for event in each.until("end") if event.id]
                assert told[-1].json == client.job(path)
                assert told[-1].json["status"] == "succeeded"


def test_store_that_comes_back_empty_is_told(remote):
    client = Client(remote.stack.url)
    path = client.submit(slow(20_000), "?model=slow")
    with Stream(client, path, timeout=14) as stream:
        stream.until("progress")
        with redis.Redis.from_url(remote.stack.redis_url) as store:
            store.flushall()
        gone = stream.until("gone")[-1]
    assert gone.json["code"] == "job_lost"
