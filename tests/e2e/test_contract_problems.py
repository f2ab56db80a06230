"""Errors: always a problem document with a stable code and advice, never with anything of the inside or of the rows."""

import gzip
import json
import re
import signal
import time

import pytest

from tests.client import Client

CANARY = "canary-7f3a"
INSIDE = re.compile(rf"{CANARY}|Traceback|line \d+, in|/work|/tmp|/usr|\.py\b|redis|valkey|Exception", re.IGNORECASE)
CSV = {"Content-Type": "text/csv"}
NDJSON = {"Content-Type": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=edge"}
C = CANARY.encode()

# Request, status, code; each with a canary where a row's value, a name or a header could leak from.
PROBLEMS = [
    ("GET", "/jobs/unknown", b"", {}, 404, "unknown_job"),
    ("GET", "/nowhere", b"", {}, 404, "unknown_route"),
    ("GET", "/models/nobody", b"", {}, 404, "unknown_model"),
    ("PUT", "/jobs", C, CSV, 405, "method_not_allowed"),
    ("POST", "/jobs?model=nobody", b"x\n" + C, CSV, 404, "unknown_model"),
    ("POST", "/jobs", C, {"Content-Type": f"text/{CANARY}"}, 415, "unsupported_media_type"),
    ("POST", "/jobs", C, {}, 415, "unsupported_media_type"),
    ("POST", "/jobs", C, CSV | {"Content-Encoding": CANARY}, 415, "unsupported_encoding"),
    ("POST", "/jobs", C, {"Content-Type": f"text/csv; charset={CANARY}"}, 415, "unsupported_charset"),
    ("POST", "/jobs", C, CSV | {"Content-Encoding": "gzip"}, 400, "corrupt_body"),
    ("POST", "/jobs", gzip.compress(C * 99)[:-9], CSV | {"Content-Encoding": "gzip"}, 400, "incomplete_body"),
    ("POST", "/jobs?model=identity", b"y\n" + C, CSV, 422, "missing_columns"),
    ("POST", "/jobs?model=identity&keep=y", b"x\n" + C, CSV, 422, "unknown_column"),
    ("POST", "/jobs?model=identity&keep=%22xy", b"x\n" + C, CSV, 422, "unknown_column"),
    ("POST", "/jobs?model=identity&keep=%22%C3%A9", b"x\n" + C, CSV, 422, "unknown_column"),
    ("POST", "/jobs?model=identity&keep=%22x%22y,x", b"x\n" + C, CSV, 422, "unknown_column"),
    ("POST", f"/jobs?model=identity&delimiter={CANARY}", b"x\n", CSV, 400, "unknown_delimiter"),
    ("POST", "/jobs?model=identity", b'x\n"' + C + b'"' + C + b"\n", CSV, 400, "stray_quote"),
    ("POST", "/jobs?model=identity", b'x\n"' + C, CSV, 400, "unclosed_quote"),
    ("POST", "/jobs?model=identity", b"x\n" + C + b"\r1\n", CSV, 400, "bare_cr"),
    ("POST", "/jobs?model=identity", b"x\n" + C + b"\0\n", CSV, 400, "nul_byte"),
    ("POST", "/jobs?model=identity", b"x\n" + C + b"\xff\n", CSV, 400, "encoding"),
    ("POST", "/jobs?model=identity", b"x\n" + C * 100_000, CSV, 400, "record_too_large"),
    ("POST", "/jobs?model=identity", b"", CSV, 400, "empty_body"),
    ("POST", "/jobs?model=identity", b"x\n", CSV, 400, "no_rows"),
    ("POST", "/jobs?model=identity", b'{"x": "' + C, NDJSON, 400, "invalid_json"),
    ("POST", "/jobs?model=identity", b'"' + C + b'"\n', NDJSON, 400, "invalid_json"),
    ("POST", "/jobs?model=identity", b'{"input": {"x": "' + C + b'"}}', JSON, 422, "invalid_number"),
    ("POST", "/jobs?model=iris", b'{"input": {"sepal_length": "' + C + b'"}}', JSON, 422, "missing_columns"),
    ("POST", "/jobs?model=iris", b'{"input": ["' + C + b'"]}', JSON, 422, "wrong_cell_count"),
    ("POST", "/jobs", b'{"input": {"x": NaN, "y": "' + C + b'"}}', JSON, 400, "invalid_json"),
    ("POST", "/jobs", b'{"inputs": "' + C + b'"}', JSON, 422, "inputs_no_list"),
    ("POST", "/jobs", b'{"inputs": []}', JSON, 400, "no_rows"),
    ("POST", "/jobs", b'["' + C + b'"]', JSON, 422, "not_an_object"),
    ("POST", "/jobs", b'{"input": 1, "inputs": ["' + C + b'"]}', JSON, 422, "input_or_inputs"),
    ("POST", "/jobs", b'{"inputs": ["' + C * 100_000 + b'"]}', JSON, 413, "body_too_large"),
    ("POST", "/jobs", C, FORM, 400, "incomplete_body"),
    ("POST", "/jobs", b"--edge\r\nno head\r\n\r\n" + C + b"\r\n--edge--", FORM, 400, "malformed_form"),
    ("POST", "/jobs", C, {"Content-Type": "multipart/form-data"}, 400, "malformed_form"),
    ("POST", "/predict?model=raises", b'{"input": -1}', JSON, 422, "model_error"),
    ("POST", "/predict?model=identity", b'{"input": "' + C + b'"}', JSON, 422, "invalid_number"),
    ("POST", "/predict", C, CSV, 415, "unsupported_media_type"),
    ("POST", f"/predict?wait={CANARY}", b'{"input": 7}', JSON, 400, "invalid_wait"),
    ("GET", f"/jobs?status={CANARY}", b"", {}, 400, "invalid_status"),
    ("GET", f"/jobs?limit={CANARY}", b"", {}, 400, "invalid_limit"),
    ("GET", f"/jobs?cursor={CANARY}", b"", {}, 400, "invalid_cursor"),
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: f"{problem[0]} {problem[1][:30]} {problem[5]}")
def test_problem_is_a_document_with_advice_and_without_secrets(client, problem):
    method, route, body, headers, status, code = problem
    found = client.ask(method, route, body, headers)
    assert (found.status, found.code) == (status, code)
    document = found.json
    assert {"type", "title", "status", "detail", "instance", "code"} <= set(document)
    assert (document["status"], document["instance"]) == (status, route.partition("?")[0])
    assert len(document["detail"]) > 20
    assert not INSIDE.search(found.body.decode())
    assert "1.2345" not in found.body.decode()  # what the model `raises` says of its row
    assert found.headers["X-Request-Id"]
    assert found.headers["Cache-Control"] == "no-store"
    if "errors" in document:
        assert document["errors_total"] >= len(document["errors"])


# What is wrong with a request before the app sees it: its first line, its headers, status and code.
UNREADABLE = [
    (CANARY, "", 400, "malformed_request"),
    ("GET /jobs HTTP/9.1", "", 400, "malformed_request"),
    (f"GET /jobs/{CANARY * 1000} HTTP/1.1", "", 414, "uri_too_long"),
    ("GET /jobs HTTP/1.1", f"X-Long: {CANARY * 1000}\r\n", 431, "headers_too_large"),
    ("GET /jobs HTTP/1.1", f"{CANARY} B: x\r\n", 400, "malformed_request"),
    ("GET /jobs HTTP/1.1", f"X: {CANARY}\0\r\n", 400, "malformed_request"),
    ("POST /jobs HTTP/1.1", f"Content-Length: {CANARY}\r\n", 400, "malformed_request"),
    ("POST /jobs HTTP/1.1", "Content-Length: -1\r\n", 400, "malformed_request"),
    ("POST /jobs HTTP/1.1", "Content-Length: 1\r\nContent-Length: 2\r\n", 400, "malformed_request"),
    ("POST /jobs HTTP/1.1", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400, "malformed_request"),
    ("POST /jobs HTTP/1.1", f"Transfer-Encoding: {CANARY}\r\n", 400, "malformed_request"),
    ("POST /jobs HTTP/1.1", f"Expect: {CANARY}\r\nContent-Length: 1\r\n", 417, "expectation_failed"),
]


@pytest.mark.parametrize("unreadable", UNREADABLE, ids=lambda unreadable: ascii(unreadable[:2])[:60])
def test_request_that_cannot_be_read_is_a_problem_too(client, unreadable):
    line, headers, status, code = unreadable
    found = client.raw(f"{line}\r\nHost: x\r\n{headers}\r\n".encode())
    assert (found.status, found.code) == (status, code)
    assert not INSIDE.search(found.body.decode())


def test_no_value_of_a_row_is_in_any_error_of_a_row(client):
    body = f"x,t\n{CANARY},a\n-5,{CANARY}\n1,2,{CANARY}\n".encode()
    path = client.done(body, "?model=raises&keep=none")
    for row in client.rows(path):
        assert row["error"]
        assert not INSIDE.search(json.dumps(row["error"]))
        assert "1.2345" not in row["error"]["message"]
    assert CANARY not in json.dumps(client.job(path))


def test_things_that_are_wrong_are_listed_up_to_a_hundred(client):
    keep = ",".join(f"c{number}" for number in range(150))
    refused = client.send(b"x\n1\n", f"?model=identity&keep={keep}")
    assert (refused.status, refused.code) == (422, "unknown_column")
    assert (len(refused.json["errors"]), refused.json["errors_total"]) == (100, 150)


@pytest.mark.parametrize("route", ["/healthz", "/jobs/unknown"])
def test_answer_carries_the_request_s_id(client, route):
    assert client.get(route, X_Request_Id="my-id_1.2").headers["X-Request-Id"] == "my-id_1.2"
    made = client.get(route).headers["X-Request-Id"]
    assert made != client.get(route).headers["X-Request-Id"]
    for insane in ("a b", "a" * 129, "é", "<x>", ""):
        given = client.ask("GET", route, headers={"X-Request-Id": insane.encode()}).headers["X-Request-Id"]
        assert re.fullmatch("[0-9a-f]{32}", given)


def test_canaries_are_in_no_log_line(client, shared_stack):
    client.send(f"x,{CANARY}\n{CANARY},1\n-5,{CANARY}\n".encode(), "?model=raises", X_Request_Id=CANARY)
    path = client.done(f"x\n-1\n{CANARY}\n".encode(), "?model=raises")
    client.get(f"/jobs/{CANARY}%0a{CANARY}", Authorization=f"Bearer {CANARY}")
    client.raw(f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer {CANARY}\r\n\r\n".encode())
    client.raw(f"GET / HTTP/1.1\r\nHost: x\r\nX-Api-Key: {CANARY}\0\r\n\r\n".encode())
    client.raw(f"GET /{CANARY} {CANARY}\r\n\r\n".encode())
    client.finished(path)
    for log in shared_stack.logs.iterdir():
        if log.name != "store.log":
            assert CANARY not in log.read_text()


def test_store_that_does_not_answer_is_503_within_seconds(stack):
    own = stack(workers=0)
    client = Client(own.url)
    path = client.submit(b"x\n1\n", "?model=identity")
    own.store.process.signal(signal.SIGSTOP)
    try:
        for method, route, body, headers in (
            ("GET", path, b"", {}),
            ("POST", "/predict", b'{"input": 7}', JSON),
            ("POST", "/jobs?model=identity", b"x\n1\n", CSV),
            ("GET", "/readyz", b"", {}),
        ):
            began = time.monotonic()
            away = client.ask(method, route, body, headers)
            assert time.monotonic() - began < 3.5, route
            assert (away.status, away.code) == (503, "queue_unavailable")
            assert int(away.headers["Retry-After"]) >= 1
            assert not INSIDE.search(away.body.decode())
        assert client.get("/healthz").status == 200
    finally:
        own.store.process.signal(signal.SIGCONT)
    assert client.get(path).json["status"] == "queued"
