"""`Idempotency-Key`: the same request with the same key is one job, whatever dies in between."""

import gzip
import os
import signal
import socket
import threading
import uuid
from contextlib import contextmanager
from time import sleep

import pytest
import redis
import zstandard

from jobs.scripts import Limits, Scripts
from settings import Settings
from tests.client import Client, answer
from tests.waiting import wait_until

CSV = b"x,more\n1,a\n2,b\n3,c\n"
NDJSON = b'{"x":1}\n{"x":2}\n'
BOUNDARY = "b0undary"


def new_key():
    return str(uuid.uuid4())


def form(boundary=BOUNDARY, model="identity", file=CSV, name="a.csv", type="text/csv"):
    lines = [
        f"--{boundary}",
        'Content-Disposition: form-data; name="model"',
        "",
        model,
        f"--{boundary}",
        f'Content-Disposition: form-data; name="file"; filename="{name}"',
        f"Content-Type: {type}",
        "",
        file.decode(),
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode()


def form_type(boundary=BOUNDARY):
    return {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def pieces(body, size=3):
    """The body such that it is sent chunked."""
    return (body[start : start + size] for start in range(0, len(body), size))


# What is sent: path, body (called anew for each request), headers.
BODIES = {
    "csv": ("/jobs?model=identity", lambda: CSV, {"Content-Type": "text/csv"}),
    "gzip": (
        "/jobs?model=identity",
        lambda: gzip.compress(CSV),
        {"Content-Type": "text/csv", "Content-Encoding": "gzip"},
    ),
    "utf-16": (
        "/jobs?model=identity",
        lambda: CSV.decode().encode("utf-16"),
        {"Content-Type": "text/csv; charset=utf-16"},
    ),
    "chunked": ("/jobs?model=identity", lambda: pieces(CSV), {"Content-Type": "text/csv"}),
    "form": ("/jobs", form, form_type()),
    "ndjson": ("/jobs?model=identity", lambda: NDJSON, {"Content-Type": "application/x-ndjson"}),
    "inputs": ("/jobs", lambda: b'{"inputs":[1,2],"model":"identity"}', {"Content-Type": "application/json"}),
    "input": ("/jobs", lambda: b'{"input":1,"model":"identity"}', {"Content-Type": "application/json"}),
}
BATCHES = [name for name in BODIES if name != "input"]


def send(client, kind, key, method="POST", query="", **headers):
    path, body, own = BODIES[kind]
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.ask(method, path + query, body(), {"Idempotency-Key": key, **own, **headers})


def replayed(found):
    return found.headers["Idempotency-Replayed"]


def jobs_of(client):
    return client.get("/jobs?limit=100").json["jobs"]


@pytest.mark.parametrize("kind", BODIES)
def test_same_request_is_the_same_job(client, kind):
    key = new_key()
    first = send(client, kind, key)
    assert (first.status, replayed(first)) == (202, None)
    path = first.headers["Location"]
    for _ in range(2):
        again = send(client, kind, key)
        assert (again.status, again.headers["Location"], replayed(again)) == (202, path, "true")
        client.finished(path)
    assert again.json["status"] == "succeeded"
    assert again.json == client.job(path)
    anew = send(client, kind, new_key())
    assert anew.headers["Location"] != path
    assert replayed(anew) is None


@pytest.mark.parametrize("kind", BODIES)
def test_other_body_with_the_same_key_is_refused(client, kind):
    key = new_key()
    assert send(client, kind, key).status == 202
    path, body, headers = BODIES[kind]
    longer = CSV + b"4,d\n"
    others = {"gzip": gzip.compress(longer), "form": form(file=longer), "chunked": pieces(longer)}
    other = others.get(kind) or body() + b" "
    found = client.ask("POST", path, other, {"Idempotency-Key": key, **headers})
    assert (found.status, found.code) == (422, "idempotency_key_reused")
    assert replayed(found) is None
    assert send(client, kind, key).status == 202


def test_empty_body_is_another_request_too(client):
    key = new_key()
    assert send(client, "csv", key).status == 202
    assert client.send(b"", "?model=identity", Idempotency_Key=key).code == "idempotency_key_reused"


def test_query_path_and_method_are_part_of_the_request(client):
    key = new_key()
    assert send(client, "input", key).status == 202
    for query in ("?keep=all", "?model=identity", "?x"):
        assert send(client, "input", key, query=query).code == "idempotency_key_reused"
    body, headers = BODIES["input"][1](), {"Idempotency-Key": key, "Content-Type": "application/json"}
    assert client.ask("POST", "/predict", body, headers).code == "idempotency_key_reused"
    own = new_key()
    headers["Idempotency-Key"] = own
    assert client.ask("POST", "/predict", body, headers).status == 200
    assert client.ask("GET", "/predict", body, headers).code == "idempotency_key_reused"


def test_coding_and_framing_are_no_part_of_the_request(client):
    key = new_key()
    path = send(client, "csv", key).headers["Location"]
    for other in ("gzip", "chunked"):
        assert send(client, other, key).headers["Location"] == path
    two = gzip.compress(CSV[:5]) + gzip.compress(CSV[5:])
    headers = {"Idempotency-Key": key, "Content-Type": "text/csv"}
    for coding, body in (("gzip", two), ("zstd", zstandard.compress(CSV))):
        found = client.ask("POST", "/jobs?model=identity", body, {**headers, "Content-Encoding": coding})
        assert (found.status, found.headers["Location"]) == (202, path)


def test_boundary_and_file_name_of_a_form_are_no_part_of_the_request(client):
    key = new_key()

    def post(boundary=BOUNDARY, **changes):
        headers = {"Idempotency-Key": key, **form_type(boundary)}
        return client.ask("POST", "/jobs", form(boundary, **changes), headers)

    path = post().headers["Location"]
    again = post("another-b0undary", name="b.csv")
    assert (again.headers["Location"], replayed(again)) == (path, "true")
    assert post(model="sign").code == "idempotency_key_reused"
    assert post(file=CSV + b"4,d\n").code == "idempotency_key_reused"
    for same in ("text/csv; charset=utf-8", "text/csv; charset=UTF8", "text/plain"):
        assert post(type=same).headers["Location"] == path
    assert post(type="text/csv; charset=latin-1").code == "idempotency_key_reused"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_predict_answers_the_same_again(client, method):
    headers = {"Idempotency-Key": new_key(), "Content-Type": "application/json"}

    def ask(body=b'{"input":7,"model":"identity"}', **more):
        return client.ask(method, "/predict", body, {**headers, **more})

    first, again, later = ask(), ask(), ask(Prefer="respond-async")
    assert [found.status for found in (first, again, later)] == [200, 200, 202]
    assert first.body == again.body == b'{"response":7.0}\n'
    assert [replayed(found) for found in (first, again, later)] == [None, "true", "true"]
    assert first.headers["X-Job-Id"] == again.headers["X-Job-Id"] == later.json["id"]
    assert ask(b'{"input":8,"model":"identity"}').code == "idempotency_key_reused"


def test_predict_that_took_too_long_is_waited_for_by_its_repetition(client):
    headers = {"Idempotency_Key": new_key()}
    first = client.predict(7, "?model=identity", Prefer="wait=0", **headers)
    again = client.predict(7, "?model=identity", **headers)
    assert (first.status, again.status) == (202, 200)
    assert again.headers["X-Job-Id"] == first.json["id"]
    assert replayed(again) == "true"


def test_what_the_model_made_of_the_row_is_answered_again(client):
    headers = {"Idempotency_Key": new_key()}
    first, again = (client.predict("inf", "?model=identity", **headers) for _ in range(2))
    assert (first.status, first.code) == (again.status, again.code) == (422, "not_finite")
    assert first.headers["X-Job-Id"] == again.headers["X-Job-Id"]
    assert (replayed(first), replayed(again)) == (None, "true")


def test_job_is_shown_as_it_is_now(idle, client):
    key = new_key()
    path = send(idle, "csv", key).headers["Location"]
    assert send(idle, "csv", key).json["status"] == "queued"
    idle.ask("POST", f"{path}/cancel")
    again = send(idle, "csv", key)
    assert (again.status, again.json["status"]) == (202, "canceled")
    assert idle.ask("DELETE", path).status == 204
    again = send(idle, "csv", key)
    assert (again.status, again.code) == (410, "job_deleted")


def test_job_that_has_expired_is_410(idle):
    key = new_key()
    path = send(idle, "csv", key).headers["Location"]
    idle.ask("POST", f"{path}/cancel")  # it lives for two seconds more
    wait_until(lambda: idle.get(path).status == 410, 10, "the job has not expired")
    again = send(idle, "csv", key)
    assert (again.status, again.code) == (410, "job_expired")


def test_running_job_is_shown_too(client):
    key = new_key()
    rows = b"x\n" + b"1\n" * 3000
    headers = {"Idempotency_Key": key}
    path = client.submit(rows, "?model=slow", **headers)
    wait_until(lambda: client.job(path)["status"] == "running", 20, "nobody has begun")
    again = client.send(rows, "?model=slow", **headers)
    assert (again.headers["Location"], again.json["status"], replayed(again)) == (path, "running", "true")
    client.ask("DELETE", path)


@pytest.mark.parametrize("kind", BODIES)
def test_key_of_a_refused_request_is_free(client, kind):
    key = new_key()
    _, _, headers = BODIES[kind]
    refused = client.ask("POST", "/jobs?model=nobody", BODIES[kind][1](), {"Idempotency-Key": key, **headers})
    assert refused.code == "unknown_model"
    assert send(client, kind, key).status == 202


def test_key_is_free_when_the_body_turns_out_to_be_wrong_after_its_first_rows(idle):
    key = new_key()
    rows = b"x\n" + b"1\n" * 500
    refused = idle.send(rows + b'"never closed\n', "?model=identity", Idempotency_Key=key)
    assert refused.code == "unclosed_quote"
    assert idle.send(rows, "?model=identity", Idempotency_Key=key).status == 202


@pytest.mark.parametrize(
    "value",
    ["", "a" * 256, "a\tb", "ä", "a,b", '"a","b"', '"' + "a" * 254 + '"'],
)
def test_key_that_is_none_is_refused(idle, value):
    for path in ("/jobs?model=identity", "/predict?model=identity"):
        headers = {"Idempotency-Key": value.encode("latin-1"), "Content-Type": "application/json"}
        found = idle.ask("POST", path, b'{"input":1}', headers)
        assert (found.status, found.code) == (400, "invalid_idempotency_key")
        assert not value or value not in found.json["detail"]


@pytest.mark.parametrize("value", ["a", "a" * 255, '"abc"', '"a,b"', r'"a\",b"', "order 17/b; x=~!", "'", '"'])
def test_key_may_be_any_visible_text(idle, value):
    found = [
        idle.send_json({"input": 1, "model": "identity"}, Idempotency_Key=value, X_Request_Id="r1") for _ in range(2)
    ]
    assert [each.status for each in found] == [202, 202]
    assert len({each.json["id"] for each in found}) == 1


def test_two_keys_are_refused(idle):
    body = b'{"input":1,"model":"identity"}'
    found = idle.raw(
        b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: a\r\n"
        b"Idempotency-Key: b\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    assert (found.status, found.code) == (400, "invalid_idempotency_key")


def test_key_is_in_no_log_and_not_in_the_store(stack):
    own = stack(workers=0)
    client, key = Client(own.url), "canary-" + new_key()
    send(client, "csv", key)
    assert send(client, "ndjson", key).code == "idempotency_key_reused"
    send(client, "csv", key + "\t")
    for log in own.logs.iterdir():
        assert key.encode() not in log.read_bytes()
    with redis.Redis.from_url(own.redis_url) as store:
        for name in store.keys("*"):
            assert key.encode() not in name + (store.dump(name) or b"")


@pytest.mark.parametrize("kind", ["csv", "form", "inputs", "input"])
def test_twenty_requests_at_once_are_one_job(stack, kind):
    client, key = Client(stack(workers=0).url), new_key()
    found = []
    threads = [threading.Thread(target=lambda: found.append(send(client, kind, key))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 20
    (job,) = jobs_of(client)
    for each in found:
        if each.status == 409:
            assert (each.code, each.headers["Retry-After"]) == ("idempotency_key_in_use", "5")
        else:
            assert (each.status, each.headers["Location"]) == (202, job["links"]["self"])
    assert [replayed(each) for each in found if each.status == 202].count(None) == 1
    assert send(client, kind, key).json["id"] == job["id"]


def head(key, length, path="/jobs?model=identity", type="text/csv"):
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {type}\r\nIdempotency-Key: {key}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def receiving(client):
    return wait_until(lambda: client.get("/jobs?status=receiving").json["jobs"], 10, "the upload is not listed")[0]


ROWS = b"x\n" + b"".join(b"%d\n" % number for number in range(1000))


@pytest.mark.parametrize("charset", ["latin-1", "shift_jis"])
def test_same_bytes_in_another_charset_are_another_request(shared_stack, charset):
    client, key = Client(shared_stack.url), new_key()
    first = client.ask("POST", "/jobs?model=identity", CSV, {"Content-Type": "text/csv", "Idempotency-Key": key})
    assert first.status == 202
    kind = f"text/csv; charset={charset}"
    again = client.ask("POST", "/jobs?model=identity", CSV, {"Content-Type": kind, "Idempotency-Key": key})
    assert (again.status, again.code) == (422, "idempotency_key_reused")


def test_key_is_in_use_while_the_first_body_arrives_and_free_once_its_client_is_gone(stack):
    client, key = Client(stack(workers=0).url), new_key()
    with client.connected() as connection:
        connection.sendall(head(key, len(ROWS)) + ROWS[:-1])
        first = receiving(client)
        for kind in ("csv", "form", "input"):
            found = send(client, kind, key)
            assert (found.status, found.code, found.headers["Retry-After"]) == (409, "idempotency_key_in_use", "5")
    wait_until(lambda: client.get(first["links"]["self"]).status == 410, 10, "the upload was not taken back")
    found = client.send(ROWS, "?model=identity", Idempotency_Key=key)
    assert (found.status, replayed(found)) == (202, None)
    assert found.json["id"] != first["id"]


@pytest.mark.parametrize("kind", ["csv", "form"])
def test_upload_whose_client_is_silent_keeps_its_key(stack, kind):
    own = stack(workers=0)
    client, key = Client(own.url), new_key()
    body, path, media = ROWS, "/jobs?model=identity", "text/csv"
    if kind == "form":
        body, path, media = form(file=ROWS), "/jobs", f"multipart/form-data; boundary={BOUNDARY}"
    with client.connected() as connection, redis.Redis.from_url(own.redis_url) as store:
        connection.sendall(head(key, len(body), path, media) + body[:-1])
        first = receiving(client)
        for _ in range(3):  # the first ones are the rows that had come
            before = store.zscore("qc:receiving", first["id"])
            wait_until(lambda before=before: store.zscore("qc:receiving", first["id"]) > before, 5, "no sign of life")
        assert send(client, "csv", key).code == "idempotency_key_in_use"
        connection.sendall(body[-1:])
        found = answer(connection)
    assert (found.status, found.json["id"]) == (202, first["id"])


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_key_is_free_when_the_job_is_stopped_while_its_body_arrives(stack, end):
    client, key = Client(stack(workers=0).url), new_key()
    with client.connected() as connection:
        connection.sendall(head(key, len(ROWS)) + ROWS[:-1])
        path = receiving(client)["links"]["self"]
        stopped = client.ask("POST", f"{path}/cancel") if end == "cancel" else client.ask("DELETE", path)
        assert stopped.status < 300
        found = client.send(ROWS, "?model=identity", Idempotency_Key=key)
        assert (found.status, replayed(found)) == (202, None)
        connection.sendall(ROWS[-1:])
        refused = answer(connection)
    assert (refused.status, refused.code) == (409, "job_canceled" if end == "cancel" else "job_deleted")
    again = client.send(ROWS, "?model=identity", Idempotency_Key=key)
    assert (again.status, again.json["id"], replayed(again)) == (202, found.json["id"], "true")


def web_processes(own):
    with open(f"/proc/{own.web.pid}/task/{own.web.pid}/children") as listing:
        return [int(child) for child in listing.read().split()]


@pytest.mark.parametrize("workers", [0, 1])
def test_key_works_again_within_seconds_after_the_web_process_died_mid_upload(stack, workers):
    own = stack(workers=workers)
    client, key = Client(own.url), new_key()
    with client.connected() as connection:
        connection.sendall(head(key, len(ROWS)) + ROWS[:-1])
        first = receiving(client)
        before = web_processes(own)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: set(web_processes(own)) - set(before), 10, "no new web process")

        def accepted():
            found = client.send(ROWS, "?model=identity", Idempotency_Key=key)
            assert found.status == 202 or found.code == "idempotency_key_in_use"
            return found if found.status == 202 else None

        found = wait_until(accepted, 15, "the key does not work again")
    assert (found.json["id"] != first["id"], replayed(found)) == (True, None)
    assert client.get(first["links"]["self"]).code == "upload_failed"
    assert [job["id"] for job in jobs_of(client)] == [found.json["id"]]


@pytest.mark.parametrize("kind", BODIES)
def test_job_whose_acceptance_nobody_heard_of_is_found_by_its_key(stack, kind):
    client, key = Client(stack(workers=0).url), new_key()
    path, body, headers = BODIES[kind]
    body = body() if isinstance(body(), bytes) else b"".join(body())
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"POST {path} HTTP/1.1\r\nHost: x\r\n{lines}Idempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    with client.connected() as connection:
        connection.sendall(request.encode() + body)
        (job,) = wait_until(lambda: client.get("/jobs?status=queued").json["jobs"], 10, "nothing was accepted")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    again = send(client, kind, key)
    assert (again.status, again.json["id"], replayed(again)) == (202, job["id"], "true")
    assert len(jobs_of(client)) == 1


def test_job_is_found_by_its_key_after_the_web_process_died_behind_the_acceptance(stack):
    own = stack(workers=0)
    client, key = Client(own.url), new_key()
    with client.connected() as connection:
        connection.sendall(head(key, len(ROWS)) + ROWS)
        (job,) = wait_until(lambda: client.get("/jobs?status=queued").json["jobs"], 10, "nothing was accepted")
        before = web_processes(own)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: set(web_processes(own)) - set(before), 10, "no new web process")
    again = client.send(ROWS, "?model=identity", Idempotency_Key=key)
    assert (again.status, again.json["id"], replayed(again)) == (202, job["id"], "true")


def fail(own, job_id, code="deadline_exceeded"):
    """Fails a job for the server's reasons."""
    with redis.Redis.from_url(own.redis_url) as store:
        limits = Limits.of(Settings(redis_url=own.redis_url))
        Scripts(store, limits).call("fail", code, "It could not be had.", job_id)


PREDICTION = "/predict?model=identity&wait=25"


@contextmanager
def left_waiting(client, key):
    """A prediction whose answer nobody reads any more once this is over, as the job that it made."""
    body = b'{"input":1}'
    with client.connected() as connection:
        connection.sendall(head(key, len(body), PREDICTION, "application/json") + body)
        (job,) = wait_until(lambda: jobs_of(client), 10, "nothing was accepted")
        yield job


def ask_again(client, key, **headers):
    """Sends what `left_waiting` did."""
    sent = {"Content-Type": "application/json", "Idempotency-Key": key, **headers}
    return client.ask("POST", PREDICTION, b'{"input":1}', sent)


@pytest.mark.parametrize("code", ["job_canceled", "model_unavailable"])
def test_prediction_that_came_to_nothing_is_tried_anew(stack, code):
    own = stack(workers=0)
    client, headers = Client(own.url), {"Idempotency_Key": new_key()}
    found = []
    waiting = threading.Thread(target=lambda: found.append(client.predict(1, "?model=identity&wait=25", **headers)))
    waiting.start()
    (job,) = wait_until(lambda: jobs_of(client), 10, "nothing was accepted")
    if code == "job_canceled":
        client.ask("POST", job["links"]["cancel"])
    else:
        fail(own, job["id"], code)
    waiting.join(20)
    assert (found[0].code, found[0].headers["X-Job-Id"]) == (code, job["id"])
    again = client.predict(1, "?model=identity&wait=0", **headers)
    assert replayed(again) is None
    assert again.headers["X-Job-Id"] != job["id"]


@pytest.mark.parametrize("prefer", ["respond-async", "wait=0"])
@pytest.mark.parametrize("end", ["canceled", "failed"])
def test_prediction_that_was_answered_with_202_keeps_its_key_whatever_comes_of_it(stack, prefer, end):
    own = stack(workers=0)
    client, headers = Client(own.url), {"Idempotency_Key": new_key()}
    job = client.predict(1, "?model=identity", Prefer=prefer, **headers).json
    if end == "canceled":
        client.ask("POST", job["links"]["cancel"])
    else:
        fail(own, job["id"])
    for _ in range(2):
        later = client.predict(1, "?model=identity", Prefer="respond-async", **headers)
        assert (later.status, later.json["id"], later.json["status"]) == (202, job["id"], end)
        at_once = client.predict(1, "?model=identity", **headers)
        assert at_once.code == ("job_canceled" if end == "canceled" else "deadline_exceeded")
        assert (at_once.headers["X-Job-Id"], replayed(at_once)) == (job["id"], "true")
    assert [each["id"] for each in jobs_of(client)] == [job["id"]]


def test_prediction_whose_client_did_not_wait_for_a_202_is_tried_anew_after_it_came_to_nothing(stack):
    own = stack(workers=0)
    client, key = Client(own.url), new_key()
    with left_waiting(client, key) as job:
        pass
    sleep(3)  # its thread looks now and then whether anybody is there still
    fail(own, job["id"])
    assert ask_again(client, key).code == "deadline_exceeded"
    again = ask_again(client, key, Prefer="respond-async")
    assert again.status == 202
    assert again.json["id"] != job["id"]


@pytest.mark.parametrize("has_key", [True, False])
def test_prediction_whose_store_goes_away_is_told_202_only_if_it_has_no_key_to_keep(stack, has_key):
    own = stack(workers=0)
    client, headers = Client(own.url), {"Idempotency_Key": new_key()} if has_key else {}
    found = []
    waiting = threading.Thread(target=lambda: found.append(client.predict(1, "?model=identity&wait=1", **headers)))
    with redis.Redis.from_url(own.redis_url) as store:
        waiting.start()
        (job,) = wait_until(lambda: jobs_of(client), 10, "nothing was accepted")
        store.client_pause(5000)
        waiting.join(20)
        store.ping()  # it goes on
    if not has_key:
        assert (found[0].status, found[0].json["id"]) == (202, job["id"])
        return
    assert (found[0].status, found[0].code) == (503, "queue_unavailable")
    again = client.predict(1, "?model=identity&wait=1", **headers)
    assert (again.status, again.json["id"], replayed(again)) == (202, job["id"], "true")


def test_prediction_whose_first_answer_was_lost_is_tried_anew_after_it_came_to_nothing(stack):
    own = stack(workers=0)
    client, key = Client(own.url), new_key()
    with left_waiting(client, key) as job:
        for pid in (before := web_processes(own)):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: set(web_processes(own)) - set(before), 10, "no new web process")
    fail(own, job["id"])
    again = ask_again(client, key)
    assert (again.status, again.code, again.headers["X-Job-Id"]) == (503, "deadline_exceeded", job["id"])
    found = []
    waiting = threading.Thread(target=lambda: found.append(ask_again(client, key)))
    waiting.start()
    (anew,) = wait_until(lambda: client.get("/jobs?status=queued").json["jobs"], 10, "it was not tried anew")
    fail(own, anew["id"])
    waiting.join(20)
    assert (found[0].headers["X-Job-Id"], replayed(found[0])) == (anew["id"], None)
    assert anew["id"] != job["id"]


def test_large_upload_costs_no_memory_for_its_key(shared_stack, client):
    rows = b"x,more\n" + (b"1," + b"m" * 998 + b"\n") * 30_000  # 30 MB
    headers = {"Idempotency_Key": new_key()}

    def memory():
        total = 0
        for pid in web_processes(shared_stack):
            with open(f"/proc/{pid}/status") as status:
                total += int(next(line for line in status if line.startswith("VmHWM")).split()[1])
        return total

    client.done(rows, "?model=identity&keep=none")
    before = memory()
    found = [client.send(rows, "?model=identity&keep=none", **headers) for _ in range(4)]
    assert [(each.status, replayed(each)) for each in found] == [(202, None), *[(202, "true")] * 3]
    assert memory() - before < 12_000  # kB, in two processes
    client.ask("DELETE", found[0].headers["Location"])
