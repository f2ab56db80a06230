"""Single predictions: asked for in place with /predict, or as a job with one input."""

import json
import threading
import time
from urllib.parse import quote

import pytest

from tests.waiting import wait_until

FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
FLAT = {"area": 50, "rooms": 2, "year_built": 2000, "distance_km": 3, "district": "hill", "heating": "gas"}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_tutorial_s_request_is_answered_in_place(client, method):
    found = client.ask(method, "/predict", '{"input":"7"}', {"Content-Type": "application/json"})
    assert found.status == 200
    assert found.body.startswith(b'{"response":29.04')
    assert list(found.json) == ["response"]
    assert found.headers["Content-Type"] == "application/json"
    assert found.headers["Cache-Control"] == "no-store"
    assert found.headers["X-Model"] == "housing@1"
    job = client.job(f"/jobs/{found.headers['X-Job-Id']}")
    assert (job["kind"], job["status"]) == ("single", "succeeded")
    assert job["result"] == {"prediction": found.json["response"]}


@pytest.mark.parametrize(
    ("value", "query", "prediction"),
    [
        (7, "?model=identity", 7.0),
        ("7", "?model=identity@1", 7.0),
        (" 7e0\t", "?model=identity", 7.0),
        ([7], "?model=identity", 7.0),
        (["7"], "?model=identity", 7.0),
        ({"x": 7}, "?model=identity", 7.0),
        ({"more": [1, {"a": None}], "x": "7"}, "?model=identity", 7.0),
        (-0.0, "?model=identity", -0.0),
        (0.1 + 0.2, "?model=identity", 0.1 + 0.2),
        (5e-324, "?model=identity", 5e-324),
        (1, "?model=sign", True),
        (-1, "?model=sign", False),
        ("-inf", "?model=sign", False),
        (None, "?model=sign", False),
        (FLOWER, "?model=iris", "setosa"),
        (list(FLOWER.values()), "?model=iris", "setosa"),
        (dict(reversed(FLOWER.items())), "?model=iris", "setosa"),
        (1, "?model=zero", 0),
        (1, "?model=false", False),
    ],
)
def test_prediction_has_its_own_json_type(client, value, query, prediction):
    found = client.predict(value, query)
    assert found.status == 200
    assert (repr(found.json["response"]), type(found.json["response"])) == (repr(prediction), type(prediction))


def test_probabilities_come_when_asked_for(client):
    assert list(client.predict(FLOWER, "?model=iris").json) == ["response"]
    assert list(client.predict(FLOWER, "?model=iris&probabilities=false").json) == ["response"]
    found = client.predict(FLOWER, "?model=iris&probabilities=true").json
    assert list(found["probabilities"]) == ["setosa", "versicolor", "virginica"]
    assert sum(found["probabilities"].values()) == pytest.approx(1)
    assert client.predict(1, "?model=sign&probabilities=true").json["probabilities"] == {"false": 0.0, "true": 1.0}
    assert list(client.predict(7, "?probabilities=true").json) == ["response"]


def test_model_may_be_named_in_the_document_and_the_query_wins(client):
    by_field = client.send_json({"input": 3, "model": "identity"}, "/predict")
    assert (by_field.json["response"], by_field.headers["X-Model"]) == (3.0, "identity@1")
    by_query = client.send_json({"input": 3, "model": "zero"}, "/predict?model=identity")
    assert by_query.headers["X-Model"] == "identity@1"


# Documents that nobody can predict from, whatever the route: model, input, code, columns named.
REFUSED = [
    ("identity", "abc", "invalid_number", ["x"]),
    ("identity", True, "invalid_number", ["x"]),
    ("identity", [[7]], "invalid_number", ["x"]),
    ("identity", {"x": {"y": 1}}, "invalid_number", ["x"]),
    ("identity", None, "missing_value", ["x"]),
    ("identity", "", "missing_value", ["x"]),
    ("identity", "N/A", "missing_value", ["x"]),
    ("identity", {"x": None}, "missing_value", ["x"]),
    ("identity", [], "wrong_cell_count", []),
    ("identity", [1, 2], "wrong_cell_count", []),
    ("identity", {}, "missing_columns", ["x"]),
    ("iris", {"sepal_width": 1, "petal_width": 1}, "missing_columns", ["sepal_length", "petal_length"]),
    ("iris", 7, "wrong_cell_count", []),
    ("iris", "7", "wrong_cell_count", []),
    ("iris", FLOWER | {"petal_width": "wide"}, "invalid_number", ["petal_width"]),
    ("apartments", FLAT | {"heating": None}, "missing_value", ["heating"]),
    ("apartments", FLAT | {"heating": "coal", "area": "large"}, "invalid_number", ["area"]),
]


@pytest.mark.parametrize("route", ["/predict", "/jobs"])
@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_the_manifest_refuses_is_422_and_no_job(client, route, case):
    model, value, code, columns = case
    before = client.listed(f"?model={model}")
    refused = client.send_json({"input": value}, f"{route}?model={model}")
    assert (refused.status, refused.code) == (422, code)
    assert [error["column"] for error in refused.json.get("errors", [])] == columns
    assert "X-Job-Id" not in refused.headers
    assert client.listed(f"?model={model}") == before


# What only the model, or its worker, finds out: model, input, code.
FAILED = [
    ("raises", -1, "model_error"),
    ("nan", -1, "not_finite"),
    ("infinite", -1, "not_finite"),
    ("short", 1, "model_error"),
    ("apartments", FLAT | {"heating": "coal"}, "unknown_category"),
    ("apartments", FLAT | {"heating": 7}, "unknown_category"),
    ("identity", "inf", "not_finite"),
]


@pytest.mark.parametrize(("model", "value", "code"), FAILED)
def test_what_comes_of_the_row_is_422_with_the_job(client, model, value, code):
    found = client.predict(value, f"?model={model}")
    assert (found.status, found.code) == (422, code)
    assert found.headers["X-Model"] == f"{model}@1"
    job = client.job(f"/jobs/{found.headers['X-Job-Id']}")
    assert (job["status"], job["error"]["code"], job["result"]) == ("failed", code, None)
    path = client.submit(json.dumps({"input": value}), f"?model={model}", "application/json")
    assert client.finished(path)["error"]["code"] == code


@pytest.mark.parametrize(
    ("body", "type", "status", "code"),
    [
        (b"RM\n7\n", "text/csv", 415, "unsupported_media_type"),
        (b'{"input": 7}', "", 415, "unsupported_media_type"),
        (b'{"input": 7}\n', "application/x-ndjson", 415, "unsupported_media_type"),
        (b'{"inputs": [7]}', "application/json", 422, "inputs_not_here"),
        (b'{"inputs": [7], "input": 7}', "application/json", 422, "inputs_not_here"),
        (b"{}", "application/json", 422, "missing_input"),
        (b"7", "application/json", 422, "not_an_object"),
        (b'{"input": 7, "probabilities": true}', "application/json", 422, "unknown_field"),
        (b'{"input": 7, "model": 7}', "application/json", 422, "invalid_model"),
        (b'{"input": 7, "model": "nobody"}', "application/json", 404, "unknown_model"),
        (b'{"input": 7', "application/json", 400, "invalid_json"),
    ],
)
def test_what_is_no_request_for_a_prediction_is_refused(client, body, type, status, code):
    for method in ("GET", "POST"):
        refused = client.ask(method, "/predict", body, {"Content-Type": type})
        assert (refused.status, refused.code) == (status, code)


def test_get_without_a_body_is_told_what_to_send(client):
    refused = client.get("/predict", Content_Type="application/json")
    assert (refused.status, refused.code) == (400, "empty_body")
    assert '{"input"' in refused.json["detail"]


def test_keep_is_not_for_a_single_prediction(client):
    refused = client.send_json({"input": 7}, "/jobs?keep=none")
    assert (refused.status, refused.code) == (422, "keep_not_for_single")


@pytest.mark.parametrize("prefer", ["respond-async", "handling=lenient, Respond-Async", "foo; bar=1 , respond-async"])
def test_prediction_becomes_a_job_at_once_when_asked_to(client, prefer):
    found = client.predict(7, Prefer=prefer)
    assert found.status == 202
    assert found.headers["Preference-Applied"] == "respond-async"
    assert found.headers["Location"] == f"/jobs/{found.headers['X-Job-Id']}" == found.json["links"]["self"]
    assert client.finished(found.headers["Location"])["result"]["prediction"] == pytest.approx(29.044, abs=1e-3)


@pytest.mark.parametrize(
    ("query", "prefer", "applied", "at_least"),
    [
        ("", "wait=0.3", "wait=0.3", 0.3),
        ("", 'x=", wait=9", WAIT="0.3"', "wait=0.3", 0.3),
        ("", "wait=0", "wait=0", 0),
        ("?wait=0", "", None, 0),
        ("?wait=0.3", "", None, 0.3),
        ("?wait=0", "wait=20", None, 0),
    ],
)
def test_prediction_that_takes_longer_than_the_wait_becomes_a_job(idle, query, prefer, applied, at_least):
    began = time.monotonic()
    found = idle.predict(7, query, **({"Prefer": prefer} if prefer else {}))
    assert at_least <= time.monotonic() - began < at_least + 5
    assert found.status == 202
    assert found.headers["Preference-Applied"] == applied
    assert found.headers["Location"] == f"/jobs/{found.headers['X-Job-Id']}"
    assert found.json["status"] == "queued"
    assert int(found.headers["Retry-After"]) >= 1


def test_wait_is_cut_to_the_longest(client):
    assert client.predict(7, Prefer="wait=1000").headers["Preference-Applied"] == "wait=25"


@pytest.mark.parametrize("wait", ["", "abc", "-1", "nan", "inf", "1e3", "1 2", "٣"])
def test_wait_that_is_no_number_is_400_and_no_job(client, wait):
    before = client.listed("?model=housing")
    refused = client.predict(7, f"?wait={quote(wait)}")
    assert (refused.status, refused.code) == (400, "invalid_wait")
    assert client.listed("?model=housing") == before


def test_prediction_that_is_canceled_while_it_is_waited_for_is_409(idle):
    found = []
    waiting = threading.Thread(target=lambda: found.append(idle.predict(41, "?model=sign", Prefer="wait=10")))
    waiting.start()
    jobs = wait_until(lambda: idle.get("/jobs?model=sign").json["jobs"], 5, "the prediction is not listed")
    idle.ask("POST", jobs[0]["links"]["cancel"])
    waiting.join()
    assert (found[0].status, found[0].code) == (409, "job_canceled")
    assert found[0].headers["X-Job-Id"] == jobs[0]["id"]


def test_single_job_shows_its_result(client):
    accepted = client.send_json({"input": FLOWER | {"note": "mine"}}, "/jobs?model=iris")
    assert accepted.status == 202
    job = client.finished(accepted.headers["Location"])
    assert (job["kind"], job["status"], job["error"]) == ("single", "succeeded", None)
    assert job["result"]["prediction"] == "setosa"
    assert list(job["result"]["probabilities"]) == ["setosa", "versicolor", "virginica"]
    assert job["progress"] | {"rows_per_second": 0} == {
        "rows_total": 1,
        "rows_received": 1,
        "rows_done": 1,
        "rows_ok": 1,
        "rows_failed": 0,
        "percent": 100.0,
        "rows_per_second": 0,
        "eta_seconds": None,
    }
    columns = [*FLOWER, "note", "prediction"]
    columns += ["probability_setosa", "probability_versicolor", "probability_virginica", "error"]
    assert job["output"]["columns"] == columns


def test_single_s_results_come_in_every_form(client):
    path = client.submit(b'{"input": {"note": "=1+1", "x": 1.50}}', "?model=identity", "application/json")
    client.finished(path)
    row = {"row": 1, "input": {"x": 1.5, "note": "=1+1"}, "prediction": 1.5, "error": None}
    assert json.loads(client.results(path, accept="*/*")) == row
    assert json.loads(client.results(path, accept="application/json")) == row
    assert client.rows(path) == [row]
    assert client.results(path) == b"x,note,prediction,error\n1.50,=1+1,1.5,\n"
    assert client.results(path, "?escape_formulas=true") == b"x,note,prediction,error\n1.50,'=1+1,1.5,\n"
    assert client.get(f"{path}/errors").body == b"x,note,error\n"


def test_failed_single_has_its_reason_in_the_results(client):
    path = client.submit(b'{"input": -1}', "?model=raises", "application/json")
    job = client.finished(path)
    row = json.loads(client.results(path, accept="application/json"))
    assert (row["prediction"], row["error"]["code"]) == (None, "model_error")
    assert client.results(path).decode().splitlines()[1].startswith("-1,,model_error: ")
    assert client.get(f"{path}/errors").body.decode().splitlines()[1].startswith("-1,model_error: ")
    assert "1.2345" not in json.dumps(job)
