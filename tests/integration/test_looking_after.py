"""What whoever asks for a job does for it while no worker is there to sweep."""

import pytest

from jobs.errors import JobGone
from jobs.store import Store

TICKETS = "rq:queue:queuecast"
KEY = "housing@1:abababababab"


@pytest.fixture
def look(bench):
    """Looks after a job as a web process does that has not looked yet."""
    return lambda job_id, limits=None: Store(bench.client, limits or bench.limits).look_after(job_id)


def test_upload_that_nobody_sweeps_is_taken_back_by_whoever_asks_when_two_deadlines_are_over(bench, look):
    upload = bench.batch(close=False)
    deadline = bench.limits.upload_deadline_seconds * 1000
    bench.client.zadd("qc:receiving", {upload.job_id: bench.now() - deadline + 5000})
    look(upload.job_id)
    assert bench.find(upload.job_id).status == "receiving"
    bench.client.zadd("qc:receiving", {upload.job_id: bench.now() - deadline - 1})
    look(upload.job_id)
    with pytest.raises(JobGone) as gone:
        bench.find(upload.job_id)
    assert gone.value.reason == "upload_failed"
    assert bench.client.zcard("qc:receiving") == 0


@pytest.mark.parametrize("kind", ["batch", "single"])
def test_job_that_is_too_old_fails_when_it_is_asked_for(bench, look, kind):
    job_id = bench.batch().job_id if kind == "batch" else bench.single()[0].id
    look(job_id)
    assert not bench.find(job_id).ended
    bench.client.hset(f"qc:job:{job_id}", "created_at", bench.now() - 86_400_001)
    look(job_id)
    job = bench.find(job_id)
    assert (job.status, job.error_code) == ("failed", "deadline_exceeded")
    assert bench.client.llen(f"qc:inbox:{KEY}") == 0


@pytest.mark.parametrize("kind", ["batch", "single"])
def test_job_whose_model_nobody_has_had_for_too_long_fails_when_it_is_asked_for(bench, look, kind):
    job_id = bench.batch().job_id if kind == "batch" else bench.single()[0].id
    look(job_id)
    assert not bench.find(job_id).ended
    bench.client.set(f"qc:unserved:{KEY}", bench.now() - 60_001)
    look(job_id)
    assert not bench.find(job_id).ended  # no worker lives: one may come that has it
    bench.announce("w1", keys=())
    bench.client.set(f"qc:unserved:{KEY}", bench.now() - 60_001)
    look(job_id)
    job = bench.find(job_id)
    assert (job.status, job.error_code) == ("failed", "model_unavailable")
    assert bench.client.llen(f"qc:inbox:{KEY}") == 0


def test_lost_tickets_are_asked_for_and_those_that_wait_are_not(bench, look):
    upload = bench.batch(chunks=1)  # its ticket was never put
    assert look(upload.job_id) == []
    slot = f"qc:job:{upload.job_id}:slots"
    ticket = bench.client.hget(slot, 0).decode().split()[0]
    bench.client.hset(slot, 0, f"{ticket} {bench.now() - 3000}")
    bench.client.rpush(TICKETS, ticket)
    assert look(upload.job_id) == []
    bench.client.delete(TICKETS)
    (asked,) = look(upload.job_id)
    assert (asked.arguments, asked.front) == ((upload.job_id, 0), True)
    assert asked.id != ticket


def test_inbox_of_a_single_is_asked_for_once_its_mark_is_over(bench, look):
    job, _ = bench.single()
    assert look(job.id) == []
    bench.client.delete(f"qc:inbox:{KEY}:mark")
    (asked,) = look(job.id)
    assert asked.arguments == (KEY,)
    assert look(job.id) == []


def test_tickets_for_an_inbox_do_not_pile_up_while_no_worker_takes_them(bench, look):
    job, _ = bench.single()
    bench.client.rpush(TICKETS, "one that waits")
    for _ in range(3):
        bench.client.delete(f"qc:inbox:{KEY}:mark")
        assert look(job.id) == []
    bench.announce("w1")
    assert len(look(job.id)) == 1


def test_leases_and_the_time_of_the_last_sweep_are_left_alone(bench, look):
    upload = bench.batch(chunks=1)
    bench.lease(upload.job_id)
    bench.let_leases_lapse()
    look(upload.job_id)
    assert bench.client.zcard("qc:leases") == 1
    assert bench.client.llen(f"qc:job:{upload.job_id}:waiting") == 0
    assert not bench.client.exists("qc:swept")


def test_nobody_looks_after_jobs_while_somebody_sweeps(bench, look):
    upload = bench.batch()
    bench.client.hset(f"qc:job:{upload.job_id}", "created_at", bench.now() - 86_400_001)
    bench.client.set("qc:swept", bench.now() - 4000)
    look(upload.job_id)
    assert not bench.find(upload.job_id).ended
    bench.client.set("qc:swept", bench.now() - 5100)
    look(upload.job_id)
    assert bench.find(upload.job_id).status == "failed"


def test_job_that_has_ended_or_is_gone_is_left_alone(bench, look):
    upload = bench.batch(chunks=1)
    bench.commit(bench.lease(upload.job_id))
    lives = bench.client.ttl(f"qc:job:{upload.job_id}")
    assert look(upload.job_id) == []
    assert bench.client.ttl(f"qc:job:{upload.job_id}") <= lives
    assert look("a" * 32) == []
    assert not bench.client.exists("qc:job:" + "a" * 32)


def test_one_process_looks_after_a_job_once_in_some_seconds(bench):
    first, second = bench.batch().job_id, bench.batch().job_id
    assert [bench.store.look_after(job_id) is None for job_id in (first, first, second, first)] == [
        False,
        True,
        False,
        True,
    ]
