"""Asking for a job again: its ETag, 304 while nothing has changed, and when it makes sense to ask."""

import itertools
import math
import re
import signal

import pytest

from tests.client import Client
from tests.waiting import wait_until

ROWS = b"x\n1\n2\n3\n"
TAG = re.compile(r'W/"([0-9a-f]{32})"')


def etag(client, path):
    answer = client.get(path)
    assert TAG.fullmatch(answer.headers["ETag"])
    return answer.headers["ETag"]


@pytest.fixture
def queued(idle):
    """The path of a batch that stays queued."""
    return idle.submit(ROWS, "?model=identity")


def test_job_that_has_not_changed_is_304(idle, queued):
    full = idle.get(queued)
    assert full.headers["Cache-Control"] == "private, no-cache"
    for method in ("GET", "HEAD"):
        same = idle.ask(method, queued, headers={"If-None-Match": full.headers["ETag"]})
        assert (same.status, same.body) == (304, b"")
        for name in ("ETag", "Cache-Control", "Retry-After"):
            assert same.headers[name] == full.headers[name] is not None
        assert same.headers["Content-Type"] is same.headers["Content-Length"] is None


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("{}", 304),
        ("*", 304),
        ('"{bare}"', 304),
        ('"a", {}, W/"b"', 304),
        ('"a", W/"b"', 200),
        ('W/"{bare}x"', 200),
        ("", 200),
    ],
)
def test_tags_are_compared_as_rfc_9110_says(client, sent, status):
    path = client.done(ROWS, "?model=identity")
    tag = etag(client, path)
    sent = sent.replace("{bare}", TAG.fullmatch(tag)[1]).replace("{}", tag)
    answer = client.get(path, If_None_Match=sent)
    assert (answer.status, answer.headers["ETag"], answer.headers["Retry-After"]) == (status, tag, None)


def test_tag_changes_with_the_place_in_the_queue(idle):
    first, second = (idle.submit(ROWS, "?model=identity") for _ in range(2))
    tag = etag(idle, second)
    idle.ask("POST", f"{first}/cancel")
    assert etag(idle, second) != tag


def test_tag_changes_when_the_results_live_longer(idle, queued):
    idle.ask("POST", f"{queued}/cancel")
    before = idle.get(queued)
    idle.results(queued)  # a download keeps its job
    after = idle.get(queued, If_None_Match=before.headers["ETag"])
    assert after.status == 200
    assert after.json["expires_at"] > before.json["expires_at"]


def test_tag_of_a_job_changes_with_what_is_done_but_not_with_time(client):
    path = client.submit(b"x\n" + b"1\n" * 3_000, "?model=slow")
    seen = [client.get(path)]
    while not seen[-1].json["ended_at"]:
        seen.append(client.get(path))
    pairs = list(itertools.pairwise(seen))
    kept = [pair for pair in pairs if pair[0].headers["ETag"] == pair[1].headers["ETag"]]
    assert any(one.body != other.body for one, other in kept), "no estimate has changed"
    for one, other in pairs:
        facts = [dict(each.json["progress"], rows_per_second=0, eta_seconds=0) for each in (one, other)]
        if facts[0] != facts[1] or one.json["status"] != other.json["status"]:
            assert one.headers["ETag"] != other.headers["ETag"]


def test_wait_is_over_before_a_tag_is_compared(client, idle, queued):
    path = client.submit(b"x\n" + b"1\n" * 500, "?model=slow")
    ended = client.get(f"{path}?wait=20", If_None_Match=etag(client, path))
    assert (ended.status, ended.json["status"]) == (200, "succeeded")
    same = idle.get(queued, If_None_Match=etag(idle, queued), Prefer="wait=0.2")
    assert (same.status, same.headers["Preference-Applied"]) == (304, "wait=0.2")


def test_tag_of_a_job_that_is_gone_does_not_help(idle, queued):
    tag = etag(idle, queued)
    idle.ask("DELETE", queued)
    assert idle.get(queued, If_None_Match=tag).code == "job_deleted"


def test_answers_to_what_changes_a_job_are_not_kept(idle, queued):
    canceled = idle.ask("POST", f"{queued}/cancel")
    assert (canceled.headers["Cache-Control"], canceled.headers["ETag"]) == ("no-store", None)


def test_batch_that_waits_is_to_be_asked_for_when_it_will_have_ended(stack):
    own = stack(workers=1)
    client = Client(own.url)
    unmeasured = client.send(ROWS, "?model=slow")
    assert unmeasured.headers["Retry-After"] == "1"
    client.done(b"x\n" + b"1\n" * 2_000, "?model=slow")
    worker = own.workers[0]
    worker.signal_group(signal.SIGSTOP)  # it counts as live for ten seconds more
    waits = client.send(b"x\n" + b"1\n" * 12_000, "?model=slow")
    longer = client.send(b"x\n" + b"1\n" * 200_000, "?model=slow")
    single = client.send(b'{"input": 7}', "?model=slow", "application/json")
    worker.signal_group(signal.SIGCONT)
    assert 12 <= int(waits.headers["Retry-After"]) <= 29  # a row takes a millisecond at least
    assert longer.headers["Retry-After"] == "30"
    assert single.headers["Retry-After"] == "1"
    client.ask("DELETE", longer.headers["Location"])
    wait_until(
        lambda: client.job(waits.headers["Location"])["progress"]["eta_seconds"], 20, "the batch has no pace of its own"
    )
    running = client.get(waits.headers["Location"])
    assert abs(int(running.headers["Retry-After"]) - math.ceil(running.json["progress"]["eta_seconds"])) <= 1
