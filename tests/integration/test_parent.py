"""The worker's parent and RQ: what RQ forgets, and what it says, when the store misbehaves."""

import logging
import sys
from urllib.parse import urlsplit

import pytest
import redis
from rq import Worker

from jobs.connection import patience, ticket_client
from jobs.errors import StoreAway
from jobs.leases import Leases
from models.catalog import Catalog
from tests.integration.conftest import MODEL
from tests.proxy import Proxy
from worker.child import Child
from worker.duty import Duty
from worker.parent import Parts, TicketWorker, keep_working
from worker.rounds import Rounds
from worker.served import Served
from worker.slice import Slices


@pytest.fixture
def parts(bench, models_path):
    """What a worker is made of; its predictor is never started."""
    served = Served(Catalog.read(models_path, "housing"))
    leases = Leases(bench.client, bench.limits, "w1")
    rounds = Rounds(leases, bench.tickets, "w1", served, sweep_seconds=2)
    duty = Duty(leases, rounds, lease_seconds=7)
    child = Child(models_path, {}, 0)
    slices = Slices(
        leases=leases,
        tickets=bench.tickets,
        child=child,
        served=served,
        duty=duty,
        slice_seconds=1,
        max_load_attempts=3,
    )
    return Parts(slices, rounds, duty, child)


@pytest.fixture
def worker(store_url, parts):
    with ticket_client(store_url) as client:
        yield TicketWorker(client, "w1.1", parts)


def test_worker_that_an_empty_store_forgot_is_listed_again(bench, worker):
    worker.register_birth()
    assert Worker.count(connection=bench.client) == 1
    bench.client.flushdb()
    super(TicketWorker, worker).heartbeat()  # leaves a part of its hash
    assert Worker.count(connection=bench.client) == 0
    worker.run_maintenance_tasks()
    (listed,) = Worker.all(connection=bench.client)
    assert (listed.name, listed.birth_date is not None) == ("w1.1", True)
    assert 0 < bench.client.ttl(worker.key) <= 17 + 60
    worker.run_maintenance_tasks()
    assert Worker.count(connection=bench.client) == 1


def test_worker_that_was_killed_while_it_cleared_up_keeps_others_from_it_for_a_minute_only(bench, worker):
    worker.register_birth()
    key = worker.queues[0].registry_cleaning_key
    assert worker.queues[0].acquire_maintenance_lock()
    worker.run_maintenance_tasks()
    lives = bench.client.ttl(key)
    assert 0 < lives <= 60
    bench.client.expire(key, 30)
    worker.run_maintenance_tasks()
    assert 0 < bench.client.ttl(key) <= 30


def test_failed_tickets_are_forgotten_by_the_clock_of_the_store_whoever_clears_up_just_then(bench, worker):
    worker.register_birth()
    failed = worker.queues[0].failed_job_registry
    now = bench.now() // 1000
    bench.client.zadd(failed.key, {"over": now, "not yet": now + 30, "by a fast clock": now + 360})
    assert worker.queues[0].acquire_maintenance_lock()  # by a worker whose clock is late, say
    worker.run_maintenance_tasks()
    assert bench.client.zrange(failed.key, 0, -1) == [b"not yet"]


def test_worker_that_can_start_no_process_goes_on_trying(bench, store_url, parts, monkeypatch, caplog):
    upload = bench.batch(chunks=1)
    parts.rounds._served._versions[MODEL.key] = MODEL
    tries = []

    def no_process(*_):
        tries.append(1)
        if len(tries) == 5:
            parts.duty.stop()
        raise BlockingIOError("no process can be had")

    monkeypatch.setattr(parts.child._nursery, "fork", no_process)
    keep_working(lambda: ticket_client(store_url), "w1", parts)
    assert len(tries) >= 5
    assert bench.find(upload.job_id).status == "running"
    assert bench.client.zcard("qc:leases") == 0
    assert "a slice ended early: no process can be had" in caplog.messages


def test_error_of_the_store_is_one_line_of_rqs_and_a_defect_keeps_its_traceback(worker, caplog):
    with caplog.at_level(logging.ERROR, "rq.worker"):
        for error in (redis.OutOfMemoryError("no 100% room"), ValueError("a defect")):
            try:
                raise error
            except (redis.RedisError, ValueError):
                worker.log.error("Worker %s: found", worker.name, exc_info=sys.exc_info())
    of_store, defect = caplog.records
    assert of_store.getMessage() == "Worker w1.1: found (no 100% room)"
    assert of_store.exc_info is None
    assert isinstance(defect.exc_info[1], ValueError)


def test_unforeseen_error_at_the_inboxes_is_logged_by_its_type_and_the_popped_ticket_is_not_dropped(
    bench, worker, parts, caplog
):
    (model_key,) = [key for key in parts.rounds._served.keys if key.startswith("housing@")]
    bench.client.sadd("qc:inboxes", model_key)
    bench.client.set(f"qc:inbox:{model_key}", "no list at all")
    with caplog.at_level(logging.ERROR, "worker.parent"):
        worker.reorder_queues(worker.queues[0])
    assert caplog.messages == ["could not work on the inboxes: ResponseError"]
    assert worker._holds_ticket


def test_ticket_that_nobody_has_popped_does_not_stay_for_ever(bench):
    upload = bench.batch(chunks=1)
    bench.client.delete(f"qc:job:{upload.job_id}:slots")
    bench.client.set("qc:swept", 1)
    (ticket,) = bench.leases.sweep(0)
    bench.tickets.put([ticket])
    assert 0 < bench.client.ttl(f"rq:job:{ticket.id}") <= 7 * 24 * 3600


def test_worker_that_has_to_stop_does_not_wait_for_rqs_farewell_to_a_store_that_let_it_wait(bench, store_url, parts):
    port = urlsplit(store_url).port
    with (
        Proxy("127.0.0.1", port) as proxy,
        ticket_client(store_url.replace(f":{port}/", f":{proxy.port}/")) as client,
    ):
        worker = TicketWorker(client, "w1.1", parts)
        worker.register_birth()
        proxy.stall()
        parts.duty.stop()
        patience.note(3, answered=False)  # one of our own calls was let wait
        with pytest.raises(redis.TimeoutError, match="any longer"):
            worker.register_death()
        with pytest.raises(StoreAway, match="too slow"):
            parts.rounds._leases.unended_batches()
