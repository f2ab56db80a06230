"""Jobs: looked at, waited for, listed, canceled, deleted, expired; and the routes about what there is."""

import re
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
import redis

from tests.waiting import wait_until

ROWS = b"x\n1\n2\n3\n"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ROUTES = [
    ("GET", ""),
    ("GET", "/results"),
    ("GET", "/errors"),
    ("GET", "/events"),
    ("POST", "/cancel"),
    ("POST", "/retry"),
    ("DELETE", ""),
]


def moment(text):
    assert TIME.fullmatch(text)
    return datetime.fromisoformat(text)


def sha256(client, model):
    return client.get(f"/models/{model}").json["sha256"]


def test_queued_batch_shows_what_there_is_to_know(idle):
    first = idle.submit(ROWS, "?model=identity")
    answer = idle.send(b"id,x\na,1\nb,2\n", "?model=identity&keep=id")
    job, path = answer.json, answer.headers["Location"]
    looked_at = idle.get(path)
    assert looked_at.json == job
    assert int(looked_at.headers["Retry-After"]) >= 1
    assert answer.headers["Cache-Control"] == "no-store"
    assert abs(moment(job.pop("created_at")) - datetime.now(UTC)) < timedelta(seconds=30)
    queue = job.pop("queue")
    assert queue["position"] >= 1
    assert queue["rows_ahead"] >= 3
    assert queue["eta_seconds"] is None
    assert job == {
        "id": path.removeprefix("/jobs/"),
        "kind": "batch",
        "status": "queued",
        "model": {"name": "identity", "version": "1", "sha256": sha256(idle, "identity")},
        "started_at": None,
        "ended_at": None,
        "expires_at": None,
        "progress": {
            "rows_total": 2,
            "rows_received": 2,
            "rows_done": 0,
            "rows_ok": 0,
            "rows_failed": 0,
            "percent": 0.0,
            "rows_per_second": None,
            "eta_seconds": None,
        },
        "output": {"columns": ["id", "prediction", "error"], "bytes": None},
        "result": None,
        "error": None,
        "attempts": [],
        "retry_of": None,
        "links": {
            "self": path,
            "results": f"{path}/results",
            "errors": f"{path}/errors",
            "events": f"{path}/events",
            "cancel": f"{path}/cancel",
        },
    }
    ahead = idle.job(first)["queue"]
    assert (queue["position"] - ahead["position"], queue["rows_ahead"] - ahead["rows_ahead"]) == (1, 3)


def test_ended_batch_shows_what_came_of_it(client):
    path = client.submit(b"x\n1\nabc\n-3\n", "?model=raises")
    job = client.finished(path)
    assert client.get(path).headers["Retry-After"] is None
    created, started, ended, expires = (
        moment(job[f"{name}_at"]) for name in ("created", "started", "ended", "expires")
    )
    assert created <= started <= ended
    assert expires - ended == timedelta(hours=24)
    progress = job["progress"]
    assert progress.pop("rows_per_second") > 0
    assert progress == {
        "rows_total": 3,
        "rows_received": 3,
        "rows_done": 3,
        "rows_ok": 1,
        "rows_failed": 2,
        "percent": 100.0,
        "eta_seconds": None,
    }
    assert (job["status"], job["error"], job["result"], job["queue"]) == ("succeeded", None, None, None)
    assert job["output"]["bytes"] == len(client.results(path))


def test_batch_without_any_prediction_has_failed(client):
    job = client.finished(client.submit(b'x\nabc\n""\n', "?model=identity"))
    assert job["status"] == "failed"
    assert job["error"]["code"] == "all_rows_failed"
    assert job["error"]["message"]
    assert (job["progress"]["rows_failed"], job["progress"]["percent"]) == (2, 100.0)


def test_rows_done_and_percent_only_rise_and_100_is_the_end(client):
    path = client.submit(b"x\n" + b"1\n" * 2_000, "?model=slow")
    seen = [client.job(path)]
    while not seen[-1]["ended_at"]:
        seen.append(client.get(f"{path}?wait=0.05").json)
    done = [job["progress"]["rows_done"] for job in seen]
    assert done == sorted(done)
    assert len(set(done)) > 2
    for job in seen:
        progress = job["progress"]
        assert progress["rows_done"] == progress["rows_ok"] + progress["rows_failed"]
        assert (progress["percent"] == 100) == (job["status"] == "succeeded")
        if job["status"] == "running":
            assert job["queue"] is None
            if progress["rows_done"]:
                assert progress["rows_per_second"] > 0
                assert progress["eta_seconds"] >= 0  # rounded: the last rows take less than a tenth of a second
    order = ["queued", "running", "succeeded"]
    places = [order.index(job["status"]) for job in seen]
    assert places == sorted(places)


@pytest.mark.parametrize(("query", "prefer", "applied"), [("?wait=20", "", None), ("", "wait=20", "wait=20")])
def test_wait_ends_with_the_job(client, query, prefer, applied):
    path = client.submit(b"x\n" + b"1\n" * 300, "?model=slow")
    began = time.monotonic()
    found = client.get(path + query, **({"Prefer": prefer} if prefer else {}))
    assert time.monotonic() - began < 15
    assert found.json["status"] == "succeeded"
    assert found.headers["Preference-Applied"] == applied


@pytest.mark.parametrize(
    ("query", "prefer", "at_least"), [("?wait=0.3", "", 0.3), ("", "wait=0.3", 0.3), ("?wait=0.2", "wait=20", 0.2)]
)
def test_wait_that_is_over_shows_the_job_as_it_is(idle, query, prefer, at_least):
    path = idle.submit(ROWS, "?model=identity")
    began = time.monotonic()
    found = idle.get(path + query, **({"Prefer": prefer} if prefer else {}))
    assert at_least <= time.monotonic() - began < at_least + 5
    assert (found.status, found.json["status"]) == (200, "queued")


def test_wait_is_cut_to_the_longest(client):
    path = client.done(ROWS, "?model=identity")
    assert client.get(path, Prefer="wait=1000").headers["Preference-Applied"] == "wait=25"
    assert client.get(f"{path}?wait=1000").status == 200


@pytest.mark.parametrize("wait", ["abc", "-1", "", "nan", "1e1", "5s"])
def test_wait_that_is_no_number_is_400(client, wait):
    path = client.submit(ROWS, "?model=identity")
    refused = client.get(f"{path}?wait={wait}")
    assert (refused.status, refused.code) == (400, "invalid_wait")
    if wait:
        assert client.get(path, Prefer=f"wait={wait}").code == "invalid_wait"


def test_canceled_job_keeps_its_rows_and_stays_canceled(idle):
    path = idle.submit(ROWS, "?model=identity")
    for _ in range(2):
        canceled = idle.ask("POST", f"{path}/cancel")
        assert (canceled.status, canceled.json["status"]) == (200, "canceled")
    job = idle.job(path)
    assert moment(job["expires_at"]) > moment(job["ended_at"])
    assert (job["progress"]["rows_done"], job["progress"]["percent"]) == (0, 0.0)
    assert (job["error"], job["queue"]) == (None, None)


def test_canceled_batch_stops_soon_and_its_rows_add_up(client):
    path = client.submit(b"x\n" + b"1\n" * 8_000, "?model=slow")
    wait_until(lambda: client.job(path)["progress"]["rows_done"], 20, "nothing was done")
    assert client.ask("POST", f"{path}/cancel").json["status"] == "canceled"
    job = client.job(path)
    rows = client.rows(path)
    errors = [row["error"]["code"] for row in rows if row["error"]]
    assert len(rows) == 8_000
    assert set(errors) == {"not_processed"}
    assert len(errors) == 8_000 - job["progress"]["rows_ok"]
    state = client.get("/queue").json
    assert wait_until(lambda: client.get("/queue").json["workers"]["busy"] == 0, 2, f"still busy: {state}")
    assert client.job(path) == job


@pytest.mark.parametrize(
    ("model", "body", "status"), [("identity", ROWS, "succeeded"), ("identity", b"x\na\n", "failed")]
)
def test_ended_job_cannot_be_canceled(client, model, body, status):
    path = client.done(body, f"?model={model}")
    refused = client.ask("POST", f"{path}/cancel")
    assert (refused.status, refused.code) == (409, "job_ended")
    assert client.job(path)["status"] == status


@pytest.mark.parametrize("state", ["queued", "canceled", "single"])
def test_deleted_job_is_gone_on_every_route(idle, idle_stack, state):
    if state == "single":
        path = idle.submit(b'{"input": 7}', "", "application/json")
    else:
        path = idle.submit(ROWS, "?model=identity")
    if state == "canceled":
        idle.ask("POST", f"{path}/cancel")
    deleted = idle.ask("DELETE", path)
    assert (deleted.status, deleted.body) == (204, b"")
    for method, route in ROUTES:
        gone = idle.ask(method, path + route)
        assert (gone.status, gone.code) == (410, "job_deleted")
        assert TIME.search(gone.json["detail"])
    assert path not in idle.listed("?limit=100")
    job_id = path.removeprefix("/jobs/")
    with redis.Redis.from_url(idle_stack.redis_url) as store:
        # RQ's ticket lies there until a worker finds that it is for nothing.
        assert [key.decode() for key in store.scan_iter(f"qc:*{job_id}*")] == [f"qc:tombstone:{job_id}"]


def test_ended_job_can_be_deleted(client):
    path = client.done(ROWS, "?model=identity")
    assert client.ask("DELETE", path).status == 204
    assert client.get(f"{path}/results").code == "job_deleted"


def test_expired_jobs_are_gone_on_every_route(idle):
    paths = [idle.submit(ROWS, "?model=identity"), idle.submit(b'{"input": 7}', "", "application/json")]
    for path in paths:
        idle.ask("POST", f"{path}/cancel")
    for path in paths:
        wait_until(lambda path=path: idle.get(path).status == 410, 10, "the job does not expire")
        for method, route in ROUTES:
            gone = idle.ask(method, path + route)
            assert (gone.status, gone.code) == (410, "job_expired")
            assert TIME.search(gone.json["detail"])


# Ids as they stand in the request's path.
STRANGE = {
    "too short": "abc",
    "in capitals": "A" * 32,
    "dots": "..",
    "dots, encoded": "%2e%2e",
    "path": "..%2f..%2fetc%2fpasswd",
    "NUL": "%00",
    "NUL behind an id": "a" * 32 + "%00",
    "line end": "%0a",
    "line end behind an id": "a" * 32 + "%0d%0a",
    "header": "%0d%0aSet-Cookie:%20a=b",
    "no UTF-8": "%ff%fe",
    "unfinished escape": "%",
    "glob": "*",
    "key": "qc:job:x",
    "space": "%20",
    "other digits": quote("٣" * 32),
    "emoji": quote("🙂"),
    "long": "a" * 8_000,
    "longer": "a" * 10_000,
    "markup": quote("<script>alert(1)</script>"),
}


@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_id_that_is_none_is_404_whatever_it_looks_like(client, method, route):
    for what, job_id in STRANGE.items():
        unknown = client.raw(
            f"{method} /jobs/{job_id}{route} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
        )
        assert unknown.status in ((414,) if what == "longer" else (404,)), (what, unknown.status)
        assert unknown.code in ("unknown_job", "unknown_route", "uri_too_long"), what
        assert "Set-Cookie" not in unknown.headers
        assert b"<script" not in unknown.body


@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_id_that_was_never_given_out_is_404_and_one_of_another_store_410(client, method, route):
    path = client.submit(ROWS, "?model=identity")
    never = path[:-1] + ("a" if path[-1] != "a" else "b")
    unknown = client.ask(method, never + route)
    assert (unknown.status, unknown.code) == (404, "unknown_job")
    lost = client.ask(method, f"/jobs/{'a' * len(path.removeprefix('/jobs/'))}{route}")
    assert (lost.status, lost.code) == (410, "job_lost")


GETS = ["/jobs", "/models", "/models/iris", "/models/iris@1", "/queue", "/healthz", "/readyz"]


def test_head_answers_what_get_does_without_the_body(client):
    path = client.done(ROWS, "?model=identity")
    for route in [*GETS, path, f"{path}/results", f"{path}/errors", f"{path}/events", "/nowhere", "/jobs/none"]:
        full, head = client.get(route), client.ask("HEAD", route)
        assert (head.status, head.body) == (full.status, b""), route
        for name in ("Content-Type", "ETag", "Content-Disposition", "Accept-Ranges", "Location", "Retry-After"):
            assert head.headers[name] == full.headers[name], (route, name)


@pytest.mark.parametrize(
    ("method", "route", "allowed"),
    [
        ("PUT", "/jobs", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("POST", "/jobs/x", {"DELETE", "GET", "HEAD", "OPTIONS"}),
        ("POST", "/jobs/x/results", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/jobs/x/cancel", {"OPTIONS", "POST"}),
        ("DELETE", "/predict", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("PATCH", "/models", {"GET", "HEAD", "OPTIONS"}),
        ("BREW", "/healthz", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_method_that_a_route_does_not_take_is_405(client, method, route, allowed):
    refused = client.ask(method, route, b"")
    assert (refused.status, refused.code) == (405, "method_not_allowed")
    assert set(refused.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize("route", ["/nowhere", "/jobs/", "/job", "/jobs/x/nothing", "/%2e%2e/etc/passwd", "/models/"])
def test_route_that_is_none_is_404(client, route):
    unknown = client.get(route)
    assert (unknown.status, unknown.code) == (404, "unknown_route")


@pytest.fixture(scope="module")
def made(client):
    """Jobs of a model that no other test lists, oldest first."""
    bodies = [b"x\n1\n", b"x\na\n", b"x\n2\n"]
    made = [client.done(body, "?model=false") for body in bodies for _ in range(2)]
    return [*made, client.done(b'{"input": 1}', "?model=false", "application/json")]


def test_jobs_are_listed_newest_first(client, made):
    listed = client.get("/jobs?model=false").json
    assert [job["links"]["self"] for job in listed["jobs"]] == made[::-1]
    assert listed["next_cursor"] is None
    assert [client.job(job["links"]["self"]) for job in listed["jobs"]] == listed["jobs"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_of_jobs_join_to_the_whole(client, made, limit):
    found, cursor = [], ""
    while cursor is not None:
        page = client.get(f"/jobs?model=false&limit={limit}&cursor={cursor}").json
        assert len(page["jobs"]) <= limit
        found += [job["links"]["self"] for job in page["jobs"]]
        cursor = page["next_cursor"]
    assert found == made[::-1]


def test_status_and_model_choose_what_is_listed(client, made):
    failed = client.get("/jobs?model=false&status=failed").json["jobs"]
    assert [job["links"]["self"] for job in failed] == [made[3], made[2]]
    assert {job["status"] for job in client.get("/jobs?status=succeeded").json["jobs"]} == {"succeeded"}
    assert client.get("/jobs?model=false&status=canceled").json["jobs"] == []
    assert client.get("/jobs?model=nobody").json == {"jobs": [], "next_cursor": None}


def test_jobs_that_come_meanwhile_shift_no_page(client, made):
    first = client.get("/jobs?limit=3").json
    client.done(b"x\n1\n", "?model=identity")
    second = client.get(f"/jobs?limit=3&cursor={first['next_cursor']}").json
    ids = [job["id"] for page in (first, second) for job in page["jobs"]]
    assert len(set(ids)) == len(ids) == 6


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("status=done", "invalid_status"),
        ("limit=0", "invalid_limit"),
        ("limit=101", "invalid_limit"),
        ("limit=-1", "invalid_limit"),
        ("limit=ten", "invalid_limit"),
        ("limit=1.5", "invalid_limit"),
        ("limit=%D9%A3", "invalid_limit"),
        ("cursor=abc", "invalid_cursor"),
        ("cursor=1-../../x", "invalid_cursor"),
        ("cursor=1%0a", "invalid_cursor"),
        ("cursor=" + "9" * 99 + "-" + "a" * 32, "invalid_cursor"),
    ],
)
def test_what_cannot_be_listed_by_is_400(client, query, code):
    refused = client.get(f"/jobs?{query}")
    assert (refused.status, refused.code) == (400, code)


def test_models_say_what_they_take_and_give(client):
    listed = client.get("/models").json
    assert listed["default"] == "housing"
    names = [model["name"] for model in listed["models"]]
    assert names == sorted(names)
    assert {"housing", "diabetes", "iris", "apartments"} <= set(names)
    for model in listed["models"]:
        assert client.get(f"/models/{model['name']}").json == model
    iris = client.get("/models/iris@1").json
    assert iris["features"][0]["name"] == "sepal_length"
    assert {"name", "type", "minimum", "maximum"} <= set(iris["features"][0])
    assert (iris["target"], iris["classes"]) == ("species", ["setosa", "versicolor", "virginica"])
    assert iris["versions"] == ["1"]
    assert re.fullmatch("[0-9a-f]{64}", iris["sha256"])
    assert "scikit-learn" in iris["library_versions"]
    assert iris["metrics"]["accuracy"] > 0.9


@pytest.mark.parametrize("name", ["nobody", "iris@2", "iris@", "Iris", "..", "%00", "a" * 500])
def test_model_that_is_unknown_is_404(client, name):
    unknown = client.get(f"/models/{name}")
    assert (unknown.status, unknown.code) == (404, "unknown_model")
    assert ("iris@1" if "@" in name else "housing") in unknown.json["detail"]


def test_queue_counts_what_waits(idle):
    before = idle.get("/queue").json
    idle.submit(ROWS, "?model=identity")
    idle.submit(b'{"input": 7}', "", "application/json")
    after = idle.get("/queue").json
    assert (after["jobs"] - before["jobs"], after["rows"] - before["rows"]) == (2, 4)
    assert after["workers"] == {"busy": 0, "idle": 0}
    assert after["oldest_age_seconds"] >= 0


def test_queue_counts_workers(client):
    wait_until(lambda: client.get("/queue").json["workers"] == {"busy": 0, "idle": 2}, 10, "the workers are not idle")
    client.submit(b"x\n" + b"1\n" * 2_000, "?model=slow")
    wait_until(lambda: client.get("/queue").json["workers"]["busy"], 10, "no worker is busy")


def test_process_says_that_it_lives_and_takes_work(client):
    assert client.get("/healthz").json == {"status": "ok"}
    assert client.get("/readyz").json == {"status": "ready"}
