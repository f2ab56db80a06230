"""`POST /jobs/<id>/retry`, and what jobs say of retries and attempts."""

import json

import pytest
import redis

from tests.waiting import wait_until
from tests.zoo.estimators import mood

FORMS = ["text/csv", "application/x-ndjson", "application/json"]
TYPES = ["text/csv", "application/x-ndjson"]


def body_of(type, rows=3_000):
    """Every seventh row is negative; in every record a cell has quotes, a delimiter and a line end."""
    records = [(f'no. {number}\r\n, "so"', number if number % 7 else -number) for number in range(rows)]
    if type == "text/csv":
        cells = [(text.replace('"', '""'), x) for text, x in records]
        return b"id,x\r\n" + b"".join([f'"{text}",{x}\r\n'.encode() for text, x in cells])
    return "".join([json.dumps({"x": x, "id": text, "more": [x]}) + "\n" for text, x in records]).encode()


@pytest.fixture
def bad_mood(models_path):
    """While the file is there the model `moody` raises for negative rows."""
    file = mood(models_path)
    file.touch()
    yield file
    file.unlink(missing_ok=True)


def ask(client, path, rows=None):
    return client.send_json({"rows": rows}, f"{path}/retry") if rows else client.ask("POST", f"{path}/retry")


def retried(client, path, rows=None):
    """The path of the job that retries these rows, once it has ended."""
    answer = ask(client, path, rows)
    assert answer.status == 202, answer.body
    assert answer.json["retry_of"] == path.removeprefix("/jobs/")
    assert answer.headers["Location"] == answer.json["links"]["self"] != path
    client.finished(answer.headers["Location"])
    return answer.headers["Location"]


def outcome(client, path):
    """All that comes out of a job, in every form, and its counters."""
    results = [client.results(path, "?limit=5000" * (form == "application/json"), form) for form in FORMS]
    job = client.job(path)
    progress = {name: value for name, value in job["progress"].items() if name not in ("rows_per_second", "percent")}
    return [*results, client.get(f"{path}/errors").body, progress, job["status"], job["error"], job["output"]]


def canceled(client, body, query="", type="text/csv", once="rows_done"):
    """A batch for the slow model that was canceled once some of it was done, and not all."""
    path = client.submit(body, f"?model=slow{query}", type)
    wait_until(lambda: client.job(path)["progress"][once], 20, f"there are no {once}")
    job = client.ask("POST", f"{path}/cancel").json
    assert 0 < job["progress"]["rows_done"] < job["progress"]["rows_total"]
    return path


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("keep", ["all", "none", "id"])
def test_canceled_job_that_is_retried_comes_out_as_if_it_had_never_been_canceled(client, type, keep):
    body, query = body_of(type, 1_500), f"&keep={keep}"
    path = canceled(client, body, query, type)
    before = outcome(client, path)
    again = retried(client, path, "unprocessed")
    assert outcome(client, again) == outcome(client, client.done(body, f"?model=identity{query}", type))
    assert outcome(client, path) == before


def test_rows_with_errors_stay_in_a_canceled_job_that_is_retried_without_them(client):
    body = b"x\nabc\n1,2\n" + b"3\n" * 2_000
    path = canceled(client, body)
    job = client.job(retried(client, path, "unprocessed"))
    assert outcome(client, job["links"]["self"]) == outcome(client, client.done(body, "?model=identity"))
    assert (job["status"], job["progress"]["rows_failed"], job["progress"]["percent"]) == ("succeeded", 2, 100.0)


def test_failed_rows_of_a_canceled_job_are_retried_without_the_unprocessed_ones(client):
    path = canceled(client, b"x\nabc\n" + b"3\n" * 2_000, once="rows_failed")
    again = retried(client, path, "failed")
    old, new = client.job(path), client.job(again)
    assert (old["status"], new["status"]) == ("canceled", "succeeded")
    for name in ("rows_total", "rows_received", "rows_done", "rows_ok", "rows_failed"):
        assert new["progress"][name] == old["progress"][name]
    assert client.results(again) == client.results(path)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("keep", ["all", "none", "id"])
def test_failed_rows_that_are_retried_come_out_as_if_they_had_never_failed(client, bad_mood, type, keep):
    path = client.done(body_of(type), f"?model=moody&keep={keep}", type)
    assert client.job(path)["progress"]["rows_failed"] == 428
    bad_mood.unlink()
    again = retried(client, path, "failed")
    assert client.job(again)["progress"]["rows_failed"] == 0
    assert outcome(client, again) == outcome(client, client.done(body_of(type), f"?model=moody&keep={keep}", type))


def test_mixed_line_ends_and_surplus_cells_survive_a_retry(client, bad_mood):
    body = b'id,x\r\na,1\nb,-2\r\n"c\n",-3\nd\r\ne,5,"6,\r\n7",8\nf,x\r\ng,-7'
    path = client.done(body, "?model=moody")
    bad_mood.unlink()
    whole = client.done(body, "?model=moody")
    assert b"surplus" in client.get(f"{whole}/errors").body
    for rows in ("failed", "all", None):
        assert outcome(client, retried(client, path, rows)) == outcome(client, whole)


def test_retry_of_a_retry_goes_on_from_there(client, bad_mood):
    body = b"x\n1\n-2\nabc\n"
    first = client.done(body, "?model=moody")
    second = retried(client, first)
    assert outcome(client, second) == outcome(client, first)
    bad_mood.unlink()
    third = retried(client, second)
    assert [row["prediction"] for row in client.rows(third)] == [1, -2, None]
    assert client.ask("DELETE", first).status == 204
    assert client.ask("DELETE", second).status == 204
    assert [row["prediction"] for row in client.rows(third)] == [1, -2, None]


@pytest.mark.parametrize("type", TYPES)
def test_all_rows_are_predicted_again_from_what_was_kept(client, bad_mood, type):
    path = client.done(body_of(type), "?model=moody", type)
    bad_mood.unlink()
    again = retried(client, path, "all")
    assert outcome(client, again) == outcome(client, client.done(body_of(type), "?model=moody", type))


def test_batch_of_json_inputs_is_retried(client, bad_mood):
    inputs = [{"x": 1, "id": "a"}, {"x": -2, "id": "b"}, [3], {"id": "no x"}]
    path = client.send_json({"inputs": inputs}, "/jobs?model=moody").headers["Location"]
    client.finished(path)
    bad_mood.unlink()
    whole = client.send_json({"inputs": inputs}, "/jobs?model=moody").headers["Location"]
    client.finished(whole)
    for rows in ("failed", "all"):
        assert outcome(client, retried(client, path, rows)) == outcome(client, whole)


def test_job_of_which_no_row_had_a_prediction_can_succeed_by_a_retry(client, bad_mood):
    path = client.done(b"x\n-1\n-2\n", "?model=moody")
    assert client.job(path)["error"]["code"] == "all_rows_failed"
    bad_mood.unlink()
    job = client.job(retried(client, path))
    assert (job["status"], job["error"], job["progress"]["rows_ok"]) == ("succeeded", None, 2)


def test_failed_single_is_predicted_again(client, bad_mood):
    path = client.send_json({"input": {"x": -1, "note": "kept"}}, "/jobs?model=moody").headers["Location"]
    assert client.finished(path)["error"]["code"] == "model_error"
    bad_mood.unlink()
    again = retried(client, path)
    assert client.job(again)["result"] == {"prediction": -1.0}
    assert client.rows(again)[0]["input"] == {"x": -1, "note": "kept"}
    assert client.job(path)["status"] == "failed"
    assert ask(client, again).code == "nothing_to_retry"
    assert client.job(retried(client, again, "all"))["result"] == {"prediction": -1.0}


def test_canceled_single_is_queued_again(idle):
    path = idle.send_json({"input": 7}, "/jobs?model=identity").headers["Location"]
    assert ask(idle, path).code == "job_not_ended"
    idle.ask("POST", f"{path}/cancel")
    assert ask(idle, path, "failed").code == "nothing_to_retry"
    for rows in (None, "unprocessed", "all"):
        job = ask(idle, path, rows).json
        assert (job["status"], job["kind"], job["retry_of"]) == ("queued", "single", path.removeprefix("/jobs/"))


def test_retried_batch_is_listed_and_waits_like_any_other(idle):
    path = idle.submit(b"x\n1\n2\n", "?model=identity")
    idle.ask("POST", f"{path}/cancel")
    answer = ask(idle, path)
    job = answer.json
    assert (answer.status, job["status"], job["progress"]["rows_total"]) == (202, "queued", 2)
    assert int(answer.headers["Retry-After"]) >= 1
    again = job["links"]["self"]
    assert idle.listed("?limit=1") == [again]
    assert idle.ask("POST", f"{again}/cancel").json["status"] == "canceled"
    assert [row["error"]["code"] for row in idle.rows(again)] == ["not_processed"] * 2


def test_job_that_has_not_ended_is_not_retried(idle):
    path = idle.submit(b"x\n1\n", "?model=identity")
    answer = ask(idle, path)
    assert (answer.status, answer.code) == (409, "job_not_ended")
    assert int(answer.headers["Retry-After"]) >= 1


def test_job_without_such_rows_is_not_retried(client, idle):
    path = client.done(b"x\n1\n", "?model=identity")
    for rows in (None, "failed", "unprocessed"):
        answer = ask(client, path, rows)
        assert (answer.status, answer.code) == (409, "nothing_to_retry")
    path = idle.submit(b"x\n1\n", "?model=identity")
    idle.ask("POST", f"{path}/cancel")
    assert ask(idle, path, "failed").code == "nothing_to_retry"


@pytest.mark.parametrize("keep", ["none", "id"])
def test_all_rows_are_not_retried_when_not_all_columns_were_kept(client, keep):
    for type in TYPES:
        answer = ask(client, client.done(body_of(type, 3), f"?model=identity&keep={keep}", type), "all")
        assert (answer.status, answer.code) == (409, "input_gone")


def test_job_of_a_model_that_is_another_now_is_not_retried(client, shared_stack):
    path = client.done(b"x\n1\nabc\n", "?model=identity")
    with redis.Redis.from_url(shared_stack.redis_url) as store:
        for field, value in (("sha256", "0" * 64), ("version", "99")):
            store.hset(f"qc:job:{path.removeprefix('/jobs/')}", field, value)
            answer = ask(client, path)
            assert (answer.status, answer.code) == (409, "model_unavailable")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"rows": "some"}, 422, "invalid_rows"),
        ({"rows": None}, 422, "invalid_rows"),
        ({"rows": 1}, 422, "invalid_rows"),
        ({"rows": ["failed"]}, 422, "invalid_rows"),
        ({"row": "failed"}, 422, "unknown_field"),
        ([], 422, "not_an_object"),
        (b"{", 400, "invalid_json"),
    ],
)
def test_what_cannot_be_understood_is_refused(client, body, status, code):
    path = client.done(b"x\nabc\n", "?model=identity")
    answer = client.send_json(body, f"{path}/retry")
    assert (answer.status, answer.code) == (status, code)


def test_empty_document_means_what_no_body_means(client):
    path = client.done(b"x\nabc\n", "?model=identity")
    assert client.send_json({}, f"{path}/retry").status == 202
    assert client.ask("POST", f"{path}/retry", b"").status == 202


def test_attempts_say_what_did_not_go_to_plan(client):
    path = client.done(b"x\n1\n-1\n", "?model=exits")
    job = client.job(path)
    assert job["attempts"]
    for attempt in job["attempts"]:
        assert list(attempt) == ["chunk", "worker", "started_at", "ended_at", "reason", "counted"]
        assert (attempt["chunk"], attempt["reason"], attempt["counted"]) == (0, "crashed", True)
        assert job["created_at"] <= attempt["started_at"] <= attempt["ended_at"] <= job["ended_at"]
    listed = client.get("/jobs?limit=100&model=exits").json["jobs"]
    assert [each["attempts"] for each in listed if each["id"] == job["id"]] == [job["attempts"]]
    assert client.job(retried(client, path))["attempts"]


def test_attempts_of_a_single_name_no_chunk(client):
    path = client.send_json({"input": -1}, "/jobs?model=exits").headers["Location"]
    attempts = client.finished(path)["attempts"]
    assert attempts
    assert {(attempt["chunk"], attempt["reason"]) for attempt in attempts} == {(None, "crashed")}


def test_unknown_and_deleted_jobs_are_not_retried(client):
    unknown = client.done(b"x\nabc\n", "?model=identity")
    assert ask(client, unknown[:-2] + "aa").code == "unknown_job"
    client.ask("DELETE", unknown)
    answer = ask(client, unknown)
    assert (answer.status, answer.code) == (410, "job_deleted")
