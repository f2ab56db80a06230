"""Results and failed rows as they are downloaded: forms, pages, ranges, conditions, and what ends early."""

import contextlib
import csv
import http.client
import io
import json
import socket

import numpy as np
import pytest
from flask import Flask
from stack import Stack

from api import problems
from api.context import EXTENSION, Api
from api.results import blueprint
from api.seats import Seats
from jobs.codec.chunk import compress, decompress, pack_failures
from jobs.codec.layout import plan
from jobs.inbox_leases import SingleResult
from jobs.leases import ChunkResult, Leases
from jobs.news import News
from jobs.record import ModelVersion
from jobs.scripts import Limits
from jobs.store import Store
from jobs.tickets import TicketQueue
from models.catalog import Catalog
from models.predictor import Predictor
from settings import Settings
from worker.scoring import SubBlocks, score

TENANT = "public"
CHUNKS = ("id,RM\r\n", [b'a,7.50\r\n"b,c",8\r\n', b"d,x\r\n=e\r\n", b"f,9,surplus\r\ng,10\r\n"])
NOT_PROCESSED = "not_processed: the job ended before this row was reached"


@pytest.fixture
def api(redis_client, store_url):
    settings = Settings.from_environment({"REDIS_URL": store_url})
    catalog = Catalog.read(settings.models_path, "housing")
    store = Store(redis_client, Limits.of(settings))
    return Api(settings, catalog, store, TicketQueue(redis_client), News(lambda: redis_client), Seats(1))


@pytest.fixture
def client(api):
    app = Flask("results")
    app.extensions[EXTENSION] = api
    app.register_blueprint(blueprint)
    problems.register(app)
    return app.test_client()


@pytest.fixture
def jobs(api, redis_client):
    return Jobs(api, redis_client)


class FirstFeature:
    """Predicts the first feature; a classifier always its first class."""

    def __init__(self, manifest):
        self.classes = manifest.classes

    def predict(self, block):
        return np.asarray(block)[:, 0] if self.classes is None else np.full(len(block), self.classes[0])

    def predict_proba(self, block):
        return np.tile([0.5, 0.3, 0.2], (len(block), 1))


class Jobs:
    """Sends jobs and does the worker's part of them; each prediction is the model's first feature."""

    def __init__(self, api, redis_client):
        self.api = api
        self.store = api.store
        self.leases = Leases(redis_client, Limits.of(api.settings), "w1")

    def model(self, name):
        manifest = self.api.catalog.find(name)
        return manifest, ModelVersion(manifest.name, manifest.version, manifest.sha256)

    def batch(self, header, chunks, *, form="csv", name="housing", done=None, close=True, keep="all", extra=()):
        """A batch of which the first `done` chunks are done (all of them if None)."""
        manifest, model = self.model(name)
        layout = plan(
            format="csv" if form == "csv" else "json",
            names=header.strip().split(",") if header else [*manifest.feature_names, *extra],
            features=manifest.feature_names,
            classes=manifest.classes,
            has_probabilities=manifest.has_probabilities,
            keep=keep,
            line_end="\r\n" if form == "csv" else "\n",
        )
        upload = self.store.intake.open_batch(TENANT, form, model, layout)
        rows = []
        for index, chunk in enumerate(chunks):
            rows.append(chunk.count(b"\n"))
            (ticket,) = self.store.intake.append(upload, index, compress(chunk), rows[-1]).tickets or (None,)
            if ticket:
                slot, ticket_id = ticket.arguments[1], ticket.id
        if close:
            self.store.intake.close(upload, len(chunks))
        for index in range(len(chunks) if done is None else done):
            self.commit(self.leases.lease(upload.job_id, slot, ticket_id), rows[index], layout, manifest)
        return upload.job_id

    def commit(self, leased, count, layout, manifest):
        predictor = Predictor(manifest, FirstFeature(manifest))
        chunk = decompress(leased.blob)
        scored = score(chunk, count, layout, predictor, sub_blocks=SubBlocks(), begin=lambda stage, start, stop: None)
        result = ChunkResult(
            scored.ok,
            len(scored.failures),
            len(scored.records),
            scored.has_surplus,
            compress(scored.records),
            pack_failures(scored.failures) if scored.failures else b"",
        )
        assert self.leases.commit(leased.lease, result, keep_input=layout.format == "json")

    def single(self, outcome, *, name="housing", sent='{"RM":7.50,"note":"=x, y"}'):
        _, model = self.model(name)
        job, _ = self.store.intake.accept_single(TENANT, model, sent)
        if outcome == "canceled":
            self.store.cancel(job.id, TENANT)
        elif outcome is not None:
            token = self.leases.lease_singles([model.key], 10, "ticket").token
            self.leases.commit_singles(token, {job.id: outcome})
        return job.id


def get(client, job_id, what="results", query="", method="GET", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.open(f"/jobs/{job_id}/{what}{query}", method=method, headers=names)


WHOLE = (
    b"id,RM,prediction,error\r\n"
    b"a,7.50,7.5,\r\n"
    b'"b,c",8,8.0,\r\n'
    b"d,x,,invalid_number: RM is not a number\r\n"
    b"=e,,,wrong_cell_count: 1 cells where the header has 2\r\n"
    b"f,9,,wrong_cell_count: 3 cells where the header has 2\r\n"
    b"g,10,10.0,\r\n"
)


def test_csv_is_the_input_with_our_columns_and_downloads_alike_twice(client, jobs):
    job_id = jobs.batch(*CHUNKS)
    answer = get(client, job_id)
    assert answer.status_code == 200
    assert answer.data == WHOLE == get(client, job_id).data
    assert answer.content_type == "text/csv; charset=utf-8"
    assert answer.content_length == len(WHOLE)
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Vary"] == "Accept"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="housing-{job_id}.csv"'


@pytest.mark.parametrize("form", ["text/csv", "application/x-ndjson", "application/json"])
def test_head_has_the_headers_of_get_and_no_body(client, jobs, form):
    job_id = jobs.batch(*CHUNKS)
    whole, head = (get(client, job_id, method=method, Accept=form) for method in ("GET", "HEAD"))
    assert head.data == b""
    assert head.status_code == 200
    assert dict(head.headers) == dict(whole.headers)


def test_rows_as_ndjson_are_those_of_the_csv(client, jobs):
    answer = get(client, jobs.batch(*CHUNKS), Accept="application/x-ndjson")
    rows = [json.loads(line) for line in answer.data.splitlines()]
    assert [row["row"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[1] == {"row": 2, "input": {"id": "b,c", "RM": "8"}, "prediction": 8.0, "error": None}
    assert [row["error"] and row["error"]["code"] for row in rows[2:]] == [
        *("invalid_number", "wrong_cell_count", "wrong_cell_count"),
        None,
    ]
    assert rows[2]["error"]["column"] == "RM"
    assert answer.headers["Accept-Ranges"] == "none"
    assert "Content-Length" not in answer.headers


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("", [1, 2, 3, 4, 5, 6]),
        ("?limit=1", [1]),
        ("?offset=1&limit=2", [2, 3]),
        ("?offset=3&limit=3", [4, 5, 6]),
        ("?offset=5", [6]),
        ("?offset=6", []),
        ("?offset=999999999999999999&limit=10000", []),
    ],
)
def test_page_of_json_has_the_rows_asked_for(client, jobs, query, rows):
    page = get(client, jobs.batch(*CHUNKS), query=query, Accept="application/json").json
    assert [row["row"] for row in page["rows"]] == rows
    assert page["rows_total"] == 6


@pytest.mark.parametrize(
    "query",
    ["?limit=0", "?limit=10001", "?limit=x", "?limit=", "?offset=-1", "?offset=%D9%A1", f"?offset={'9' * 5000}"],
)
def test_page_outside_of_the_limits_is_refused(client, jobs, query):
    answer = get(client, jobs.batch(*CHUNKS), query=query, Accept="application/json")
    assert (answer.status_code, answer.json["code"]) == (400, f"invalid_{query[1:].partition('=')[0]}")


def test_page_reads_only_the_chunks_of_its_rows(client, jobs, redis_client):
    job_id = jobs.batch(*CHUNKS)
    redis_client.hdel(f"qc:job:{job_id}:results", 0, 2)
    page = get(client, job_id, query="?offset=2&limit=2", Accept="application/json").json
    assert [row["row"] for row in page["rows"]] == [3, 4]


def test_form_that_there_is_not_is_406(client, jobs):
    answer = get(client, jobs.batch(*CHUNKS), Accept="text/html")
    assert (answer.status_code, answer.json["code"]) == (406, "not_acceptable")
    assert "text/csv, application/x-ndjson, application/json" in answer.json["detail"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=20-60", slice(20, 61)),
        ("bytes=50-", slice(50, None)),
        ("bytes=-7", slice(-7, None)),
    ],
)
def test_range_is_that_part_of_the_whole(client, jobs, asked, expected):
    answer = get(client, jobs.batch(*CHUNKS), Range=asked)
    assert answer.status_code == 206
    assert answer.data == WHOLE[expected]
    start, stop, _ = expected.indices(len(WHOLE))
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(WHOLE)}"
    assert answer.content_length == len(answer.data)


def test_head_knows_no_ranges(client, jobs):
    answer = get(client, jobs.batch(*CHUNKS), method="HEAD", Range="bytes=0-1")
    assert (answer.status_code, answer.content_length) == (200, len(WHOLE))


def test_several_ranges_are_the_whole(client, jobs):
    answer = get(client, jobs.batch(*CHUNKS), Range="bytes=0-1,4-5")
    assert (answer.status_code, answer.data) == (200, WHOLE)


def test_range_outside_is_416_with_the_length(client, jobs):
    answer = get(client, jobs.batch(*CHUNKS), Range=f"bytes={len(WHOLE)}-")
    assert (answer.status_code, answer.json["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{len(WHOLE)}"


def test_download_goes_on_only_where_it_is_still_the_same(client, jobs):
    job_id = jobs.batch(*CHUNKS)
    etag = get(client, job_id).headers["ETag"]
    assert get(client, job_id, Range="bytes=9-", If_Range=etag).status_code == 206
    for other in ('"other"', f"W/{etag}", "Sat, 31 Jan 2026 12:00:00 GMT"):
        assert get(client, job_id, Range="bytes=9-", If_Range=other).status_code == 200


def test_other_forms_have_no_ranges(client, jobs):
    job_id = jobs.batch(*CHUNKS)
    assert get(client, job_id, Range="bytes=0-1", Accept="application/x-ndjson").status_code == 200
    answer = get(client, job_id, query="?escape_formulas=true", Range="bytes=0-1")
    assert (answer.status_code, answer.headers["Accept-Ranges"]) == (200, "none")


def test_each_form_and_option_has_its_own_strong_etag(client, jobs):
    job_id = jobs.batch(*CHUNKS)
    answers = [
        get(client, job_id),
        get(client, job_id, query="?escape_formulas=true"),
        get(client, job_id, Accept="application/x-ndjson"),
        get(client, job_id, Accept="application/json"),
        get(client, job_id, query="?offset=1", Accept="application/json"),
        get(client, job_id, "errors"),
        get(client, jobs.batch(*CHUNKS)),
    ]
    tags = [answer.headers["ETag"] for answer in answers]
    assert len(set(tags)) == len(tags)
    assert not any(tag.startswith("W/") for tag in tags)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_known_results_are_not_sent_again(client, jobs, method):
    job_id = jobs.batch(*CHUNKS)
    etag = get(client, job_id).headers["ETag"]
    answer = get(client, job_id, method=method, If_None_Match=f'"other", W/{etag}', Range="bytes=0-1")
    assert (answer.status_code, answer.data, answer.headers["ETag"]) == (304, b"", etag)
    assert get(client, job_id, method=method, If_None_Match='"other"').status_code == 200


def test_formulas_are_escaped_when_asked_for(client, jobs):
    answer = get(client, jobs.batch("=id,RM\r\n", CHUNKS[1]), query="?escape_formulas=true")
    assert answer.data == WHOLE.replace(b"\r\n=e", b"\r\n'=e").replace(b"id,RM", b"'=id,RM", 1)


def test_unended_job_is_409_and_says_how_far_it_is(client, jobs):
    answer = get(client, jobs.batch(*CHUNKS, done=1))
    assert (answer.status_code, answer.json["code"]) == (409, "results_not_ready")
    assert "2 of 6 rows" in answer.json["detail"]
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize("close", [True, False])
def test_partial_results_are_the_finished_prefix(client, jobs, close):
    job_id = jobs.batch(*CHUNKS, done=2, close=close)
    answer = get(client, job_id, query="?partial=true", Range="bytes=0-1", If_None_Match="*")
    assert (answer.status_code, answer.data) == (200, b"".join(WHOLE.splitlines(keepends=True)[:5]))
    assert answer.headers["Cache-Control"] == "no-store"
    assert "ETag" not in answer.headers
    page = get(client, job_id, query="?partial=true&offset=3", Accept="application/json").json
    assert [row["row"] for row in page["rows"]] == [4]
    assert page["rows_total"] == (6 if close else None)


def test_partial_is_no_more_than_the_header_at_first(client, jobs):
    assert get(client, jobs.batch(*CHUNKS, done=0), query="?partial=true").data == b"id,RM,prediction,error\r\n"


def test_canceled_job_has_the_rows_that_were_never_reached(client, jobs, api):
    job_id = jobs.batch(*CHUNKS, done=1)
    api.store.cancel(job_id, TENANT)
    answer = get(client, job_id)
    lines = WHOLE.splitlines(keepends=True)[:3] + [
        f"{cells},,{NOT_PROCESSED}\r\n".encode() for cells in ("d,x", "=e,", "f,9", "g,10")
    ]
    assert answer.data == b"".join(lines)
    assert answer.content_length == len(answer.data)
    assert get(client, job_id, Range="bytes=60-150").data == answer.data[60:151]
    rows = [json.loads(row) for row in get(client, job_id, Accept="application/x-ndjson").data.splitlines()]
    assert [row["row"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[5]["error"]["code"] == "not_processed"
    assert get(client, job_id, "errors").data == b"id,RM,error\r\n"


def retried_and_canceled(api, job_id, rows):
    """The id of a batch that retries these rows and was canceled before a worker got to one."""
    job = api.store.find(job_id, TENANT)
    upload = api.store.intake.open_retry(job)
    api.store.intake.copy_chunks(upload, job, range(job.chunks_received), rows)
    api.store.intake.close(upload, job.chunks_received)
    return api.store.cancel(upload.job_id, TENANT).id


def test_canceled_retry_has_the_old_predictions_and_its_rows_were_never_reached(client, jobs, api):
    job_id = retried_and_canceled(api, jobs.batch(*CHUNKS), "failed")
    answer = get(client, job_id)
    old = WHOLE.splitlines(keepends=True)
    lines = [f"{cells},,{NOT_PROCESSED}\r\n".encode() for cells in ("d,x", "=e,", "f,9")]
    assert answer.data == b"".join([*old[:3], *lines, old[-1]])
    assert answer.content_length == len(answer.data)
    rows = [json.loads(row) for row in get(client, job_id, Accept="application/x-ndjson").data.splitlines()]
    codes = [row["error"] and row["error"]["code"] for row in rows]
    assert codes == [None, None, "not_processed", "not_processed", "not_processed", None]
    assert get(client, job_id, "errors").data == b"id,RM,error\r\n"
    job = api.store.find(job_id, TENANT)
    assert (job.rows_ok, job.rows_failed, job.rows_unreached) == (3, 0, 3)


def test_canceled_retry_of_all_rows_has_none_of_the_old_predictions(client, jobs, api):
    job_id = retried_and_canceled(api, jobs.batch(*CHUNKS), "all")
    cells = ("a,7.50", '"b,c",8', "d,x", "=e,", "f,9", "g,10")
    lines = [f"{cell},,{NOT_PROCESSED}\r\n".encode() for cell in cells]
    assert get(client, job_id).data == b"id,RM,prediction,error\r\n" + b"".join(lines)


@pytest.mark.parametrize("keep", ["all", "none"])
def test_canceled_retry_of_json_inputs_shows_them_as_they_were_sent(client, jobs, api, keep):
    inputs = [b'{"RM":7,"n":"\xc3\xa9\\n"}\n{"RM":"x"}\n']
    job_id = retried_and_canceled(api, jobs.batch("", inputs, form="ndjson", keep=keep, extra=["n"]), "failed")
    rows = [json.loads(row) for row in get(client, job_id).data.splitlines()]
    assert [row["input"] for row in rows] == ([{"RM": 7, "n": "é\n"}, {"RM": "x"}] if keep == "all" else [{}, {}])
    assert [row["prediction"] for row in rows] == [7, None]
    assert rows[1]["error"]["code"] == "not_processed"


def test_failed_rows_come_as_they_were_sent(client, jobs):
    answer = get(client, jobs.batch(*CHUNKS, keep="none"), "errors")
    assert answer.data == (
        b"id,RM,surplus,error\r\n"
        b"d,x,,invalid_number: RM is not a number\r\n"
        b"=e,,,wrong_cell_count: 1 cells where the header has 2\r\n"
        b"f,9,surplus,wrong_cell_count: 3 cells where the header has 2\r\n"
    )


def test_failed_rows_of_an_unended_job_are_409(client, jobs):
    assert get(client, jobs.batch(*CHUNKS, done=2), "errors").json["code"] == "results_not_ready"


def test_no_failed_rows_are_the_header_alone(client, jobs):
    assert get(client, jobs.batch("RM\r\n", [b"7\r\n"]), "errors").data == b"RM,error\r\n"


NDJSON = [b'{"RM":7.50,"id":[1]}\n[8.0]\n', b'{"id":"a,b"}\n[1,2]\n']


def test_json_job_comes_back_as_it_was_sent(client, jobs):
    answer = get(client, jobs.batch("", NDJSON, form="ndjson", extra=["id"]))
    assert answer.content_type == "application/x-ndjson"
    first, *others = answer.data.decode().splitlines()
    assert first == '{"row":1,"input":{"RM":7.50,"id":[1]},"prediction":7.5,"error":null}'
    rows = [json.loads(row) for row in others]
    assert [row["input"] for row in rows] == [{"RM": 8.0}, {"id": "a,b"}, [1, 2]]
    assert [row["error"] and row["error"]["code"] for row in rows] == [None, "missing_value", "wrong_cell_count"]


def test_json_job_as_csv_has_features_then_extra_keys_then_ours(client, jobs):
    job_id = jobs.batch("", NDJSON, form="ndjson", extra=["id"])
    lines = list(csv.reader(io.StringIO(get(client, job_id, Accept="text/csv").text)))
    assert lines[0] == ["RM", "id", "prediction", "error"]
    assert [line[:3] for line in lines[1:]] == [
        ["7.50", "[1]", "7.5"],
        ["8.0", "", "8.0"],
        ["", "a,b", ""],
        ["1", "", ""],
    ]
    errors = list(csv.reader(io.StringIO(get(client, job_id, "errors").text)))
    assert [line[:3] for line in errors] == [["RM", "id", "surplus"], ["", "a,b", ""], ["1", "", "2"]]


def test_classifier_gives_its_probabilities_by_class(client, jobs):
    job_id = jobs.batch("", [b"[1,2,3,4]\n[1,2,3]\n"], form="json", name="iris")
    good, bad = get(client, job_id).json["rows"]
    assert good["prediction"] == "setosa"
    assert good["probabilities"] == {"setosa": 0.5, "versicolor": 0.3, "virginica": 0.2}
    assert (bad["prediction"], bad["probabilities"]) == (None, None)


def test_single_is_one_json_object(client, jobs):
    job_id = jobs.single(SingleResult('{"prediction":29.040}'))
    answer = get(client, job_id)
    assert answer.text == '{"row":1,"input":{"RM":7.50,"note":"=x, y"},"prediction":29.040,"error":null}\n'
    assert answer.content_type == "application/json"
    assert get(client, job_id, Accept="application/x-ndjson").data == answer.data


def test_single_as_csv_has_ranges_too(client, jobs):
    job_id = jobs.single(SingleResult('{"prediction":29.040}'))
    whole = b'RM,note,prediction,error\n7.50,"=x, y",29.040,\n'
    assert get(client, job_id, Accept="text/csv").data == whole
    assert get(client, job_id, Accept="text/csv", Range="bytes=-8").data == whole[-8:]
    escaped = get(client, job_id, query="?escape_formulas=true", Accept="text/csv")
    assert escaped.data == whole.replace(b"=x", b"'=x")
    assert get(client, job_id, "errors").data == b"RM,note,error\n"


def test_single_of_a_classifier_has_its_probabilities(client, jobs):
    result = SingleResult('{"prediction":"b","probabilities":{"a":0.25,"b":0.75}}')
    job_id = jobs.single(result, name="iris", sent='{"error":1}')
    assert get(client, job_id).json["probabilities"] == {"a": 0.25, "b": 0.75}
    assert get(client, job_id, Accept="text/csv").text == (
        "error,prediction,probability_a,probability_b,error_2\n1,b,0.25,0.75,\n"
    )


def test_failed_single_has_its_reason(client, jobs):
    job_id = jobs.single(SingleResult(None, "not_finite", "the prediction is not finite"), name="iris")
    row = get(client, job_id).json
    assert (row["prediction"], row["probabilities"]) == (None, None)
    assert row["error"] == {"code": "not_finite", "column": None, "message": "the prediction is not finite"}
    assert get(client, job_id, "errors").text == (
        'RM,note,error\n7.50,"=x, y",not_finite: the prediction is not finite\n'
    )


def test_canceled_single_was_not_processed(client, jobs):
    job_id = jobs.single("canceled")
    assert get(client, job_id).json["error"]["code"] == "not_processed"
    assert get(client, job_id, "errors").text == "RM,note,error\n"


def test_unended_single_is_409_also_in_part(client, jobs):
    assert get(client, jobs.single(None), query="?partial=true").status_code == 409


def test_another_tenants_job_is_unknown(client, jobs, redis_client):
    job_id = jobs.batch(*CHUNKS)
    redis_client.hset(f"qc:job:{job_id}", "tenant", "other")
    assert get(client, job_id).json["code"] == get(client, "nonsense").json["code"] == "unknown_job"


def test_results_that_have_gone_before_the_first_byte_are_410(client, jobs, api):
    job_id = jobs.batch(*CHUNKS)
    api.store.delete(job_id, TENANT)
    for what in ("results", "errors"):
        answer = get(client, job_id, what)
        assert (answer.status_code, answer.json["code"]) == (410, "job_deleted")


@pytest.mark.parametrize("part", ["rows", "results"])
@pytest.mark.parametrize("form", ["text/csv", "application/x-ndjson", "application/json"])
def test_results_that_are_not_there_are_410_and_no_empty_file(client, jobs, redis_client, form, part):
    job_id = jobs.batch(*CHUNKS)
    redis_client.delete(f"qc:job:{job_id}:{part}")
    answer = get(client, job_id, Accept=form)
    assert (answer.status_code, answer.json["code"]) == (410, "job_expired")


@pytest.mark.parametrize("form", ["text/csv", "application/x-ndjson", "application/json"])
def test_results_that_go_during_the_download_end_it_with_an_error(client, jobs, api, form):
    chunks = [b"%d,%d\r\n" % (index, index) for index in range(5)]
    job_id = jobs.batch("id,RM\r\n", chunks)
    answer = client.get(f"/jobs/{job_id}/results", headers={"Accept": form}, buffered=False)
    pieces = iter(answer.response)
    next(pieces)
    api.store.delete(job_id, TENANT)
    with pytest.raises(ConnectionResetError):
        list(pieces)


@pytest.fixture(scope="module")
def web(store_url, tmp_path_factory):
    """The web process without workers, on the session's store."""
    stack = Stack(tmp_path_factory.mktemp("web"), workers=0, redis_url=store_url).start()
    yield stack
    stack.stop()


def cut_download(web, jobs, form, version):
    """Begins a download of 20 MB, deletes the job when its first byte is there, and reads on."""
    chunk = b"".join(b"%d,%d,%s\r\n" % (row, row, b"x" * 50_000) for row in range(20))
    job_id = jobs.batch("id,RM,pad\r\n", [chunk] * 20)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)) as connection:
        connection._http_vsn, connection._http_vsn_str = round(float(version) * 10), f"HTTP/{version}"
        connection.sock = socket.socket()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)  # or all of it is on its way
        connection.sock.connect(("127.0.0.1", web.port))
        connection.request("GET", f"/jobs/{job_id}/results", headers={"Accept": form})
        answer = connection.getresponse()
        assert answer.read(1)
        jobs.store.delete(job_id, TENANT)
        answer.read()


@pytest.mark.parametrize("form", ["text/csv", "application/x-ndjson", "application/json"])
def test_client_sees_that_a_download_was_cut(web, jobs, form):
    with pytest.raises(http.client.IncompleteRead):
        cut_download(web, jobs, form, "1.1")


def test_client_that_knows_no_chunks_sees_that_a_download_was_cut(web, jobs):
    with pytest.raises(ConnectionResetError):
        cut_download(web, jobs, "application/x-ndjson", "1.0")
