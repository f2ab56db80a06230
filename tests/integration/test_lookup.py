"""What is known of a single prediction that is gone, whichever web process is asked."""

import pytest

from jobs.errors import JobGone, UnknownJob
from jobs.ids import Generation
from jobs.store import Store
from tests.integration.conftest import TENANT


def reason(store, job_id, tenant=TENANT):
    with pytest.raises(JobGone) as gone:
        store.find(job_id, tenant)
    return gone.value.reason


def made(bench, seconds_ago, tenant=TENANT):
    """The id of a single prediction that was made so long ago and is gone."""
    generation = Generation(bench.client.get("qc:generation").decode())
    return generation.new_id(bench.now() // 1000 - seconds_ago, tenant)


@pytest.fixture(params=["made jobs", "made none"])
def store(bench, request):
    """A web process that has made jobs itself, and one that was started since."""
    bench.single()
    return bench.store if request.param == "made jobs" else Store(bench.client, bench.limits)


def test_id_is_remembered_as_long_as_a_tombstone_would_stay(bench, store):
    ttl = bench.limits.tombstone_ttl_seconds
    assert reason(store, made(bench, bench.limits.single_ttl_seconds + 10)) == "job_expired"
    assert reason(store, made(bench, ttl - 10)) == "job_expired"
    with pytest.raises(UnknownJob):
        store.find(made(bench, ttl + 10), TENANT)


def test_job_that_is_gone_before_it_can_have_expired_was_lost(bench, store):
    assert reason(store, made(bench, 10)) == "job_lost"  # the store came back as it was before


def test_id_of_another_tenant_was_never_given_out(bench, store):
    with pytest.raises(UnknownJob):
        store.find(made(bench, 10, "theirs"), TENANT)


def test_id_of_another_life_of_the_store_is_lost_also_to_who_was_there_before(bench, store):
    before = made(bench, 10)
    bench.client.flushdb()
    assert reason(store, before) == "job_lost"
    assert reason(store, before, "another") == "job_lost"


def test_deletion_is_remembered_longer_than_the_id_says(bench, store):
    job, _ = bench.single()
    bench.store.delete(job.id, TENANT)
    assert reason(store, job.id) == "job_deleted"
    with pytest.raises(UnknownJob):
        store.find(job.id, "another")
