"""Submitting a batch: every type of body, how long it says it is, how it is wrapped, and what it is refused for."""

import contextlib
import gzip
import json
import random
import re
import threading
import time
import urllib.parse
import zlib

import pytest
import redis
import zstandard

from tests.client import answer
from tests.waiting import wait_until

ROWS = b"x\n1\n2\n3\n"
CSV = "text/csv"
NDJSON = "application/x-ndjson"
JSON = "application/json"
FORM = "multipart/form-data; boundary=edge"


def zstd(data):
    return zstandard.compress(data)


def form(*parts, end=b"--edge--\r\n"):
    """A form of (name, file name or None, value)."""
    return b"".join(part(*each) for each in parts) + end


def part(name, file_name, value, type=None):
    head = f'--edge\r\nContent-Disposition: form-data; name="{name}"'
    head += f'; filename="{file_name}"' if file_name else ""
    head += f"\r\nContent-Type: {type}" if type else ""
    return head.encode() + b"\r\n\r\n" + value + b"\r\n"


def in_chunks(data, size=5):
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def head(**headers):
    """The head of a POST to /jobs."""
    lines = ["POST /jobs?model=identity HTTP/1.1", "Host: queuecast"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


# The same three rows in every way to send them: body, type, headers.
WAYS = {
    "CSV": (ROWS, CSV, {}),
    "CSV, type in capitals with parameters": (ROWS, "TEXT/CSV; header=present", {}),
    "CSV, identity": (ROWS, CSV, {"Content_Encoding": "identity"}),
    "CSV, gzip": (gzip.compress(ROWS), CSV, {"Content_Encoding": "gzip"}),
    "CSV, GZIP": (gzip.compress(ROWS), CSV, {"Content_Encoding": "GZIP"}),
    "CSV, zstd": (zstd(ROWS), CSV, {"Content_Encoding": "zstd"}),
    "CSV, members of gzip": (gzip.compress(ROWS[:3]) + gzip.compress(ROWS[3:]), CSV, {"Content_Encoding": "gzip"}),
    "CSV, frames of zstd": (zstd(ROWS[:3]) + zstd(ROWS[3:]), CSV, {"Content_Encoding": "zstd"}),
    "CSV, UTF-16 in gzip": (
        gzip.compress(ROWS.decode().encode("utf-16")),
        "text/csv; charset=utf-16",
        {"Content_Encoding": "gzip"},
    ),
    "form": (form(("file", "rows.csv", ROWS)), FORM, {}),
    "form without a file name": (form(("file", None, ROWS)), FORM, {}),
    "form in gzip": (gzip.compress(form(("file", "rows.csv", ROWS))), FORM, {"Content_Encoding": "gzip"}),
    "form with a charset": (
        form(("file", "rows.csv", ROWS.decode().encode("utf-16"), "text/csv; charset=utf-16")),
        FORM,
        {},
    ),
    "NDJSON objects": (b'{"x":1}\n{"x":2}\n{"x":3}\n', NDJSON, {}),
    "NDJSON arrays": (b"[1]\n[2]\n[3]", NDJSON, {}),
    "NDJSON of both, blank lines, CRLF": (b'\n{"x":1}\r\n\r\n  \n[2]\n[3]\r\n', NDJSON, {}),
    "NDJSON, numbers as texts": (b'{"x":"1"}\n["2"]\n{"x":" 3 "}\n', NDJSON, {}),
    "NDJSON, gzip": (gzip.compress(b"[1]\n[2]\n[3]\n"), NDJSON, {"Content_Encoding": "gzip"}),
    "inputs, objects": (b'{"inputs":[{"x":1},{"x":2},{"x":3}]}', JSON, {}),
    "inputs, arrays": (b'{"inputs":[[1],[2],[3]]}', JSON, {}),
    "inputs, bare numbers": (b'{"inputs":[1,2.0,3e0]}', JSON, {}),
    "inputs, all sorts": (b' {"inputs" : [1, ["2"], {"x": 3}]}\n', "application/json; charset=utf-8", {}),
    "inputs, zstd": (zstd(b'{"inputs":[1,2,3]}'), JSON, {"Content_Encoding": "zstd"}),
}


@pytest.mark.parametrize(("body", "type", "headers"), WAYS.values(), ids=WAYS)
def test_every_body_becomes_the_same_batch(client, body, type, headers):
    path = client.submit(body, "?model=identity", type, **headers)
    job = client.finished(path)
    assert (job["kind"], job["status"], job["progress"]["rows_ok"]) == ("batch", "succeeded", 3)
    assert [row["prediction"] for row in client.rows(path)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_body_may_come_in_chunks(client, size):
    accepted = client.raw(head(Content_Type=CSV, Transfer_Encoding="chunked") + in_chunks(ROWS, size))
    assert accepted.status == 202
    client.finished(accepted.headers["Location"])
    assert [row["prediction"] for row in client.rows(accepted.headers["Location"])] == [1.0, 2.0, 3.0]


def test_acceptance_says_where_the_job_is_and_when_to_look(client):
    accepted = client.send(ROWS, "?model=identity", Prefer="wait=20")
    assert accepted.status == 202
    assert accepted.headers["Content-Type"] == "application/json"
    assert accepted.headers["Location"] == accepted.json["links"]["self"] == f"/jobs/{accepted.json['id']}"
    assert re.fullmatch("[a-z2-7]{26,}", accepted.json["id"])  # 128 random bits at least


def test_acceptance_does_not_wait_for_the_batch(idle):
    began = time.monotonic()
    assert idle.send(ROWS, "?model=identity&wait=10", Prefer="wait=10").status == 202
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("query", "document", "name", "version"),
    [
        ("", {}, "housing", "1"),
        ("?model=", {}, "housing", "1"),
        ("?model=identity", {}, "identity", "1"),
        ("?model=identity@1", {}, "identity", "1"),
        ("", {"model": "identity"}, "identity", "1"),
        ("", {"model": "identity@1"}, "identity", "1"),
        ("", {"model": None}, "housing", "1"),
        ("?model=identity", {"model": "slow"}, "identity", "1"),
    ],
)
def test_model_is_the_one_that_is_named(client, query, document, name, version):
    path = client.submit(json.dumps({"inputs": [7], **document}), query, JSON)
    model = client.job(path)["model"]
    assert (model["name"], model["version"]) == (name, version)
    assert model["sha256"] == client.get(f"/models/{name}").json["sha256"]


@pytest.mark.parametrize(
    "name", ["nobody", "identity@2", "identity@", "@1", "Identity", "../identity", "a\n", "x" * 999]
)
def test_model_that_is_unknown_is_404_by_query_and_by_field(client, name):
    by_field = client.send_json({"inputs": [7], "model": name})
    assert (by_field.status, by_field.code) == (404, "unknown_model")
    by_query = client.send(ROWS, f"?model={urllib.parse.quote(name)}")
    assert (by_query.status, by_query.code) == (404, "unknown_model")


# What `keep` says, and which columns of `id,x,"a,b",id2` come out.
KEPT = {
    "": "id,x,a+b,id2",
    "all": "id,x,a+b,id2",
    "none": "",
    "id": "id",
    "id2,id": "id,id2",
    "id,id": "id",
    "x": "x",
    "%22a,b%22,id": "id,a+b",
}


@pytest.mark.parametrize(("keep", "columns"), KEPT.items())
def test_columns_that_are_kept_come_out_in_the_input_s_order(client, keep, columns):
    path = client.done(b'id,x,"a,b",id2\n1, 2 ,"c ""d""",\n', f"?model=identity&keep={keep}")
    sent = {"id": b"1", "x": b" 2 ", "a+b": b'"c ""d"""', "id2": b""}
    names = columns.split(",") if columns else []
    header = [{"a+b": b'"a,b"'}.get(name, name.encode()) for name in names]
    assert client.results(path) == (
        b",".join([*header, b"prediction", b"error"]) + b"\n" + b",".join([*map(sent.get, names), b"2.0", b""]) + b"\n"
    )
    named = [name.replace("+", ",") for name in names]
    assert client.job(path)["output"]["columns"] == [*named, "prediction", "error"]
    assert list(client.rows(path)[0]["input"]) == named


def test_column_that_cannot_be_kept_is_422(client):
    refused = client.send(ROWS, "?model=identity&keep=x,id,y")
    assert (refused.status, refused.code) == (422, "unknown_column")
    assert [error["column"] for error in refused.json["errors"]] == ["id", "y"]


# Input columns beside x, and what ours are called then.
CLASHES = {
    ("prediction",): ["prediction_2", "error"],
    ("error",): ["prediction", "error_2"],
    ("prediction", "prediction_2", "error", "error_3"): ["prediction_3", "error_2"],
    ("Prediction",): ["prediction", "error"],
}


@pytest.mark.parametrize(("columns", "ours"), CLASHES.items())
def test_columns_of_ours_give_way_to_those_that_are_kept(client, columns, ours):
    header, record = ",".join(["x", *columns]), ",".join(["1", *columns])
    sent = f"{header}\n{record}\n".encode()
    path = client.done(sent, "?model=identity")
    assert client.results(path).decode() == f"{header},{','.join(ours)}\n{record},1.0,\n"
    assert client.job(path)["output"]["columns"] == ["x", *columns, *ours]
    path = client.done(sent, "?model=identity&keep=x")
    assert client.results(path) == b"x,prediction,error\n1,1.0,\n"


def test_classifier_has_a_probability_for_each_class_in_the_model_s_order(client):
    body = b"petal_length,petal_width,sepal_width,sepal_length,probability_setosa\n1.4,0.2,3.5,5.1,mine\n"
    path = client.done(body, "?model=iris&keep=probability_setosa")
    ours = ["prediction", "probability_setosa_2", "probability_versicolor", "probability_virginica", "error"]
    assert client.job(path)["output"]["columns"] == ["probability_setosa", *ours]
    (row,) = client.rows(path)
    assert row["prediction"] == "setosa"
    assert list(row["probabilities"]) == ["setosa", "versicolor", "virginica"]
    assert sum(row["probabilities"].values()) == pytest.approx(1)
    cells = client.results(path).splitlines()[1].decode().split(",")
    assert [float(cell) for cell in cells[2:5]] == list(row["probabilities"].values())


# An input in a batch, and its prediction or the error of its row.
INPUTS = [
    ("1", 1.0),
    ("[1]", 1.0),
    ('{"x": 1}', 1.0),
    ('{"y": 5, "x": 1}', 1.0),
    ('{"x": "1"}', 1.0),
    ('{"x": 1.50}', 1.5),
    ("{}", "missing_value"),
    ('{"X": 1}', "missing_value"),
    ('{"x": null}', "missing_value"),
    ('{"x": ""}', "missing_value"),
    ("[null]", "missing_value"),
    ("[]", "wrong_cell_count"),
    ("[1, 2]", "wrong_cell_count"),
    ('{"x": true}', "invalid_number"),
    ('{"x": [1]}', "invalid_number"),
    ('{"x": {"x": 1}}', "invalid_number"),
    ("[false]", "invalid_number"),
    ("[[1]]", "invalid_number"),
    ('{"x": "a"}', "invalid_number"),
    ('{"x": "inf"}', "not_finite"),
]


@pytest.mark.parametrize("type", [JSON, NDJSON])
def test_inputs_of_a_batch_fail_row_by_row(client, type):
    inputs = [(text, expected) for text, expected in INPUTS if type == JSON or text[0] in "[{"]
    texts = [text for text, _ in inputs]
    body = '{"inputs": [' + ", ".join(texts) + "]}" if type == JSON else "\n".join(texts)
    path = client.done(body.encode(), "?model=identity", type)
    rows = client.rows(path)
    assert [row["error"]["code"] if row["error"] else row["prediction"] for row in rows] == [want for _, want in inputs]
    # The row's own error names its column where there is one.
    assert {row["error"]["column"] for row in rows if row["error"]} == {"x", None}


def test_missing_keys_of_the_first_object_are_no_missing_columns(client):
    path = client.done(b'{"bmi": 1}\n', "?model=diabetes", NDJSON)
    assert [row["error"]["code"] for row in client.rows(path)] == ["missing_value"]


def test_what_cannot_be_a_batch_of_json_is_refused(client):
    cases = {
        b'{"inputs": []}': (400, "no_rows"),
        b'{"inputs": {}}': (422, "inputs_no_list"),
        b'{"inputs": null}': (422, "inputs_no_list"),
        b'{"input": 1, "inputs": [1]}': (422, "input_or_inputs"),
        b"{}": (422, "input_or_inputs"),
        b'{"model": "identity"}': (422, "input_or_inputs"),
        b'{"inputs": [1], "Model": "identity"}': (422, "unknown_field"),
        b'{"inputs": [1], "model": 7}': (422, "invalid_model"),
        b"[1]": (422, "not_an_object"),
        b"7": (422, "not_an_object"),
        b"": (400, "invalid_json"),
        b"{": (400, "invalid_json"),
        b'{"inputs": [1]} {}': (400, "invalid_json"),
        b"\xef\xbb\xbf" + b'{"inputs": [1]}': (400, "invalid_json"),
        b'{"inputs": ["\xff"]}': (400, "invalid_json"),
    }
    for body, expected in cases.items():
        refused = client.send_json(body, "/jobs?model=identity")
        assert (refused.status, refused.code) == expected, body


# Lines, the code, and the line that is named.
BAD_LINES = {
    b"": ("empty_body", None),
    b"\n \n\r\n": ("no_rows", None),
    b'{"x":1}\n7\n': ("invalid_json", 2),
    b'{"x":1}\n"text"\n': ("invalid_json", 2),
    b'{"x":1}\nnull': ("invalid_json", 2),
    b'\n\n{"x":1}\n\n{"x":\n1}\n': ("invalid_json", 5),
    b'{"x":1},\n{"x":2}\n': ("invalid_json", 1),
    b'{"x":1}{"x":2}\n': ("invalid_json", 1),
    b"[1]\r[2]\n": ("invalid_json", 1),
    b"x\n1\n": ("invalid_json", 1),
    b"[1]\n[2]\xff\n": ("encoding", 2),
    b"[1]\n[2]\0\n": ("nul_byte", 2),
    b"[1]\n[" + b"1," * 600_000 + b"2]\n": ("record_too_large", 2),
}


@pytest.mark.parametrize(("body", "expected"), BAD_LINES.items(), ids=lambda value: ascii(value)[:40])
def test_line_that_is_no_input_is_refused_with_its_number(client, body, expected):
    refused = client.send(body, "?model=identity", NDJSON)
    code, line = expected
    assert (refused.status, refused.code) == (400, code)
    assert line is None or re.search(rf"\bline {line}\b", refused.json["detail"])


DEEP = b"[" * 10_000 + b"]" * 10_000
MONSTERS = {
    "deep": DEEP,
    "deep and open": b"[" * 10_000,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "a key twice": b'{"x": 1, "x": 2}',
    "a key twice, written in two ways": b'{"x": 1, "\\u0078": 2}',
    "NaN": b'{"x": NaN}',
    "Infinity": b"[-Infinity]",
    "1e999": b'{"x": 1e999}',
    "400 digits": b"[" + b"9" * 400 + b"]",
    "half a pair": b'{"x": "\\ud83d"}',
    "half a pair as a key": b'{"x": 1, "\\udc00": 1}',
    "pair the wrong way round": b'["\\udc00\\ud83d"]',
    "comment": b'{"x": 1 /* one */}',
    "trailing comma": b"[1,]",
    "single quotes": b"{'x': 1}",
    "leading zero": b"[01]",
    "plus": b"[+1]",
    "control character in a text": b'["\x01"]',
}


@pytest.mark.parametrize("place", ["ndjson", "inputs", "input", "beside"])
@pytest.mark.parametrize("text", MONSTERS.values(), ids=MONSTERS)
def test_what_is_not_strict_json_is_refused_quickly(client, text, place):
    body, type = {
        "ndjson": (text, NDJSON),
        "inputs": (b'{"inputs": [' + text + b"]}", JSON),
        "input": (b'{"input": ' + text + b"}", JSON),
        "beside": (b'{"input": 1, "model": ' + text + b"}", JSON),
    }[place]
    began = time.monotonic()
    refused = client.send(body, "?model=identity", type)
    assert time.monotonic() - began < 1  # it takes milliseconds, but the machine is shared
    assert (refused.status, refused.code) == (400, "invalid_json")


def test_very_many_keys_are_read_quickly(client):
    keys = b"{" + b",".join(b'"%x":1' % number for number in range(110_000)) + b"}"
    assert 0.9 < len(keys) / (1 << 20) < 1
    began = time.monotonic()
    refused = client.send_json(b'{"input": ' + keys + b"}", "/predict?model=identity")
    assert time.monotonic() - began < 3
    assert (refused.status, refused.code) == (422, "missing_columns")


def test_json_beyond_its_limits_is_sent_to_ndjson(client):
    many = client.send_json({"inputs": [1] * 10_001})
    assert (many.status, many.code) == (413, "too_many_rows")
    large = client.send_json({"inputs": [1], "model": "x" * (1 << 20)})
    assert (large.status, large.code) == (413, "body_too_large")
    assert all("application/x-ndjson" in refused.json["detail"] for refused in (many, large))
    path = client.done(json.dumps({"inputs": [1] * 10_000}), "?model=identity", JSON)
    assert client.job(path)["progress"]["rows_ok"] == 10_000


# Forms and the code they are refused with.
FILE = ("file", "rows.csv", ROWS)
BAD_FORMS = {
    "field behind the file": (form(FILE, ("model", None, b"identity")), "field_after_file"),
    "second file": (form(FILE, FILE), "field_after_file"),
    "no file": (form(("model", None, b"identity")), "missing_file"),
    "no part": (form(), "missing_file"),
    "file of another name": (form(("csv", "rows.csv", ROWS)), "missing_file"),
    "file without an end": (form(FILE, end=b""), "incomplete_body"),
    "file cut short": (form(FILE)[:-20], "incomplete_body"),
    "no form": (ROWS, "incomplete_body"),
    "empty file": (form(("file", "rows.csv", b"")), "empty_body"),
}


@pytest.mark.parametrize(("body", "code"), BAD_FORMS.values(), ids=BAD_FORMS)
def test_form_that_is_not_as_asked_is_refused(client, body, code):
    refused = client.send(body, "?model=identity", FORM)
    assert (refused.status, refused.code) == (400, code)


def test_form_s_fields_say_what_the_query_does_not(client):
    file = ("file", "rows.csv", b"id;x\n1;2\n")
    fields = [("model", None, b"identity"), ("keep", None, b"id"), ("delimiter", None, b"semicolon")]
    path = client.done(form(*fields, file), "", FORM)
    assert client.results(path) == b"id;prediction;error\n1;2.0;\n"
    path = client.done(form(*fields, file), "?keep=none", FORM)
    assert client.results(path) == b"prediction;error\n2.0;\n"


def test_form_s_model_behind_the_file_is_the_reason_when_columns_do_not_fit(client):
    refused = client.send(form(FILE, ("model", None, b"identity")), "", FORM)
    assert (refused.status, refused.code) == (400, "field_after_file")


@pytest.mark.parametrize("type", ["", "text/plain", "application/xml", "application/octet-stream", "csv", "text/csv2"])
def test_type_that_is_not_taken_is_415_and_says_what_is(client, type):
    refused = client.send(ROWS, "", type)
    assert (refused.status, refused.code) == (415, "unsupported_media_type")
    assert "text/csv" in refused.headers["Accept-Post"]


def test_coding_that_is_not_known_is_415(client):
    refused = client.send(ROWS, "?model=identity", Content_Encoding="br")
    assert (refused.status, refused.code) == (415, "unsupported_encoding")


# A body as it comes over the wire, what the head says of it, and the code it is refused with.
NOISE = random.Random(3).randbytes(200)
SHORT = {
    "length": (ROWS, {"Content_Length": 100}, "incomplete_body"),
    "length, nothing came": (b"", {"Content_Length": 100}, "incomplete_body"),
    "chunks without the last": (in_chunks(ROWS)[:-5], {"Transfer_Encoding": "chunked"}, "incomplete_body"),
    "chunk cut short": (b"ff\r\nx\n1\n", {"Transfer_Encoding": "chunked"}, "incomplete_body"),
    "chunks without framing": (b"ten\r\n" + ROWS, {"Transfer_Encoding": "chunked"}, "malformed_body"),
    "gzip": (gzip.compress(ROWS)[:-1], {"Content_Encoding": "gzip"}, "incomplete_body"),
    "gzip, second member": (
        gzip.compress(ROWS) + gzip.compress(b"4\n")[:9],
        {"Content_Encoding": "gzip"},
        "incomplete_body",
    ),
    "zstd": (zstd(ROWS * 40 + NOISE)[:-9], {"Content_Encoding": "zstd"}, "incomplete_body"),
    "no gzip": (NOISE, {"Content_Encoding": "gzip"}, "corrupt_body"),
    "no zstd": (NOISE, {"Content_Encoding": "zstd"}, "corrupt_body"),
    "zlib for gzip": (zlib.compress(ROWS), {"Content_Encoding": "gzip"}, "corrupt_body"),
    "CSV for gzip": (ROWS, {"Content_Encoding": "gzip"}, "corrupt_body"),
}


@pytest.mark.parametrize(("body", "headers", "code"), SHORT.values(), ids=SHORT)
def test_body_that_is_not_what_it_says_is_refused(client, body, headers, code):
    framed = {"Content_Length": len(body)} if "Transfer_Encoding" not in headers else {}
    refused = client.raw(head(Content_Type=CSV, **{**framed, **headers}) + body)
    assert (refused.status, refused.code) == (400, code)


def test_body_longer_than_its_length_is_the_next_request_s(client):
    accepted = client.raw(head(Content_Type=CSV, Content_Length=4) + b"x\n1\n2\n3\n")
    assert accepted.status == 202
    assert client.finished(accepted.headers["Location"])["progress"]["rows_total"] == 1


@pytest.mark.parametrize("type", [CSV, NDJSON, JSON, FORM])
def test_post_that_says_nothing_of_its_body_is_411(client, type):
    refused = client.raw(head(Content_Type=type))
    assert (refused.status, refused.code) == (411, "length_required")


BOMB = b"x\n" + b"1\n" * 2_000_000


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"x\n", {"Content_Length": 300_001}),
        (b"x\n", {"Content_Length": 10**18}),
        (in_chunks(b"t,x\n" + b"a" * 300_000, 65_536), {"Transfer_Encoding": "chunked"}),
        (gzip.compress(BOMB), {"Content_Encoding": "gzip"}),
        (zstd(BOMB), {"Content_Encoding": "zstd"}),
    ],
    ids=["length", "absurd length", "chunked", "gzip bomb", "zstd bomb"],
)
def test_body_over_the_limit_is_413(idle, body, headers):
    framed = {"Content_Length": len(body), **headers} if "Transfer_Encoding" not in headers else headers
    refused = idle.raw(head(Content_Type=CSV, **framed) + body, more=True)
    # The rows of a bomb are counted before its bytes are over.
    assert (refused.status, refused.code) in ((413, "body_too_large"), (413, "too_many_rows"))
    assert idle.listed("?status=receiving") == []


def test_batch_of_too_many_rows_is_413(idle):
    refused = idle.send(b"x\n" + b"1\n" * 2_001, "?model=identity")
    assert (refused.status, refused.code) == (413, "too_many_rows")
    assert idle.send(b"x\n" + b"1\n" * 2_000, "?model=identity").status == 202


def test_client_that_falls_silent_is_408(idle):
    refused = idle.raw(head(Content_Type=CSV, Content_Length=100) + ROWS, more=True)
    assert (refused.status, refused.code) == (408, "body_too_slow")


def test_clients_that_are_silent_keep_nobody_waiting(idle):
    """As many as one process has threads for, whichever they reach, but for one or two."""
    answers = []

    def stall():
        answers.append(idle.raw(head(Content_Type=CSV, Content_Length=100) + ROWS, more=True).code)

    threads = [threading.Thread(target=stall) for _ in range(30)]
    for thread in threads:
        thread.start()
    slowest = 0.0
    while any(thread.is_alive() for thread in threads):
        began = time.monotonic()
        assert idle.get("/healthz").status == 200
        slowest = max(slowest, time.monotonic() - began)
    assert answers == ["body_too_slow"] * 30
    assert slowest < 0.8  # they are given up after a second


def test_clients_that_never_finish_a_head_are_given_up(idle):
    with contextlib.ExitStack() as opened:
        slow = [opened.enter_context(idle.connected()) for _ in range(200)]
        for client in slow:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow")
        until = time.monotonic() + 10
        while slow and time.monotonic() < until:
            began = time.monotonic()
            assert idle.get("/healthz").status == 200
            assert time.monotonic() - began < 0.8
            for client in slow:
                with contextlib.suppress(OSError):
                    client.sendall(b"!")  # a sign of life is not enough
            slow = [client for client in slow if not _is_closed(client)]
    assert slow == []


def _is_closed(client):
    client.settimeout(0.001)
    try:
        return client.recv(1 << 16) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


ENDINGS = {
    "stray quote": (b'"a"b\n', 400, "stray_quote"),
    "quote that is never closed": (b'"', 400, "unclosed_quote"),
    "NUL": (b"\0\n", 400, "nul_byte"),
    "bare CR": (b"1\r2\n", 400, "bare_cr"),
    "no UTF-8": (b"\xff\n", 400, "encoding"),
    "record too large": (b"1" * (1 << 20) + b"1\n", 400, "record_too_large"),
}


@pytest.mark.parametrize(("ending", "status", "code"), ENDINGS.values(), ids=ENDINGS)
def test_fault_that_is_found_after_the_first_rows_were_predicted_takes_the_batch_back(
    client, shared_stack, ending, status, code
):
    first = b"x\n" + b"1\n" * 3_000
    with client.connected() as upload:
        upload.sendall(head(Content_Type=CSV, Content_Length=len(first) + len(ending)) + first)
        path = wait_until(lambda: receiving(client), 10, "the upload is not listed")
        wait_until(lambda: client.job(path)["progress"]["rows_done"], 20, "nothing was predicted")
        job = client.job(path)
        assert job["status"] == "receiving"
        assert [job["progress"][name] for name in ("rows_total", "percent", "eta_seconds")] == [None, None, None]
        upload.sendall(ending)
        refused = answer(upload)
    assert (refused.status, refused.code) == (status, code)
    assert "3002" in refused.json["detail"]
    for route in ("", "/results", "/results?partial=true", "/errors"):
        gone = client.get(path + route)
        assert (gone.status, gone.code) == (410, "upload_failed")
    assert path not in client.listed()
    with redis.Redis.from_url(shared_stack.redis_url) as store:
        left = wait_until(lambda: only_tombstone(store, path), 5, "something of the upload is left")
    assert left


def test_form_field_behind_a_file_whose_rows_were_predicted_takes_the_batch_back(client):
    body = form(("file", "rows.csv", b"x\n" + b"1\n" * 3_000), ("model", None, b"identity"))
    cut = body.index(b'--edge\r\nContent-Disposition: form-data; name="model"')
    with client.connected() as upload:
        upload.sendall(head(Content_Type=FORM, Content_Length=len(body)) + body[:cut])
        path = wait_until(lambda: receiving(client), 10, "the upload is not listed")
        wait_until(lambda: client.job(path)["progress"]["rows_done"], 20, "nothing was predicted")
        upload.sendall(body[cut:])
        assert answer(upload).code == "field_after_file"
    assert client.get(path).code == "upload_failed"


def receiving(client):
    listed = client.listed("?status=receiving&model=identity")
    return listed and listed[0]


def only_tombstone(store, path):
    job_id = path.rpartition("/")[2]
    keys = [key.decode() for key in store.scan_iter(f"*{job_id}*")]
    return keys == [f"qc:tombstone:{job_id}"]


def test_names_and_headers_with_control_characters_change_nothing(client):
    body = b'x,"a\r\nSet-Cookie: b=c","\x1b[31m","\x7f"\n1,2,3,4\n'
    path = client.done(body, "?model=identity")
    download = client.get(f"{path}/results")
    assert download.body == body.split(b"\n1,")[0] + b",prediction,error\n1,2,3,4,1.0,\n"
    assert "Set-Cookie" not in download.headers
    assert client.job(path)["output"]["columns"][1:4] == ["a\r\nSet-Cookie: b=c", "\x1b[31m", "\x7f"]
    refused = client.raw(head(Content_Type="text/csv\x01", Content_Length=len(ROWS)) + ROWS)
    assert (refused.status, refused.code) == (400, "malformed_request")
