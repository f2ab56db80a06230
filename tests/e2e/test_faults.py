"""What dies, disconnects or misbehaves: every row still has one outcome."""

import http.client
import os
import signal
import socket
import time

import pytest

from tests.client import Client
from tests.processes import children, descendants, is_alive, nursery_of, predictor_of
from tests.waiting import wait_until


def identity(rows):
    return b"x\n" + b"".join(b"%d\n" % number for number in range(rows))


def predictions(client, path):
    return [row["prediction"] for row in client.rows(path)]


def wait_for_progress(client, path):
    wait_until(lambda: client.job(path)["progress"]["rows_done"] > 0, 20, "nothing was done")


@pytest.fixture
def two(stack):
    """A stack of two workers that may be killed, with short leases so that tests need not wait for long ones."""
    own = stack(workers=2, LEASE_SECONDS=2, SWEEP_SECONDS=0.5)
    return own, Client(own.url)


def test_batch_survives_the_kill_of_a_worker_with_both_its_processes(two):
    own, client = two
    path = client.submit(identity(8_000), "?model=slow")
    wait_for_progress(client, path)
    victim = own.workers[0]
    os.kill(predictor_of(victim.pid), signal.SIGKILL)
    victim.signal(signal.SIGKILL)
    job = client.finished(path, 60)
    assert (job["status"], job["progress"]["rows_ok"], job["progress"]["rows_failed"]) == ("succeeded", 8_000, 0)
    assert predictions(client, path) == list(range(8_000))


@pytest.mark.parametrize("victim_of", [predictor_of, nursery_of])
def test_batch_survives_the_kill_of_a_predictor_or_nursery_and_the_worker_stays(two, victim_of):
    own, client = two
    path = client.submit(identity(6_000), "?model=slow")
    wait_for_progress(client, path)
    for worker in own.workers:
        os.kill(victim_of(worker.pid), signal.SIGKILL)
    job = client.finished(path, 60)
    assert (job["status"], job["progress"]["rows_ok"]) == ("succeeded", 6_000)
    assert predictions(client, path) == list(range(6_000))
    assert all(worker.is_alive for worker in own.workers)


def test_nursery_and_predictor_are_gone_soon_after_their_parent(two):
    own, _ = two
    family = [nursery_of(own.workers[0].pid), predictor_of(own.workers[0].pid)]
    own.workers[0].signal(signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, family)), 1, "they outlived their parent")


@pytest.mark.parametrize("times", [1, 3])
def test_worker_that_is_told_to_stop_hands_its_rows_back_and_exits(two, times):
    own, client = two
    path = client.submit(identity(6_000), "?model=slow")
    wait_for_progress(client, path)
    worker = own.workers[0]
    for _ in range(times):
        for pid in (worker.pid, *descendants(worker.pid)):
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.1)
    wait_until(lambda: not worker.is_alive, 10, "the worker did not exit")
    assert worker.exit_code == 0
    job = client.finished(path, 60)
    assert (job["status"], job["progress"]["rows_ok"], job["progress"]["rows_failed"]) == ("succeeded", 6_000, 0)


def test_idle_worker_that_is_told_to_stop_exits(two):
    own, _ = two
    for worker in own.workers:
        worker.signal(signal.SIGTERM)
    for worker in own.workers:
        wait_until(lambda worker=worker: not worker.is_alive, 10, "the worker did not exit")
        assert worker.exit_code == 0


def test_client_that_disconnects_mid_upload_leaves_a_410_and_nothing_else(two):
    own, client = two
    upload = socket.create_connection(("127.0.0.1", own.port))
    upload.sendall(
        b"POST /jobs?model=identity HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 100000000\r\n\r\n"
        + identity(40_000)
    )
    listed = wait_until(lambda: client.get("/jobs?status=receiving").json["jobs"], 10, "the upload is not listed")
    path = listed[0]["links"]["self"]
    wait_for_progress(client, path)
    upload.close()
    wait_until(lambda: client.get(path).status == 410, 10, "the upload was not taken back")
    assert client.get(path).code == "upload_failed"
    assert client.get("/jobs").json["jobs"] == []
    import redis

    with redis.Redis.from_url(own.redis_url) as store:
        assert not list(store.scan_iter("qc:job:*"))


def test_web_process_that_is_killed_mid_upload_leaves_an_upload_that_ends_by_itself(stack):
    own = stack(workers=1, UPLOAD_DEADLINE_SECONDS=2, BODY_IDLE_SECONDS=1, SWEEP_SECONDS=0.5)
    client = Client(own.url)
    upload = socket.create_connection(("127.0.0.1", own.port))
    upload.sendall(
        b"POST /jobs?model=identity HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 100000000\r\n\r\n"
        + identity(40_000)
    )
    listed = wait_until(lambda: client.get("/jobs?status=receiving").json["jobs"], 10, "the upload is not listed")
    for pid in children(own.web.pid):
        os.kill(pid, signal.SIGKILL)
    path = listed[0]["links"]["self"]

    def gone():
        try:
            return client.get(path).status == 410
        except (OSError, http.client.HTTPException):
            return False

    wait_until(gone, 20, "the upload did not end")
    assert client.get(path).code == "upload_failed"
    upload.close()


@pytest.mark.parametrize("ending", ["cancel", "delete"])
def test_cancel_or_delete_while_the_body_arrives_answers_the_upload(two, ending):
    own, client = two
    upload = socket.create_connection(("127.0.0.1", own.port))
    upload.settimeout(20)
    upload.sendall(
        b"POST /jobs?model=identity HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 100000000\r\n\r\n"
        + identity(40_000)
    )
    path = wait_until(lambda: client.get("/jobs").json["jobs"], 10, "not listed")[0]["links"]["self"]
    if ending == "cancel":
        assert client.ask("POST", f"{path}/cancel").json["status"] == "canceled"
    else:
        assert client.ask("DELETE", path).status == 204
    upload.sendall(b"1\n" * 40_000)
    answer = http.client.HTTPResponse(upload)
    answer.begin()
    assert answer.status == 409
    assert f"job_{ending}ed".replace("deleteed", "deleted").encode() in answer.read().replace(b"cancelled", b"")
    upload.close()


def test_rows_that_the_model_raises_for_carry_an_error_and_the_others_a_prediction(shared_stack):
    client = Client(shared_stack.url)
    rows = [-number if number % 100 == 50 else number for number in range(1_000)]
    path = client.submit(b"x\n" + b"".join(b"%d\n" % row for row in rows), "?model=raises")
    job = client.finished(path)
    assert (job["status"], job["progress"]["rows_failed"]) == ("succeeded", 10)
    for row, value in zip(client.rows(path), rows, strict=True):
        if value < 0:
            assert row["error"]["code"] == "model_error"
        else:
            assert row["prediction"] == value


def test_single_that_kills_the_predictor_fails_alone(two):
    _, client = two
    paths = [client.submit(b'{"input": %d}' % value, "?model=exits", "application/json") for value in (1, 2, -1, 3, 4)]
    jobs = [client.finished(path, 60) for path in paths]
    assert [job["status"] for job in jobs] == ["succeeded", "succeeded", "failed", "succeeded", "succeeded"]
    assert jobs[2]["error"]["code"] == "worker_crashed"


@pytest.mark.parametrize(
    ("model", "code"), [("nan", "not_finite"), ("infinite", "not_finite"), ("short", "model_error")]
)
def test_what_is_no_prediction_is_the_rows_error(shared_stack, model, code):
    client = Client(shared_stack.url)
    path = client.submit(b"x\n-1\n-2\n", f"?model={model}")
    job = client.finished(path)
    assert (job["status"], job["error"]["code"]) == ("failed", "all_rows_failed")
    assert {row["error"]["code"] for row in client.rows(path)} == {code}


@pytest.mark.parametrize(("model", "value"), [("zero", 0), ("false", False)])
def test_predictions_that_are_false_are_predictions(shared_stack, model, value):
    client = Client(shared_stack.url)
    path = client.submit(b"x\n1\n", f"?model={model}")
    assert client.finished(path)["status"] == "succeeded"
    assert client.rows(path)[0]["prediction"] == value
    single = client.ask("POST", f"/predict?model={model}", b'{"input": 1}', {"Content-Type": "application/json"})
    assert single.json == {"response": value}


def test_neither_the_web_process_nor_the_parent_loads_what_predicts_and_the_predictor_has_no_secret(two):
    own, client = two
    client.finished(client.submit(identity(100), "?model=identity"))
    for pid in [*children(own.web.pid), *(worker.pid for worker in own.workers)]:
        with open(f"/proc/{pid}/maps") as maps:
            mapped = maps.read()
        for library in ("numpy", "pandas", "sklearn", "scipy"):
            assert f"/{library}/" not in mapped
    for worker in own.workers:
        for pid in (nursery_of(worker.pid), predictor_of(worker.pid)):
            with open(f"/proc/{pid}/environ", "rb") as environment:
                text = environment.read()
            assert b"REDIS" not in text
            assert b"redis" not in text
            with open(f"/proc/{pid}/maps") as maps:
                assert "/sklearn/" in maps.read()
