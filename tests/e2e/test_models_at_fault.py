"""Models that cannot be loaded, that only some workers have, or that take the predictor with them."""

import http.client
import json
import os
import pickle
import shutil
import socket
from hashlib import sha256

import pytest

from tests.client import Client
from tests.processes import predictor_of
from tests.waiting import wait_until
from tests.zoo.estimators import Identity, Slow, write


class Bomb:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return (os._exit, (3,))


@pytest.fixture
def models(tmp_path, models_path):
    """A models folder of the test's own."""
    return shutil.copytree(models_path, tmp_path / "models")


@pytest.fixture
def start(stack, models):
    def start(workers=1, **environment):
        own = stack(workers, MODELS_PATH=models, LEASE_SECONDS=4, SWEEP_SECONDS=0.5, **environment)
        return own, Client(own.url)

    return start


def replace_artifact(models, name, data):
    """Puts other bytes in the place of a model's artifact, and their digest into its manifest."""
    folder = models / name / "1"
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / manifest["artifact"]).write_bytes(data)
    manifest["sha256"] = sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def artifact(models, name):
    return models / name / "1" / json.loads((models / name / "1" / "manifest.json").read_text())["artifact"]


def ask(client, model, value=1):
    return client.ask("POST", f"/predict?model={model}", b'{"input": %d}' % value, {"Content-Type": "application/json"})


def test_model_that_kills_whoever_loads_it_fails_its_jobs_and_no_others(models, start):
    replace_artifact(models, "identity", pickle.dumps(Bomb()))
    _, client = start()
    path = client.submit(b"x\n1\n2\n", "?model=identity")
    job = client.finished(path, 60)
    assert (job["status"], job["error"]["code"]) == ("failed", "model_load_failed")
    assert [attempt["reason"] for attempt in job["attempts"]] == ["crashed"] * 3
    single = client.submit(b'{"input": 1}', "?model=identity", "application/json")
    assert client.finished(single, 60)["error"]["code"] == "model_load_failed"
    assert ask(client, "zero").json == {"response": 0}


def test_artifact_whose_bytes_were_changed_is_refused_before_it_is_loaded(models, start):
    file = artifact(models, "identity")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    _, client = start()
    job = client.finished(client.submit(b"x\n1\n", "?model=identity"))
    assert (job["status"], job["error"]["code"]) == ("failed", "model_corrupt")
    assert ask(client, "zero").json == {"response": 0}


def test_model_whose_file_is_missing_here_becomes_unavailable_after_the_wait(models, start):
    artifact(models, "identity").unlink()
    _, client = start(VERSION_WAIT_SECONDS=1)
    path = client.submit(b"x\n1\n", "?model=identity")
    single = client.submit(b'{"input": 1}', "?model=identity", "application/json")
    for each in (path, single):
        job = client.finished(each, 40)
        assert (job["status"], job["error"]["code"]) == ("failed", "model_unavailable")
        assert (job["progress"]["rows_done"], job["progress"]["rows_failed"]) == (0, 0)
        assert [row["error"]["code"] for row in client.rows(each)] == ["not_processed"]
        assert client.get(f"{each}/errors").body == b"x,error\n"  # the row has nothing to correct


@pytest.mark.parametrize("goes_on", [True, False])
def test_model_that_turns_out_corrupt_mid_upload_answers_the_upload_and_leaves_nothing(models, start, goes_on):
    file = artifact(models, "identity")
    file.write_bytes(file.read_bytes()[:-10])
    own, client = start()
    with socket.create_connection(("127.0.0.1", own.port), timeout=30) as upload:
        upload.sendall(
            b"POST /jobs?model=identity HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
            b"Content-Length: 10000000\r\n\r\n"
            b"x\n" + b"1\n" * 40_000
        )
        path = wait_until(lambda: client.get("/jobs").json["jobs"], 10, "not listed")[0]["links"]["self"]
        wait_until(lambda: client.job(path)["status"] == "failed", 20, "the job did not fail")
        if goes_on:  # else the next sign of life finds out
            upload.sendall(b"1\n" * 100_000)
        answer = http.client.HTTPResponse(upload)
        answer.begin()
        assert (answer.status, json.loads(answer.read())["code"]) == (503, "model_corrupt")
    assert client.get(path).code == "upload_failed"
    assert client.get("/jobs").json["jobs"] == []


def test_version_that_only_one_of_three_workers_has_is_predicted_by_that_one(models, start, tmp_path):
    own, client = start(workers=3)
    # A worker of the next release: it alone has version 2.
    release = shutil.copytree(models, tmp_path / "release")
    write(release, "identity", Identity())
    for worker in own.workers:
        worker.signal(15)
    for worker in own.workers:
        wait_until(lambda worker=worker: not worker.is_alive, 10, "no end")
    own.workers.clear()
    own.start_worker()
    own.start_worker()
    # The web process of the next release is not needed: version 2 is known to it when it starts anew.
    own._environment["MODELS_PATH"] = str(release)
    own.start_worker()
    own.web.signal(15)
    wait_until(lambda: not own.web.is_alive, 30, "no end")
    own.start_web()

    def ready():
        try:
            workers = client.get("/queue").json["workers"]
            return workers["busy"] + workers["idle"] == 3
        except OSError:
            return False

    wait_until(ready, 30, "not ready")
    for _ in range(5):
        answer = ask(client, "identity@2", 5)
        assert answer.json == {"response": 5.0}
    job = client.finished(client.submit(b"x\n" + b"1\n" * 500, "?model=identity@2"))
    assert (job["status"], job["progress"]["rows_ok"]) == ("succeeded", 500)


def test_singles_that_kill_the_predictor_do_no_harm_to_the_batch_beside_them(models, start):
    write(models, "slower", Slow(milliseconds=4))
    _, client = start()
    path = client.submit(b"x\n" + b"1\n" * 2_000, "?model=slower&keep=none")
    wait_until(lambda: client.job(path)["progress"]["rows_done"], 30, "nothing was done")
    singles = [client.submit(b'{"input": -1}', "?model=exits", "application/json") for _ in range(4)]
    for single in singles:
        assert client.finished(single, 60)["error"]["code"] == "worker_crashed"
    job = client.finished(path, 60)
    assert (job["status"], job["progress"]["rows_failed"]) == ("succeeded", 0)


def test_sweep_repairs_also_when_leases_are_short_against_its_period(models, stack):
    own = stack(1, MODELS_PATH=models, LEASE_SECONDS=2, SWEEP_SECONDS=2)
    client = Client(own.url)
    path = client.submit(b"x\n" + b"1\n" * 1_000, "?model=slow")
    wait_until(lambda: client.job(path)["progress"]["rows_done"], 20, "nothing was done")
    own.kill(own.workers[0])
    own.start_worker()
    assert client.finished(path, 60)["status"] == "succeeded"


def test_idle_predictor_that_dies_is_replaced_before_it_is_needed(start):
    own, client = start()
    assert ask(client, "zero").status == 200

    predictor = predictor_of(own.workers[0].pid)
    os.kill(predictor, 9)
    wait_until(lambda: predictor_of(own.workers[0].pid) != predictor, 6, "no new predictor")
    job = client.finished(client.submit(b"x\n1\n", "?model=exits"))
    assert job["status"] == "succeeded"
