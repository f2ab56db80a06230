"""Results: their forms, parts and ranges, and the failed rows ready to be sent again."""

import csv
import io
import json
import random

import pytest

CSV = "text/csv"
NDJSON = "application/x-ndjson"
JSON = "application/json"
ROWS = 2_000


def table():
    """A CSV of several chunks in which every tenth row is bad."""
    lines = ['id,"note, free",x']
    for number in range(ROWS):
        value = "bad" if number % 10 == 3 else str(number)
        lines.append(f'{number},"é ""{number}"",\n{number}",{value}')
    return ("\r\n".join(lines) + "\r\n").encode()


@pytest.fixture(scope="module")
def batch(client):
    path = client.done(table(), "?model=identity")
    assert client.job(path)["progress"]["rows_failed"] == ROWS // 10
    return path


@pytest.fixture(scope="module")
def whole(client, batch):
    return client.results(batch)


# What is accepted, and the type that comes for a job sent as CSV.
ACCEPTED = {
    "": CSV,
    "*/*": CSV,
    "text/csv": CSV,
    "text/*": CSV,
    "TEXT/CSV; charset=utf-8": CSV,
    "application/x-ndjson": NDJSON,
    "application/json": JSON,
    "application/*, text/csv;q=0.1": NDJSON,
    "text/csv;q=0.5, application/json": JSON,
    "text/csv;q=0, */*": NDJSON,
    "text/html, application/xhtml+xml, */*;q=0.8": CSV,
    "text/html, application/json;q=0.1": JSON,
}


@pytest.mark.parametrize(("accept", "type"), ACCEPTED.items())
def test_form_is_the_one_that_is_accepted(client, batch, accept, type):
    found = client.get(f"{batch}/results", **({"Accept": accept} if accept else {}))
    assert found.status == 200
    assert found.headers.get_content_type() == type
    assert "Accept" in found.headers["Vary"]


@pytest.mark.parametrize("accept", ["text/html", "image/*", "text/csv;q=0", "application/xml, text/plain"])
def test_form_that_there_is_not_is_406(client, batch, accept):
    refused = client.get(f"{batch}/results", Accept=accept)
    assert (refused.status, refused.code) == (406, "not_acceptable")
    assert CSV in refused.json["detail"]


@pytest.mark.parametrize(
    ("body", "type", "form"),
    [
        (b"x\n1\n", CSV, CSV),
        (b"[1]\n", NDJSON, NDJSON),
        (b'{"inputs": [1]}', JSON, JSON),
        (b'{"input": 1}', JSON, JSON),
    ],
)
def test_form_is_else_the_one_that_the_job_was_sent_in(client, body, type, form):
    path = client.done(body, "?model=identity", type)
    for accept in ({}, {"Accept": "*/*"}):
        assert client.get(f"{path}/results", **accept).headers.get_content_type() == form


def test_rows_are_the_same_in_every_form(client, batch, whole):
    records = list(csv.DictReader(io.StringIO(whole.decode(), newline="")))
    rows = client.rows(batch)
    assert [row["row"] for row in rows] == list(range(1, ROWS + 1))
    pages = [json.loads(client.results(batch, f"?offset={start}&limit=999", JSON)) for start in (0, 999, 1998)]
    assert [row for page in pages for row in page["rows"]] == rows
    assert [page["rows_total"] for page in pages] == [ROWS] * 3
    for number, (record, row) in enumerate(zip(records, rows, strict=True)):
        assert row["input"] == {name: record[name] for name in ("id", "note, free", "x")}
        assert row["input"]["note, free"] == f'é "{number}",\n{number}'
        assert "probabilities" not in row
        if number % 10 == 3:
            error = row["error"]
            assert (row["prediction"], error["code"], error["column"]) == (None, "invalid_number", "x")
            assert (record["prediction"], record["error"]) == ("", f"invalid_number: {error['message']}")
        else:
            assert (row["prediction"], row["error"]) == (float(number), None)
            assert (record["prediction"], record["error"]) == (repr(float(number)), "")


@pytest.mark.parametrize(
    ("query", "offset", "rows"),
    [
        ("", 0, range(1, 1_001)),
        ("?limit=2", 0, range(1, 3)),
        ("?offset=127&limit=2", 127, range(128, 130)),
        ("?offset=1999", 1_999, range(2_000, 2_001)),
        ("?offset=2000", 2_000, range(0)),
        ("?offset=999999999", 999_999_999, range(0)),
        ("?limit=10000", 0, range(1, 2_001)),
    ],
)
def test_page_has_the_rows_that_were_asked_for(client, batch, query, offset, rows):
    page = json.loads(client.results(batch, query, JSON))
    limit = int(query.partition("limit=")[2] or 1_000)
    assert (page["offset"], page["limit"], page["rows_total"]) == (offset, limit, ROWS)
    assert [row["row"] for row in page["rows"]] == list(rows)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=10001", "limit=x", "limit=", "offset=-1", "offset=1.5", "offset=%D9%A3"]
)
def test_page_outside_of_the_limits_is_400(client, batch, query):
    refused = client.get(f"{batch}/results?{query}", Accept=JSON)
    assert (refused.status, refused.code) == (400, f"invalid_{query.partition('=')[0]}")


@pytest.mark.parametrize("query", ["partial=yes", "escape_formulas=1"])
def test_option_that_is_neither_true_nor_false_is_400(client, batch, query):
    refused = client.get(f"{batch}/results?{query}")
    assert (refused.status, refused.code) == (400, f"invalid_{query.partition('=')[0]}")


def test_two_downloads_are_byte_identical_and_known_by_their_tag(client, batch, whole):
    first, second = (client.get(f"{batch}/results", Accept=CSV) for _ in range(2))
    assert first.body == second.body == whole
    assert first.headers["ETag"] == second.headers["ETag"]
    assert first.headers["ETag"].startswith('"')
    assert int(first.headers["Content-Length"]) == len(whole) == client.job(batch)["output"]["bytes"]
    job_id = batch.rpartition("/")[2]
    assert first.headers["Content-Disposition"] == f'attachment; filename="identity-{job_id}.csv"'
    assert first.headers["Content-Type"] == "text/csv; charset=utf-8"


def test_tag_is_known_per_form_and_known_results_are_304(client, batch):
    tags = {accept: client.get(f"{batch}/results", Accept=accept).headers["ETag"] for accept in (CSV, NDJSON, JSON)}
    tags["errors"] = client.get(f"{batch}/errors").headers["ETag"]
    tags["escaped"] = client.get(f"{batch}/results?escape_formulas=true").headers["ETag"]
    assert len(set(tags.values())) == 5
    for accept in (CSV, NDJSON, JSON):
        known = client.get(f"{batch}/results", Accept=accept, If_None_Match=f'"x", {tags[accept]}')
        assert (known.status, known.body, known.headers["ETag"]) == (304, b"", tags[accept])
        assert client.get(f"{batch}/results", Accept=accept, If_None_Match=tags["errors"]).status == 200


# The header, and what of the whole comes.
RANGES = {
    "bytes=0-0": slice(0, 1),
    "bytes=0-": slice(0, None),
    "bytes=100-199": slice(100, 200),
    "bytes=-1": slice(-1, None),
    "bytes=-500": slice(-500, None),
    "bytes=5000-20000": slice(5_000, 20_001),
    "bytes=30000-999999999": slice(30_000, None),
    "bytes=-999999999": slice(0, None),
    "BYTES=1-2": slice(1, 3),
}


@pytest.mark.parametrize(("asked", "part"), RANGES.items())
def test_range_is_that_part_of_the_whole(client, batch, whole, asked, part):
    found = client.get(f"{batch}/results", Accept=CSV, Range=asked)
    start, stop, _ = part.indices(len(whole))
    assert (found.status, found.body) == (206, whole[part])
    assert found.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
    assert int(found.headers["Content-Length"]) == stop - start


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=2-1", "bytes=-", "bytes=a-b", "rows=0-1", "0-1", ""])
def test_range_that_is_none_or_several_is_the_whole(client, batch, whole, asked):
    found = client.get(f"{batch}/results", Accept=CSV, Range=asked)
    assert (found.status, found.body, found.headers["Content-Range"]) == (200, whole, None)
    assert found.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("first", ["bytes={length}-", "bytes={length}-{length}", "bytes=999999999-", "bytes=-0"])
def test_range_outside_is_416_with_the_length(client, batch, whole, first):
    refused = client.get(f"{batch}/results", Accept=CSV, Range=first.format(length=len(whole)))
    assert (refused.status, refused.code) == (416, "range_not_satisfiable")
    assert refused.headers["Content-Range"] == f"bytes */{len(whole)}"


def test_download_that_was_cut_anywhere_goes_on_byte_for_byte(client, batch, whole):
    tag = client.get(f"{batch}/results", Accept=CSV).headers["ETag"]
    for cut in random.Random(5).sample(range(len(whole)), 20):
        rest = client.get(f"{batch}/results", Accept=CSV, Range=f"bytes={cut}-", If_Range=tag)
        assert (rest.status, rest.body) == (206, whole[cut:])


@pytest.mark.parametrize("condition", ['"other"', "W/{tag}", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_download_of_something_else_begins_anew(client, batch, whole, condition):
    tag = client.get(f"{batch}/results", Accept=CSV).headers["ETag"]
    found = client.get(f"{batch}/results", Accept=CSV, Range="bytes=5-", If_Range=condition.format(tag=tag))
    assert (found.status, found.body) == (200, whole)


@pytest.mark.parametrize(("query", "accept"), [("", NDJSON), ("", JSON), ("?escape_formulas=true", CSV)])
def test_other_forms_have_no_ranges(client, batch, query, accept):
    found = client.get(f"{batch}/results{query}", Accept=accept, Range="bytes=0-1")
    assert (found.status, found.headers["Accept-Ranges"]) == (200, "none")
    assert len(found.body) > 2


FORMULAS = {
    "=1+1": "'=1+1",
    "+cmd|' /C calc'!A0": "'+cmd|' /C calc'!A0",
    "-2+3": "'-2+3",
    "@SUM(A1)": "'@SUM(A1)",
    "\ttab": "'\ttab",
    "\rreturn": "'\rreturn",
    "-inf": "'-inf",
    "-": "'-",
    "-1.5": "-1.5",
    "+7": "+7",
    "-1e-3": "-1e-3",
    "a=1": "a=1",
    " =1": " =1",
    "'=1": "'=1",
}


def test_formulas_are_escaped_when_asked_for_and_numbers_never(client):
    sent = io.StringIO(newline="")
    writer = csv.writer(sent, quoting=csv.QUOTE_ALL)
    writer.writerow(["=t", "x"])
    writer.writerows([text, "-1"] for text in FORMULAS)
    path = client.done(sent.getvalue().encode(), "?model=identity")
    plain = list(csv.reader(io.StringIO(client.results(path).decode(), newline="")))
    assert [record[0] for record in plain] == ["=t", *FORMULAS]
    escaped = list(csv.reader(io.StringIO(client.results(path, "?escape_formulas=true").decode(), newline="")))
    assert [record[0] for record in escaped] == ["'=t", *FORMULAS.values()]
    assert [record[1:] for record in escaped] == [["x", "prediction", "error"], *[["-1", "-1.0", ""]] * len(FORMULAS)]


def test_unended_job_has_no_results_yet(idle):
    batch = idle.submit(b"x\n1\n", "?model=identity")
    single = idle.submit(b'{"input": 1}', "", JSON)
    for route in (f"{batch}/results", f"{batch}/errors", f"{single}/results", f"{single}/results?partial=true"):
        refused = idle.get(route)
        assert (refused.status, refused.code) == (409, "results_not_ready")
        assert int(refused.headers["Retry-After"]) >= 1
    nothing = idle.get(f"{batch}/results?partial=true")
    assert (nothing.status, nothing.body) == (200, b"x,prediction,error\n")
    page = idle.get(f"{batch}/results?partial=true", Accept=JSON).json
    assert page == {"rows": [], "offset": 0, "limit": 1000, "rows_total": 1}


def test_partial_results_are_the_longest_finished_prefix(client):
    path = client.submit(b"x\n" + b"".join(b"%d\n" % number for number in range(3_000)), "?model=slow")
    lengths = []
    ended = False
    while not ended:
        ended = client.get(f"{path}?wait=0.1").json["ended_at"] is not None
        found = client.get(f"{path}/results?partial=true", Accept=NDJSON)
        predictions = [json.loads(line)["prediction"] for line in found.body.splitlines()]
        assert predictions == list(range(len(predictions)))
        lengths.append(len(predictions))
    assert lengths == sorted(lengths)
    assert lengths[-1] == 3_000
    assert any(0 < length < 3_000 for length in lengths)


@pytest.mark.parametrize(
    ("body", "type", "kept"),
    [
        (b'id,x\r\n"a,b",1\r\n"c\r\nd",bad\r\n', CSV, [{"id": "a,b"}, {"id": "c\r\nd"}]),
        (b'{"id": 1.0, "x": 1}\n{"x": null}\n', NDJSON, [{"id": 1.0}, {}]),
        (b'{"inputs": [{"id": [1], "x": 1}, {"id": "=1", "x": 2}]}', JSON, [{"id": [1]}, {"id": "=1"}]),
    ],
)
def test_rows_that_were_never_reached_are_not_processed(idle, body, type, kept):
    path = idle.submit(body, "?model=identity&keep=id", type)
    idle.ask("POST", f"{path}/cancel")
    rows = idle.rows(path)
    assert [row["input"] for row in rows] == kept
    assert [(row["prediction"], row["error"]["code"]) for row in rows] == [(None, "not_processed")] * 2
    page = json.loads(idle.results(path, "", JSON))
    assert (page["rows"], page["rows_total"]) == (rows, 2)
    found = idle.get(f"{path}/results", Accept=CSV)
    records = list(csv.reader(io.StringIO(found.body.decode(), newline="")))
    assert [record[-2] for record in records] == ["prediction", "", ""]
    assert [record[-1].partition(":")[0] for record in records] == ["error", "not_processed", "not_processed"]
    part = idle.get(f"{path}/results", Accept=CSV, Range="bytes=5-9")
    assert (part.status, part.body) == (206, found.body[5:10])
    # They are not failed rows: nothing is wrong with them.
    assert idle.get(f"{path}/errors").body.count(b"\n") == 1


def test_batch_of_json_as_csv_has_features_then_extra_keys_then_ours(client):
    inputs = [
        '{"note": "a, \\"b\\"", "x": 1.50, "deep": {"n": [1.0, null, true]}}',
        "[2]",
        '{"x": "3", "late": 1, "note": null}',
        '{"note": true, "deep": false}',
        "[4, 5]",
    ]
    path = client.done("\n".join(inputs).encode(), "?model=identity", NDJSON)
    assert client.job(path)["output"]["columns"] == ["x", "note", "deep", "prediction", "error"]
    records = list(csv.reader(io.StringIO(client.results(path).decode())))
    assert [record[:4] for record in records] == [
        ["x", "note", "deep", "prediction"],
        ["1.50", 'a, "b"', '{"n":[1.0,null,true]}', "1.5"],
        ["2", "", "", "2.0"],
        ["3", "", "", "3.0"],
        ["", "true", "false", ""],
        ["4", "", "", ""],
    ]
    rows = client.rows(path)
    assert [row["error"] and row["error"]["code"] for row in rows] == [
        None,
        None,
        None,
        "missing_value",
        "wrong_cell_count",
    ]
    assert rows[0]["input"] == {"x": 1.5, "note": 'a, "b"', "deep": {"n": [1.0, None, True]}}
    assert rows[1]["input"] == {"x": 2}
    assert rows[2]["input"] == {"x": "3", "late": 1, "note": None}
    failed = list(csv.reader(io.StringIO(client.get(f"{path}/errors").body.decode())))
    assert failed[0] == ["x", "note", "deep", "surplus", "error"]
    assert [record[:4] for record in failed[1:]] == [["", "true", "false", ""], ["4", "", "", "5"]]


def test_no_failed_rows_are_the_header_alone(client):
    path = client.done(b'id,"x"\r\n1,2\r\n', "?model=identity&keep=none")
    found = client.get(f"{path}/errors")
    assert (found.status, found.body) == (200, b'id,"x",error\r\n')
    assert found.headers.get_content_type() == CSV
    assert found.headers["Content-Disposition"].endswith('-errors.csv"')


def test_failed_rows_come_with_all_columns_whatever_was_kept(client):
    path = client.done(b'id,"a;b",x\n1,"p,\n""q""",oops\n2,r,3\n3,s, \n', "?model=identity&keep=id")
    found = client.get(f"{path}/errors").body.decode()
    messages = [row["error"]["message"] for row in client.rows(path) if row["error"]]
    assert found == (
        f'id,"a;b",x,error\n1,"p,\n""q""",oops,invalid_number: {messages[0]}\n3,s, ,missing_value: {messages[1]}\n'
    )


def test_failed_rows_once_corrected_are_sent_as_they_are_again_and_again(client):
    path = client.done(b"id,x\n1,a\n2,b,c,d\n3,4\n5\n", "?model=identity&keep=id")
    for round in (1, 2):
        found = client.get(f"{path}/errors").body.decode()
        records = list(csv.reader(io.StringIO(found)))
        assert records[0] == ["id", "x", "surplus", "error", *(["error_2"] if round == 2 else [])]
        assert [record[0] for record in records[1:]] == ["1", "2", "5"]
        path = client.done(found.encode(), "?model=identity")
        assert client.job(path)["status"] == "failed"
    corrected = found.replace(",a,", ",1,").replace(",b,", ",2,").replace("5,,", "5,5,")
    path = client.done(corrected.encode(), "?model=identity&keep=id")
    assert [(row["input"]["id"], row["prediction"]) for row in client.rows(path)] == [
        ("1", 1.0),
        ("2", 2.0),
        ("5", 5.0),
    ]


def test_floats_read_back_as_the_same_floats(client):
    chance = random.Random(11)
    values = [chance.uniform(-1, 1) * 10.0 ** chance.randint(-300, 300) for _ in range(500)]
    path = client.done(b"x\n" + "".join(f"{value!r}\n" for value in values).encode(), "?model=identity&keep=none")
    assert [row["prediction"] for row in client.rows(path)] == values
    assert [float(line.partition(b",")[0]) for line in client.results(path).splitlines()[1:]] == values


def test_classes_come_in_their_own_type(client):
    path = client.done(b"x\n1\n-1\n", "?model=sign")
    rows = client.rows(path)
    assert [row["prediction"] for row in rows] == [True, False]
    assert rows[0]["probabilities"] == {"false": 0.0, "true": 1.0}
    assert client.results(path) == (
        b"x,prediction,probability_false,probability_true,error\n1,true,0.0,1.0,\n-1,false,1.0,0.0,\n"
    )
