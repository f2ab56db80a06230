"""Slices of time with a real store and a real predictor, stopped or robbed of something in the middle."""

import json
import os
import threading

import pytest
from process import ROOT

from jobs.codec.layout import plan
from jobs.errors import StoreAway
from jobs.leases import Leases, SearchStep
from jobs.record import ModelVersion
from models.catalog import Catalog
from tests.integration.conftest import Bench
from worker.child import Child, scrub
from worker.duty import Duty
from worker.rounds import Rounds
from worker.served import Served
from worker.slice import Slices
from worker.suspects import Suspects

LAYOUT = plan(format="csv", names=("x",), features=("x",), classes=None, has_probabilities=False)


class WatchedLeases(Leases):
    """Leases that say when something was committed, and fail to hand back while `away`."""

    away = False

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.committed = lambda: None

    def commit(self, *arguments):
        taken = super().commit(*arguments)
        self.committed()
        return taken

    def give_back(self, *arguments):
        if self.away:
            raise StoreAway("away just now")
        super().give_back(*arguments)


class OneWorker:
    """A worker without RQ."""

    def __init__(self, client, models_path):
        self.bench = Bench(client)
        self.catalog = Catalog.read(models_path, "identity")
        self.leases = WatchedLeases(client, self.bench.limits, "w1")
        served = Served(self.catalog)
        self.rounds = Rounds(self.leases, self.bench.tickets, "w1", served, 1)
        self.duty = Duty(self.leases, self.rounds, 10)
        self.child = Child(models_path, scrub({**os.environ, "PYTHONPATH": str(ROOT)}), 1 << 30)
        self.slices = Slices(
            leases=self.leases,
            tickets=self.bench.tickets,
            child=self.child,
            served=served,
            duty=self.duty,
            slice_seconds=5,
            max_load_attempts=3,
        )
        self.rounds.turn()

    def batch(self, model, *chunks):
        upload = self.bench.store.intake.open_batch("public", "csv", self.model(model), LAYOUT)
        for index, rows in enumerate(chunks):
            self.bench.store.intake.append(upload, index, b"".join(b"%d\n" % row for row in range(rows)), rows)
        self.bench.store.intake.close(upload, len(chunks))
        return upload.job_id

    def single(self, model):
        return self.bench.store.intake.accept_single("public", self.model(model), '{"x":1}')[0].id

    def model(self, name):
        manifest = self.catalog.find(name)
        return ModelVersion(manifest.name, manifest.version, manifest.sha256)

    def work(self, job_id):
        self.slices.work_on_job(job_id, 0, "t")

    def stop_after(self, seconds):
        threading.Timer(seconds, self.duty.stop).start()

    def attempts(self, job_id):
        key = f"qc:job:{job_id}:attempts"
        return [(each["reason"], each["counted"]) for each in map(json.loads, self.bench.client.lrange(key, 0, -1))]

    def held(self):
        return self.bench.client.zrange("qc:leases", 0, -1)


@pytest.fixture
def worker(redis_client, models_path):
    one = OneWorker(redis_client, models_path)
    yield one
    one.child.close()


def test_stop_between_two_chunks_hands_back_the_one_that_was_asked_for_ahead(worker):
    job_id = worker.batch("identity", *[100] * 6)

    def once():
        worker.leases.committed = lambda: None
        for _ in range(30):
            worker.single("grinds")
        worker.slices._looked_at = 0.0
        worker.stop_after(1.0)

    worker.leases.committed = once
    worker.work(job_id)
    assert worker.held() == []
    assert worker.bench.find(job_id).status == "running"


def test_stop_while_the_store_is_away_counts_no_attempt(worker):
    job_id = worker.batch("slow", 3_000)
    worker.leases.away = True
    worker.stop_after(1.0)
    worker.work(job_id)
    worker.rounds.become("gone")
    worker.bench.let_leases_lapse()
    worker.bench.sweep()
    assert worker.bench.lease_as("w2", job_id).losses == 0
    assert worker.attempts(job_id) == [("shutdown", False)]


def test_stop_during_work_without_tickets_is_no_error(worker):
    for _ in range(30):
        worker.single("grinds")
    worker.stop_after(1.0)
    worker.slices.work_without_tickets()
    assert worker.held() == []


def test_model_that_cannot_be_loaded_fails_its_job_also_when_the_worker_died_before_it_could_say_so(worker):
    job_id = worker.batch("identity", 10)
    chunk = worker.bench.lease(job_id)
    suspects = Suspects.begin(10)
    suspects.loads = 3
    worker.leases.keep_search(chunk.lease, SearchStep(suspects.to_json(), reason="crashed"))
    worker.leases.give_back([chunk.lease])
    worker.work(job_id)
    assert worker.bench.find(job_id).error_code == "model_load_failed"


def test_part_that_is_missing_is_predicted_again(worker):
    job_id = worker.batch("identity", 10)
    chunk = worker.bench.lease(job_id)
    worker.leases.keep_search(chunk.lease, SearchStep(Suspects([]).to_json()))
    worker.leases.give_back([chunk.lease])
    for _ in range(4):  # starting a predictor may take a slice
        worker.work(job_id)
    job = worker.bench.find(job_id)
    assert (job.status, job.rows_ok) == ("succeeded", 10)


def test_search_takes_a_step_also_in_a_slice_that_is_over_at_once(worker):
    job_id = worker.batch("identity", 10)
    chunk = worker.bench.lease(job_id)
    worker.leases.keep_search(chunk.lease, SearchStep(Suspects.begin(10).to_json()))
    worker.leases.give_back([chunk.lease])
    worker.slices._slice_seconds = 0
    for _ in range(4):
        worker.work(job_id)
    assert worker.bench.find(job_id).status == "succeeded"


def test_chunk_that_nobody_can_read_fails_its_job_and_does_not_kill(worker):
    job_id = worker.batch("identity", 10)
    worker.bench.client.hset(f"qc:job:{job_id}:inputs", "0", b"\x28\xb5\x2f\xfd cut short")
    worker.work(job_id)
    assert worker.bench.find(job_id).error_code == "record_count_differs"
    assert worker.attempts(job_id) == []


def test_poison_singles_do_not_keep_a_chunk_from_its_end(worker):
    job_id = worker.batch("slow", 1_500)
    ends = threading.Event()

    def poison():
        while not ends.wait(0.5):
            worker.bench.store.intake.accept_single("public", worker.model("exits"), '{"x":-1}')

    thread = threading.Thread(target=poison)
    thread.start()
    try:
        for _ in range(4):
            worker.work(job_id)
    finally:
        ends.set()
        thread.join()
    job = worker.bench.find(job_id)
    assert (job.status, job.rows_ok) == ("succeeded", 1_500)
    assert set(worker.attempts(job_id)) == {("crashed", True)}
