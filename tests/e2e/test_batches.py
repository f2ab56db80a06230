"""Batches through the real API, store and workers: every record once, in order, byte for byte, rightly predicted."""

import csv
import io
import json
import random

import pytest
from sklearn.datasets import load_diabetes

from jobs.codec.cells import split_cells, split_line_end, split_records, unquote
from models.catalog import Catalog
from models.loading import load
from tests.client import Client

ROWS = 8_000
NOTES = ["plain", '"a, b"', '"say ""hi"""', '"two\r\nlines"', '5" pipe', "é€", '""', ""]


class Table:
    """A seeded CSV for the model `diabetes`: quoted fields, CRLF, other order of columns, extra columns."""

    def __init__(self, rows, seed=7, bad_share=0.0):
        chance = random.Random(seed)
        patients = load_diabetes(scaled=False, as_frame=True).data
        self.features = list(patients.columns)
        columns = self.features[::-1]
        self.header = ["id", *columns[:4], '"note, free"', *columns[4:]]
        self.records, self.errors, self.values = [], {}, []
        pool = patients.to_numpy().tolist()
        for number in range(rows):
            row = dict(zip(self.features, chance.choice(pool), strict=True))
            row["age"] += chance.random()
            texts = {name: repr(value) for name, value in row.items()}
            extra = []
            if chance.random() < bad_share:
                kind = chance.choice(["invalid_number", "missing_value", "wrong_cell_count"])
                self.errors[number] = kind
                if kind == "wrong_cell_count":
                    extra = ["one too many"]
                else:
                    texts[chance.choice(self.features)] = {"invalid_number": "abc", "missing_value": ""}[kind]
            cells = [str(number), *(self._cell(chance, texts[name]) for name in columns)]
            cells.insert(5, chance.choice(NOTES))
            self.records.append(",".join([*cells, *extra]).encode())
            self.values.append([row[name] for name in self.features])

    @staticmethod
    def _cell(chance, text):
        return f'"{text}"' if text and chance.random() < 0.2 else text

    @property
    def body(self):
        return b"\r\n".join([",".join(self.header).encode(), *self.records]) + b"\r\n"

    def expected(self, models_path):
        """What the artifact itself predicts for the rows that are right, by row."""
        manifest = Catalog.read(models_path, "housing").find("diabetes")
        predictor = load(models_path, manifest.name, manifest.version, manifest.sha256)
        good = [number for number in range(len(self.values)) if number not in self.errors]
        predicted = predictor.predict([self.values[number] for number in good])
        return {number: outcome.value for number, outcome in zip(good, predicted, strict=True)}


@pytest.fixture(scope="module")
def table():
    return Table(ROWS)


@pytest.fixture(scope="module")
def client(shared_stack):
    return Client(shared_stack.url)


@pytest.mark.parametrize("keep", ["all", "none", "id"])
def test_results_are_complete_in_order_and_equal_to_the_artifact(client, table, models_path, keep):
    path = client.submit(table.body, f"?model=diabetes&keep={keep}")
    job = client.finished(path)
    assert job["status"] == "succeeded"
    assert job["progress"] | {"rows_per_second": 0} == {
        "rows_total": ROWS,
        "rows_received": ROWS,
        "rows_done": ROWS,
        "rows_ok": ROWS,
        "rows_failed": 0,
        "percent": 100.0,
        "rows_per_second": 0,
        "eta_seconds": None,
    }
    expected = table.expected(models_path)

    results = client.results(path)
    assert job["output"]["bytes"] == len(results)
    header, *records = split_records(results, b",")
    kept = {"all": table.header, "none": [], "id": ["id"]}[keep]
    assert header == ",".join([*kept, "prediction", "error"]).encode() + b"\r\n"
    assert len(records) == ROWS
    for number, (record, sent) in enumerate(zip(records, table.records, strict=True)):
        body, end = split_line_end(record)
        cells = split_cells(body, b",")
        assert end == b"\r\n"
        assert cells[-1] == b""
        assert float(cells[-2]) == expected[number]
        came_out = {"all": body[: -len(cells[-2]) - 2], "none": b"", "id": cells[0]}[keep]
        assert came_out == {"all": sent, "none": b"", "id": str(number).encode()}[keep]

    for number, row in enumerate(client.rows(path)):
        assert row["row"] == number + 1
        assert row["prediction"] == expected[number]
        assert row["error"] is None
        sent = [unquote(cell) for cell in split_cells(table.records[number], b",")]
        names = [unquote(cell.encode()) for cell in table.header]
        sent_cells = dict(zip(names, sent, strict=True))
        assert row["input"] == {"all": sent_cells, "none": {}, "id": {"id": str(number)}}[keep]


def test_bad_rows_carry_their_error_and_can_be_corrected_and_sent_again(client, models_path):
    table = Table(ROWS, seed=11, bad_share=0.01)
    assert set(table.errors.values()) == {"invalid_number", "missing_value", "wrong_cell_count"}
    path = client.submit(table.body, "?model=diabetes")
    job = client.finished(path)
    assert job["status"] == "succeeded"
    assert job["progress"]["rows_failed"] == len(table.errors)
    expected = table.expected(models_path)
    for number, row in enumerate(client.rows(path, "")):
        if number in table.errors:
            assert row["prediction"] is None
            assert row["error"]["code"] == table.errors[number]
        else:
            assert (row["prediction"], row["error"]) == (expected[number], None)

    answer = client.get(f"{path}/errors")
    failed = list(csv.DictReader(io.StringIO(answer.body.decode(), newline="")))
    assert [int(row["id"]) for row in failed] == sorted(table.errors)
    assert [row["error"].split(":")[0] for row in failed] == [table.errors[number] for number in sorted(table.errors)]
    assert {row["surplus"] for row in failed} == {"", "one too many"}

    corrected = io.StringIO(newline="")
    writer = csv.DictWriter(corrected, failed[0].keys())
    writer.writeheader()
    for row in failed:
        right = dict(zip(table.features, map(repr, table.values[int(row["id"])]), strict=True))
        writer.writerow({**row, **right})
    again = client.submit(corrected.getvalue().encode(), "?model=diabetes&keep=id")
    assert client.finished(again)["progress"]["rows_ok"] == len(table.errors)
    everything = Table(ROWS, seed=11, bad_share=0.01)
    everything.errors = {}
    predicted = everything.expected(models_path)
    for row in client.rows(again):
        assert row["prediction"] == predicted[int(row["input"]["id"])]


def test_both_workers_take_part_in_a_batch(stack):
    own = stack(workers=2, LOG_LEVEL="DEBUG")
    client = Client(own.url)
    client.finished(client.submit(Table(4_000).body, "?model=diabetes"))
    logs = [worker.log.read_text() for worker in own.workers]
    assert all("committed chunk" in log for log in logs)


def test_batches_and_singles_submitted_together_all_progress(client):
    slow = b"x\n" + b"1\n" * 6_000  # some three seconds of two workers
    first, second = client.submit(slow, "?model=slow"), client.submit(slow, "?model=slow")
    singles = [client.submit(json.dumps({"input": 7}), type="application/json") for _ in range(10)]
    for path in singles:
        assert client.finished(path, 10)["status"] == "succeeded"
    jobs = [client.job(path) for path in (first, second)]
    assert [job["ended_at"] for job in jobs] == [None, None], "the batches were over before the singles"
    ended = [client.finished(path) for path in (first, second)]
    assert ended[1]["started_at"] < ended[0]["ended_at"]
