"""What the store promises, what it measures, and what it keeps while it is read."""

import pytest

from jobs.errors import StoreFull
from jobs.leases import ChunkResult
from tests.integration.conftest import MODEL

MIB = 1 << 20


@pytest.fixture
def small(bench_with):
    """A store whose jobs may take one MiB more than it has now."""
    used = bench_with().client.info("memory")["used_memory"]
    return bench_with(store_budget_bytes=used + MIB)


def promised(bench):
    return {job_id.decode(): int(amount) for job_id, amount in bench.client.hgetall("qc:promised").items()}


def open_batch(bench, row_bytes=0.0, expected_rows=0):
    facts = ("public", "csv", MODEL, bench.layout())
    return bench.store.intake.open_batch(*facts, row_bytes=row_bytes, expected_rows=expected_rows)


def commit(bench, chunk, seconds=0.0):
    result = ChunkResult(chunk.rows, 0, 10, False, b"result", b"", seconds)
    assert bench.leases.commit(chunk.lease, result, keep_input=False)


def test_batch_whose_results_cannot_fit_is_refused_and_leaves_nothing(small):
    with pytest.raises(StoreFull):
        open_batch(small, row_bytes=10, expected_rows=MIB)
    assert small.client.keys("qc:job:*") == []
    assert small.client.keys("qc:tombstone:*") == []
    assert promised(small) == {}


def test_what_is_promised_to_one_batch_is_not_there_for_another(small):
    open_batch(small, row_bytes=1, expected_rows=MIB * 6 // 10)
    with pytest.raises(StoreFull):
        open_batch(small, row_bytes=1, expected_rows=MIB * 6 // 10)


def test_chunk_without_room_changes_nothing_and_is_taken_later(small):
    upload = open_batch(small, row_bytes=1)
    with pytest.raises(StoreFull):
        small.store.intake.append(upload, 0, b"blob", 2 * MIB)
    job = small.find(upload.job_id)
    assert (job.rows_received, job.chunks_received) == (0, 0)
    small.store.intake.append(upload, 0, b"blob", 5)
    assert small.find(upload.job_id).rows_received == 5


def test_results_of_a_body_of_unknown_length_are_promised_chunk_by_chunk(bench):
    upload = open_batch(bench, row_bytes=10)
    for index in range(3):
        bench.store.intake.append(upload, index, b"blob", 100)
    assert promised(bench) == {upload.job_id: 3000}
    commit(bench, bench.lease(upload.job_id))
    assert promised(bench) == {upload.job_id: 2000}


def test_promise_for_rows_that_did_not_come_is_free_after_the_close(bench):
    upload = open_batch(bench, row_bytes=10, expected_rows=1000)
    bench.store.intake.append(upload, 0, b"blob", 100)
    assert promised(bench) == {upload.job_id: 10_000}
    bench.store.intake.close(upload, 1)
    assert promised(bench) == {upload.job_id: 1000}


@pytest.mark.parametrize("end", ["commit", "cancel", "delete", "take_back"])
def test_promise_ends_with_the_job(bench, end):
    upload = open_batch(bench, row_bytes=10, expected_rows=1000)
    bench.store.intake.append(upload, 0, b"blob", 100)
    if end == "commit":
        bench.store.intake.close(upload, 1)
        commit(bench, bench.lease(upload.job_id))
    elif end == "take_back":
        bench.store.intake.take_back(upload)
    else:
        getattr(bench.store, end)(upload.job_id, "public")
    assert promised(bench) == {}


def test_single_is_refused_when_the_store_is_full_and_accepted_when_it_is_not(bench_with, small):
    small.single()
    full = bench_with(store_budget_bytes=1)
    with pytest.raises(StoreFull):
        full.single()


def test_store_without_a_limit_takes_everything(bench):
    assert open_batch(bench, row_bytes=1000, expected_rows=10**12)


def test_own_limit_of_the_store_counts_when_no_budget_is_set(bench):
    bench.client.config_set("maxmemory", bench.client.info("memory")["used_memory"] + 2 * MIB)
    try:
        with pytest.raises(StoreFull) as caught:
            open_batch(bench, row_bytes=1, expected_rows=100 * MIB)
    finally:
        bench.client.config_set("maxmemory", 0)
    assert caught.value.needed_bytes == 100 * MIB
    assert caught.value.free_bytes < 2 * MIB


def test_backlog_is_what_waits_or_is_worked_on(bench):
    upload = open_batch(bench)
    assert bench.store.intake.append(upload, 0, b"x" * 100, 1).backlog_bytes == 100
    assert bench.store.intake.append(upload, 1, b"x" * 50, 1).backlog_bytes == 150
    commit(bench, bench.lease(upload.job_id))
    assert bench.store.intake.append(upload, 2, b"x" * 10, 1).backlog_bytes == 60


def test_speed_of_a_model_is_measured_and_followed(bench):
    upload = open_batch(bench)
    assert bench.store.intake.append(upload, 0, b"blob", 100).rows_per_second is None
    commit(bench, bench.lease(upload.job_id), seconds=0.5)
    assert bench.store.intake.append(upload, 1, b"blob", 100).rows_per_second == pytest.approx(200)
    commit(bench, bench.lease(upload.job_id), seconds=0.1)
    assert bench.store.intake.append(upload, 2, b"blob", 100).rows_per_second == pytest.approx(0.7 * 200 + 0.3 * 1000)


def test_time_that_tells_nothing_of_the_model_is_not_learnt(bench):
    upload = open_batch(bench)
    bench.store.intake.append(upload, 0, b"blob", 100)
    commit(bench, bench.lease(upload.job_id), seconds=0.0)
    assert bench.store.intake.append(upload, 1, b"blob", 100).rows_per_second is None


def test_queue_knows_seconds_of_work_from_the_measured_speed(bench):
    upload = open_batch(bench)
    bench.store.intake.append(upload, 0, b"blob", 100)
    assert bench.store.queue_state().seconds is None
    commit(bench, bench.lease(upload.job_id), seconds=0.5)
    bench.store.intake.append(upload, 1, b"blob", 1000)
    assert bench.store.queue_state().seconds == pytest.approx(5)


def test_pace_of_a_batch_is_that_of_the_last_seconds(bench):
    upload = open_batch(bench)
    for index in range(2):
        bench.store.intake.append(upload, index, b"blob", 1000)
    first = bench.lease(upload.job_id)
    start = bench.now()
    bench.client.hset(f"qc:job:{upload.job_id}", "started_at", start - 60_000)
    commit(bench, first)
    job = bench.find(upload.job_id)
    # All its rows came just now, so over the last five seconds it did two hundred a second, not one thousand in sixty.
    assert job.rows_per_second(bench.now()) == pytest.approx(200, rel=0.05)
    assert job.rows_per_second(bench.now() + 20_000) < 10


def test_download_keeps_an_ended_job_from_expiring(bench_with):
    bench = bench_with(results_ttl_seconds=5)
    upload = bench.batch(chunks=1)
    commit(bench, bench.lease(upload.job_id))
    assert bench.store.hold(upload.job_id, 300)
    for key in bench.client.keys(f"qc:job:{upload.job_id}*"):
        assert bench.client.ttl(key) > 200
    job = bench.find(upload.job_id)
    assert job.expires_at == pytest.approx(bench.now() + 300_000, abs=2000)


def test_hold_never_shortens_a_life_nor_brings_a_job_back(bench):
    upload = bench.batch(chunks=1)
    commit(bench, bench.lease(upload.job_id))
    before = bench.find(upload.job_id).expires_at
    bench.store.hold(upload.job_id, 10)
    assert bench.find(upload.job_id).expires_at == before
    bench.store.delete(upload.job_id, "public")
    assert not bench.store.hold(upload.job_id, 10)
    assert bench.client.keys(f"qc:job:{upload.job_id}*") == []
