"""Rows that make the model crash, hang or take all memory: they alone get an error, whatever dies on the way."""

import os
import random
import signal

import pytest

from tests.client import Client
from tests.waiting import wait_until

GIB = 1 << 30
CODES = {-1: "model_error", -2: "worker_crashed", -3: "worker_crashed", -4: "timeout", -5: "out_of_memory"}
REASONS = {-2: "crashed", -3: "crashed", -4: "timeout"}


@pytest.fixture(scope="module")
def poisoned(_new_stack):
    """A stack of two workers whose predictors may die, and must not take all of the machine's memory."""
    own = _new_stack(workers=2, LEASE_SECONDS=4, SWEEP_SECONDS=0.5, PREDICTOR_MEMORY_BYTES=GIB).start()
    yield own, Client(own.url)
    own.stop()


def check(client, path, values, kept=True):
    """Every row has its own outcome: its value, or the error of a poison row."""
    rows = client.rows(path)
    assert len(rows) == len(values)
    for row, value in zip(rows, values, strict=True):
        if value < 0:
            assert (row["prediction"], row["error"]["code"]) == (None, CODES[value])
        else:
            assert (row["prediction"], row["error"]) == (value, None)
        if kept:
            assert row["input"] == {"x": str(value)}


def csv(values):
    return b"x\n" + b"".join(b"%d\n" % value for value in values)


@pytest.mark.parametrize("harm", [-2, -3, -4, -5])
def test_one_poison_row_of_a_chunk_alone_gets_its_error(poisoned, harm):
    _, client = poisoned
    values = list(range(5_000))
    values[random.Random(harm).randrange(5_000)] = harm
    path = client.submit(csv(values), "?model=poisons")
    job = client.finished(path, 60)
    assert (job["status"], job["progress"]["rows_ok"], job["progress"]["rows_failed"]) == ("succeeded", 4_999, 1)
    check(client, path, values)
    reasons = {attempt["reason"] for attempt in job["attempts"]}
    assert reasons == {REASONS[harm]} if harm in REASONS else reasons <= {"out_of_memory"}
    assert all(attempt["counted"] and attempt["worker"] for attempt in job["attempts"])


def test_all_harms_in_one_chunk_and_rows_that_are_wrong_by_themselves(poisoned):
    _, client = poisoned
    values = list(range(300))
    for row, harm in zip((0, 17, 18, 150, 299), CODES, strict=True):
        values[row] = harm
    body = csv(values).replace(b"\n20\n", b"\ntwenty\n").replace(b"\n200\n", b"\n200,surplus\n")
    path = client.submit(body, "?model=poisons&keep=none")
    job = client.finished(path, 100)
    assert (job["status"], job["progress"]["rows_failed"]) == ("succeeded", 7)
    rows = client.rows(path)
    assert (rows[20]["error"]["code"], rows[200]["error"]["code"]) == ("invalid_number", "wrong_cell_count")
    for row, value in zip(rows, values, strict=True):
        if value not in (20, 200):
            assert row["prediction"] == (None if value < 0 else value)
            assert (row["error"] or {}).get("code") == CODES.get(value)
    failed = client.get(path + "/errors").body.decode().splitlines()
    assert len(failed) == 8


def test_poison_rows_among_json_inputs_are_found(poisoned):
    _, client = poisoned
    body = b"".join(b'{"x": %d, "note": "n\\u00e4\\n"}\n' % (-2 if row == 700 else row) for row in range(1_000))
    path = client.submit(body, "?model=poisons", "application/x-ndjson")
    job = client.finished(path, 60)
    assert (job["status"], job["progress"]["rows_failed"]) == ("succeeded", 1)
    rows = client.rows(path)
    assert rows[700]["error"]["code"] == "worker_crashed"
    assert rows[999] == {"row": 1_000, "input": {"x": 999, "note": "nä\n"}, "prediction": 999, "error": None}


def test_batch_of_which_every_row_is_poison_ends_soon(poisoned):
    _, client = poisoned
    path = client.submit(csv([-3] * 20_000), "?model=exits&keep=none")
    other = client.submit(csv(range(1_000)), "?model=identity")
    assert client.finished(other, 20)["status"] == "succeeded"
    job = client.finished(path, 60)
    assert (job["status"], job["error"]["code"]) == ("failed", "all_rows_failed")
    # The model is to blame: nobody has tried each of these rows alone, so none of them is.
    assert {row["error"]["code"] for row in client.rows(path)} == {"not_processed"}
    assert client.ask("POST", f"{path}/retry").status == 202


@pytest.mark.parametrize("harm", [-2, -4, -5])
def test_poison_single_gets_its_error_and_its_neighbours_their_predictions(poisoned, harm):
    _, client = poisoned
    values = [1, 2, harm, 3, 4]
    paths = [client.submit(b'{"input": %d}' % value, "?model=poisons", "application/json") for value in values]
    jobs = [client.finished(path, 60) for path in paths]
    for job, value in zip(jobs, values, strict=True):
        if value < 0:
            assert (job["status"], job["error"]["code"]) == ("failed", CODES[value])
            reasons = [attempt["reason"] for attempt in job["attempts"]]
            assert set(reasons) == ({REASONS[value]} if value in REASONS else set())
            assert len(reasons) >= (2 if value in REASONS else 0)
        else:
            assert (job["status"], job["result"]) == ("succeeded", {"prediction": value})


def test_search_goes_on_when_its_worker_is_lost_or_told_to_stop(stack):
    own = stack(workers=2, LEASE_SECONDS=2, SWEEP_SECONDS=0.5)
    client = Client(own.url)
    values = list(range(2_000))
    for row in (5, 600, 601, 1_999):
        values[row] = -4  # hangs: the search takes seconds
    path = client.submit(csv(values), "?model=hangs&keep=none")

    def crashes():
        return [attempt for attempt in client.job(path)["attempts"] if attempt["reason"] == "timeout"]

    for number, sent in ((1, signal.SIGKILL), (3, signal.SIGTERM), (5, signal.SIGKILL)):
        wait_until(lambda number=number: len(crashes()) >= number, 60, "the search does not go on")
        worker = own.workers.pop(0)
        os.kill(worker.pid, sent)
        wait_until(lambda worker=worker: not worker.is_alive, 10, "no end")
        own.start_worker()
    job = client.finished(path, 150)
    assert (job["status"], job["progress"]["rows_failed"]) == ("succeeded", 4)
    rows = client.rows(path)
    assert [row["row"] - 1 for row in rows if row["error"]] == [5, 600, 601, 1_999]
    assert {row["error"]["code"] for row in rows if row["error"]} == {"timeout"}
    assert [row["prediction"] for row in rows if not row["error"]] == [value for value in values if value >= 0]
    assert not any(attempt["counted"] for attempt in job["attempts"] if attempt["reason"] == "shutdown")
