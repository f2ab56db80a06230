"""Jobs take turns: a small one is not stuck behind a large one, and a large one still ends."""

import threading

import pytest

from tests.client import Client


@pytest.fixture
def client(shared_stack):
    return Client(shared_stack.url)


def test_small_batch_and_single_behind_a_large_batch_end_long_before_it(client):
    large = client.submit(b"x\n" + b"1\n" * 12_000, "?model=slow&keep=none")  # some six seconds of two workers
    small = client.submit(b"x\n" + b"1\n" * 50, "?model=slow")
    single = client.ask("POST", "/predict?model=slow", b'{"input": 3}', {"Content-Type": "application/json"})
    assert single.json == {"response": 3.0}
    assert client.finished(small, 5)["status"] == "succeeded"
    job = client.job(large)
    assert job["ended_at"] is None
    assert job["progress"]["rows_done"] < 12_000
    client.ask("DELETE", large)


def test_large_batch_ends_behind_a_steady_stream_of_small_ones(client):
    large = client.submit(b"x\n" + b"1\n" * 2_000, "?model=slow&keep=none")
    stopped = threading.Event()

    def stream():
        while not stopped.is_set():
            client.finished(client.submit(b"x\n" + b"1\n" * 40, "?model=slow"))

    streams = [threading.Thread(target=stream) for _ in range(4)]
    for each in streams:
        each.start()
    try:
        job = client.finished(large, 60)
    finally:
        stopped.set()
        for each in streams:
            each.join()
    assert (job["status"], job["progress"]["rows_ok"]) == ("succeeded", 2_000)


def test_chunks_of_a_slow_model_are_small_once_its_speed_is_known(client):
    client.finished(client.submit(b"x\n" + b"1\n" * 1_500, "?model=slow"))
    path = client.submit(b"x\n" + b"1\n" * 3_000, "?model=slow")
    seen = set()
    while not (job := client.job(path))["ended_at"]:
        seen.add(job["progress"]["rows_done"])
    # A thousand rows a second: chunks of about a hundred, so progress moves some ten times a second and worker.
    assert len(seen) > 8
