"""Slices of time with a real store and a real predictor, stopped or robbed of something in the middle."""

import json
import logging
import os
import threading
from time import sleep

import pytest
from process import ROOT

from jobs.codec.layout import plan
from jobs.errors import StoreAway
from jobs.inbox_intake import SmallBatch
from jobs.leases import Leases, SearchStep
from jobs.record import ModelVersion
from models.catalog import Catalog
from tests.integration.conftest import Bench
from tests.waiting import wait_until
from tests.zoo.estimators import Identity, write
from tests.zoo.greedy import Leaks
from worker.child import Child, scrub
from worker.duty import Duty
from worker.rounds import Rounds
from worker.served import Served
from worker.slice import Slices
from worker.suspects import Suspects

LAYOUT = plan(format="csv", names=("x",), features=("x",), classes=None, has_probabilities=False)
JSON_LAYOUT = plan(format="json", names=("x",), features=("x",), classes=None, has_probabilities=False)


class WatchedLeases(Leases):
    """Leases that say when something was committed or died of, and fail to hand back while `away`."""

    away = False

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.committed = lambda: None
        self.noted = lambda: None
        self.rung = []  # whether the bell was, each time that somebody listened
        self.answered = []  # single predictions by id, in the order of their ends

    def commit(self, *arguments):
        taken = super().commit(*arguments)
        self.committed()
        return taken

    def hear_bell(self, *arguments):
        self.rung.append(super().hear_bell(*arguments))
        return self.rung[-1]

    def commit_singles(self, token, results):
        super().commit_singles(token, results)
        self.answered += results

    def note_singles(self, *arguments):
        super().note_singles(*arguments)
        self.noted()

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
        self.served = Served(self.catalog)
        self.rounds = Rounds(self.leases, self.bench.tickets, "w1", self.served, 1)
        self.duty = Duty(self.leases, self.rounds, 10)
        self.child = Child(models_path, scrub({**os.environ, "PYTHONPATH": str(ROOT)}), 1 << 30)
        self.slices = Slices(
            leases=self.leases,
            tickets=self.bench.tickets,
            child=self.child,
            served=self.served,
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

    def single(self, model, x=1):
        return self.bench.store.intake.accept_single("public", self.model(model), f'{{"x":{x}}}')[0].id

    def small_batch(self, model, rows=3):
        chunk = b"".join(b'{"x":%d}\n' % row for row in range(rows))
        batch = SmallBatch(chunk, rows, row_bytes=20.0, most_seconds=0.1, unmeasured_rows=128)
        return self.bench.store.intake.accept_batch("public", self.model(model), JSON_LAYOUT, batch)[0].id

    def model(self, name):
        manifest = self.catalog.find(name)
        return ModelVersion(manifest.name, manifest.version, manifest.sha256)

    def work_on_inbox(self, model):
        """A slice under the ticket that is on its way to the inbox."""
        mark = self.bench.client.get(f"qc:inbox:{self.model(model).key}:mark")
        self.slices.work_on_inbox(self.model(model).key, mark.decode() if mark else "t")

    def inbox(self, model):
        """The keys of an inbox that are there, without its own name."""
        name = f"qc:inbox:{self.model(model).key}"
        return {key.decode().removeprefix(name) for key in self.bench.client.keys(name + "*")}

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


def test_chunk_that_was_disturbed_once_is_left_alone_when_it_was_asked_for_ahead_too(worker):
    job_id = worker.batch("slow", *[100] * 4)
    worker.bench.client.hset(f"qc:job:{job_id}", mapping={"disturbed:2": 1, "disturbed:3": 1})
    commits = []

    def poison():
        commits.append(1)
        if len(commits) == 2:  # the third chunk is being predicted already
            worker.single("exits", -1)
            sleep(0.05)

    worker.leases.committed = poison
    while worker.bench.find(job_id).status != "succeeded":
        worker.work(job_id)
    assert len(commits) == 4
    assert worker.attempts(job_id) == []


def test_neighbours_of_a_poison_single_are_answered_before_it(worker):
    poison = worker.single("exits", -1)
    neighbours = [worker.single("exits", x) for x in range(16)]
    worker.slices.work_on_inbox(worker.model("exits").key, "t")
    assert worker.leases.answered[-1] == poison
    assert sorted(worker.leases.answered) == sorted([*neighbours, poison])
    assert worker.bench.find(poison).error_code == "worker_crashed"


def test_single_that_comes_while_a_poison_one_is_searched_for_does_not_wait_for_the_end_of_the_search(worker):
    newcomers = []

    def come():
        if not newcomers:
            newcomers.append(worker.single("exits"))

    worker.leases.noted = come
    poison = worker.single("exits", -1)
    worker.slices.work_on_inbox(worker.model("exits").key, "t")
    assert worker.leases.answered == [*newcomers, poison]


def load_first(worker, model):
    """Has the model loaded, which may take longer than a slice, or a mark, on a busy machine."""
    worker.single(model)
    worker.work_on_inbox(model)
    worker.leases.answered.clear()
    worker.leases.rung.clear()


def lingered(worker, monkeypatch, come):
    """What the model's worker answered first, and what came while it lingered behind that."""
    load_first(worker, "identity")
    monkeypatch.setattr("worker.slice.LINGER_SECONDS", 2.0)
    first, late = worker.single("identity"), []

    def come_late():
        wait_until(lambda: worker.leases.answered == [first], 30, "the first is not answered")
        late.append(come())

    comer = threading.Thread(target=come_late)
    comer.start()
    worker.work_on_inbox("identity")
    comer.join()
    assert worker.leases.rung == [True, False]
    return first, *late


def test_worker_that_lingers_takes_what_comes_without_another_ticket(worker, monkeypatch):
    def come():
        return worker.bench.store.intake.accept_single("public", worker.model("identity"), '{"x":2}')

    first, (job, tickets) = lingered(worker, monkeypatch, come)
    assert tickets == []
    assert worker.leases.answered == [first, job.id]
    assert worker.inbox("identity") == set()


def test_small_batch_that_comes_while_a_worker_lingers_is_taken_too(worker, monkeypatch):
    _, late = lingered(worker, monkeypatch, lambda: worker.small_batch("identity"))
    assert worker.bench.find(late).status == "succeeded"


def test_what_is_held_is_renewed_however_often_something_else_is_held_too(worker):
    job_id = worker.batch("identity", 3)
    chunk, other = (worker.leases.lease(each, 0, "t").lease for each in (job_id, worker.batch("identity", 3)))
    worker.duty.hold([chunk])
    begun = worker.bench.client.zscore("qc:leases", f"{job_id} 0")

    def is_renewed():
        worker.duty.hold([other])
        worker.duty.tick()
        worker.duty.release([other])
        return worker.bench.client.zscore("qc:leases", f"{job_id} 0") > begun

    wait_until(is_renewed, 3, "it is not renewed")


@pytest.mark.parametrize("kind", ["chunk", "single"])
def test_what_no_process_can_be_started_for_is_handed_back_at_once(worker, monkeypatch, kind):
    job_id = worker.batch("exits", 3) if kind == "chunk" else worker.single("exits")
    for other in ("w2", "w3"):  # lost over the chunk: it is searched, part by part
        if kind == "chunk":
            worker.bench.leases_of(other).lease(job_id, 0, "t")
            worker.bench.let_leases_lapse()
            worker.bench.sweep()

    def no_process(*_):
        raise BlockingIOError("no process can be had")

    monkeypatch.setattr(worker.child, "send", no_process)
    with pytest.raises(BlockingIOError):
        worker.work(job_id) if kind == "chunk" else worker.work_on_inbox("exits")
    assert worker.held() == []
    assert worker.bench.find(job_id).status in ("queued", "running")


def test_singles_whose_model_is_found_missing_while_they_are_divided_are_handed_back(worker):
    job_ids = {worker.single("exits", x) for x in (1, -1, 2)}
    worker.leases.noted = lambda: worker.served.refused(worker.model("exits").key, "model_unavailable", "it is gone")
    worker.work_on_inbox("exits")
    assert worker.held() == []
    leased = worker.bench.leases_of("w2").lease_singles([worker.model("exits").key], 10, "t")
    assert set(leased.inputs) == job_ids


def test_predictor_that_leaks_is_replaced_between_two_chunks_of_one_slice(redis_client, tmp_path, monkeypatch, caplog):
    for name in ("worker.slice.TURN_SECONDS", "worker.chunks.AHEAD_SECONDS"):
        monkeypatch.setattr(name, 60)
    for name, animal in (("identity", Identity()), ("leaks", Leaks())):
        write(tmp_path, name, animal)
    worker = OneWorker(redis_client, tmp_path)
    try:
        job_id = worker.batch("leaks", *[1] * 60)  # 2.4 GB in all
        worker.slices._slice_seconds = 60
        worker.work(job_id)
        assert worker.attempts(job_id) == []
        assert worker.bench.find(job_id).status == "succeeded"
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    finally:
        worker.child.close()


def test_bell_that_was_rung_for_nothing_harms_nothing(worker):
    job_id = worker.single("identity")
    name = f"qc:inbox:{worker.model('identity').key}:bell"
    for _ in range(3):
        worker.bench.client.rpush(name, 1)
    worker.work_on_inbox("identity")
    assert worker.bench.find(job_id).status == "succeeded"
    assert worker.inbox("identity") == set()


def test_bell_that_rings_after_its_single_was_taken_ends_the_lingering_and_nothing_else(worker, monkeypatch):
    job_id = worker.single("identity")
    commit = worker.leases.commit_singles

    def commit_and_ring(*arguments):
        commit(*arguments)
        worker.bench.client.rpush(f"qc:inbox:{worker.model('identity').key}:bell", 1)

    monkeypatch.setattr(worker.leases, "commit_singles", commit_and_ring)
    worker.work_on_inbox("identity")
    assert worker.leases.rung == [True]
    assert worker.leases.answered == [job_id]
    assert worker.inbox("identity") == set()


def test_bell_is_rung_only_for_an_inbox_that_was_empty_and_has_a_ticket(worker):
    bell = f"qc:inbox:{worker.model('identity').key}:bell"
    rung = []
    for accept in (worker.single, worker.single, worker.small_batch, worker.small_batch):
        accept("identity")
        rung.append(worker.bench.client.llen(bell))
        worker.bench.client.delete(bell)
    assert rung == [0, 0, 1, 0]


def test_worker_lingers_where_it_has_found_something_also_after_a_search(worker):
    worker.single("exits", -1)
    worker.slices.work_on_inboxes()
    worker.work_on_inbox("exits")
    assert worker.leases.rung == [False]


def test_singles_come_first_and_small_batches_after_them(worker):
    load_first(worker, "identity")
    batches = [worker.small_batch("identity", rows) for rows in (3, 5)]
    singles = [worker.single("identity") for _ in range(3)]
    worker.work_on_inbox("identity")
    find = worker.bench.find
    ended = [find(job_id) for job_id in batches]
    assert [(job.status, job.rows_ok) for job in ended] == [("succeeded", 3), ("succeeded", 5)]
    assert max(find(job_id).ended_at for job_id in singles) <= ended[0].started_at
    assert ended[0].ended_at <= ended[1].started_at
    assert worker.inbox("identity") == set()
    assert worker.held() == []


def test_chunk_of_poison_alone_does_not_count_against_a_model_that_has_predicted_other_rows(worker, monkeypatch):
    monkeypatch.setattr("worker.suspects.DOUBT", (2,))
    intake = worker.bench.store.intake
    upload = intake.open_batch("public", "csv", worker.model("exits"), LAYOUT)
    for index, rows in enumerate((b"1\n2\n", b"-1\n" * 4)):
        intake.append(upload, index, rows, rows.count(b"\n"))
    intake.close(upload, 2)
    for _ in range(10):
        worker.work(upload.job_id)
    job = worker.bench.find(upload.job_id)
    assert (job.status, job.rows_ok, job.rows_failed) == ("succeeded", 2, 4)
    assert worker.bench.client.hget(f"qc:job:{upload.job_id}", "doubted") in (None, b"0")


def test_single_that_comes_while_a_small_batch_is_worked_on_comes_before_the_next_one(worker):
    batches = [worker.small_batch("identity") for _ in range(2)]
    came = []

    def come():
        if not came:
            came.append(worker.single("identity"))

    worker.leases.committed = come
    for _ in range(10):  # one slice is enough, but for a machine that is busy
        worker.work_on_inbox("identity")
    single, second = worker.bench.find(came[0]), worker.bench.find(batches[1])
    assert (single.status, second.status) == ("succeeded", "succeeded")
    assert single.ended_at <= second.started_at


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_small_batch_that_has_ended_before_its_turn_does_not_hold_up_the_next(worker, end):
    first, second = worker.small_batch("identity"), worker.small_batch("identity")
    getattr(worker.bench.store, end)(first, "public")
    worker.work_on_inbox("identity")
    assert worker.bench.find(second).status == "succeeded"
    assert worker.inbox("identity") == set()


def test_small_batch_whose_place_in_the_inbox_was_lost_ends_by_the_ticket_that_the_sweep_asks_for(worker):
    job_id = worker.small_batch("identity")
    worker.bench.client.delete(f"qc:inbox:{worker.model('identity').key}:batches")
    worker.work_on_inbox("identity")
    assert worker.bench.find(job_id).status == "queued"
    (ticket,) = worker.bench.sweep()
    assert ticket.arguments == (job_id, 0)
    worker.slices.work_on_job(job_id, 0, ticket.id)
    assert worker.bench.find(job_id).status == "succeeded"


def test_small_batch_with_a_poison_row_has_all_its_outcomes(worker):
    chunk = b'{"x":1}\n{"x":-1}\n{"x":3}\n'
    batch = SmallBatch(chunk, 3, row_bytes=20.0, most_seconds=0.1, unmeasured_rows=128)
    job, _ = worker.bench.store.intake.accept_batch("public", worker.model("exits"), JSON_LAYOUT, batch)
    worker.work_on_inbox("exits")
    for _ in range(10):
        if not worker.bench.find(job.id).ended:
            worker.work(job.id)  # by a ticket of the sweep
    ended = worker.bench.find(job.id)
    assert (ended.status, ended.rows_ok, ended.rows_failed) == ("succeeded", 2, 1)


def test_small_batch_of_a_worker_that_stops_is_handed_back_and_no_attempt(worker):
    rows = 120
    chunk = b'{"x":1}\n' * rows
    batch = SmallBatch(chunk, rows, row_bytes=20.0, most_seconds=0.1, unmeasured_rows=128)
    job, _ = worker.bench.store.intake.accept_batch("public", worker.model("grinds"), JSON_LAYOUT, batch)
    worker.stop_after(1.0)
    worker.work_on_inbox("grinds")
    assert worker.held() == []
    found = worker.bench.find(job.id)
    assert (found.status, found.rows_done) == ("running", 0)
    assert all(not counted for _, counted in worker.attempts(job.id))
    assert [ticket.arguments for ticket in worker.bench.sweep()] == [(job.id, 0)]
