"""Retried jobs in the store: what is copied, what is to do, what is counted."""

import pytest

from jobs.codec.patch import Patch
from jobs.errors import JobGone, StoreFull, UploadRefused
from jobs.inbox_leases import SingleResult
from jobs.leases import ChunkResult
from jobs.status import Status
from tests.integration.conftest import MODEL, TENANT

MIB = 1 << 20


def hand_in(bench, job_id, failed=0, result=b"result", keep_input=False):
    chunk = bench.lease(job_id)
    failures = b"failures" if failed else b""
    outcome = ChunkResult(3 - failed, failed, 10, bool(failed), result, failures)
    assert bench.leases.commit(chunk.lease, outcome, keep_input)
    return int(chunk.lease.index)


def ended(bench, failed=(), chunks=3, keep_input=False):
    """A batch of chunks of three rows; `failed` has the failed rows of those that were done before it was canceled."""
    upload = bench.batch(chunks)
    for index, rows in enumerate(failed):
        assert hand_in(bench, upload.job_id, rows, b"result %d" % index, keep_input) == index
    job = bench.find(upload.job_id)
    return job if job.ended else bench.store.cancel(upload.job_id, TENANT)


def opened(bench, job, rows="both"):
    upload = bench.store.intake.open_retry(job)
    bench.store.intake.copy_chunks(upload, job, range(job.chunks_received), rows)
    return upload


def retried(bench, job, rows="both"):
    return bench.store.intake.close(opened(bench, job, rows), job.chunks_received)


def waiting(bench, job):
    return [int(index) for index in bench.client.lrange(f"qc:job:{job.id}:waiting", 0, -1)]


def counters(job):
    return job.rows_ok, job.rows_failed, job.rows_unreached, job.rows_total


def test_unreached_rows_are_to_do_and_finished_ones_are_copied(bench):
    old = ended(bench, failed=[0, 0])
    job = retried(bench, old)
    assert (job.status, job.retry_of, job.kind, job.form) == (Status.QUEUED, old.id, "batch", "csv")
    assert (job.model, job.layout, job.tenant) == (old.model, old.layout, old.tenant)
    assert waiting(bench, job) == [2]
    assert counters(job) == (6, 0, 3, 9)
    assert (job.prefix, job.csv_bytes) == (2, 20)
    assert bench.store.result(job.id, 1) == b"result 1"
    assert bench.lease(job.id).blob == bench.store.input(old.id, 2)


def test_last_commit_ends_it_and_the_old_job_is_as_it_was(bench):
    old = ended(bench, failed=[0])
    before = bench.find(old.id)
    job = retried(bench, old)
    hand_in(bench, job.id)
    hand_in(bench, job.id)
    job = bench.find(job.id)
    assert (job.status, counters(job), job.prefix) == (Status.SUCCEEDED, (9, 0, 0, 9), 3)
    assert bench.find(old.id) == before
    bench.store.delete(old.id, TENANT)
    assert bench.store.result(job.id, 0) == b"result 0"


def test_failed_rows_are_to_do_with_what_they_are_merged_into(bench):
    old = ended(bench, failed=[0, 1, 3])
    job = retried(bench, old, "failed")
    assert waiting(bench, job) == [1, 2]
    assert bench.store.patch(job.id, 0) is None
    assert bench.store.patch(job.id, 1) == Patch("failed", b"result 1", b"failures")
    assert counters(job) == (5, 0, 4, 9)
    for index in (1, 2):
        hand_in(bench, job.id, failed=1)
        assert bench.store.patch(job.id, index) is None
    job = bench.find(job.id)
    assert (job.status, counters(job), job.csv_bytes) == (Status.SUCCEEDED, (7, 2, 0, 9), 30)


def test_rows_that_are_patched_teach_nothing_of_the_speed_of_the_model(bench):
    job = retried(bench, ended(bench, failed=[1], chunks=1))
    chunk = bench.lease(job.id)
    before = bench.client.get(f"qc:rate:{job.model.key}")
    assert bench.leases.commit(chunk.lease, ChunkResult(3, 0, 10, False, b"result", b"", 0.5), False)
    assert bench.client.get(f"qc:rate:{job.model.key}") == before
    assert bench.find(job.id).pace == pytest.approx(1 / 5)  # one row in the five seconds that pace looks back


def test_failed_rows_stay_as_they_are_when_only_unprocessed_ones_are_wanted(bench):
    job = retried(bench, ended(bench, failed=[0, 2]), "unprocessed")
    assert waiting(bench, job) == [2]
    assert counters(job) == (4, 2, 3, 9)
    assert job.has_surplus
    assert bench.store.failures(job.id, 1) == b"failures"


def test_unreached_rows_stay_unreached_when_only_failed_ones_are_wanted(bench):
    job = retried(bench, ended(bench, failed=[1]), "failed")
    assert waiting(bench, job) == [0]
    assert (counters(job), job.rows_to_do) == ((2, 0, 7, 9), 1)
    assert bench.store.queue_state().rows == 1
    hand_in(bench, job.id)
    job = bench.find(job.id)
    assert (job.status, counters(job)) == (Status.SUCCEEDED, (3, 0, 6, 9))
    assert bench.store.input(job.id, 2) is not None


def test_all_rows_of_a_csv_are_to_do_from_the_results_that_kept_them(bench):
    job = retried(bench, ended(bench, failed=[0, 1]), "all")
    assert waiting(bench, job) == [0, 1, 2]
    assert bench.store.patch(job.id, 0) == Patch("all", b"result 0", b"")
    assert bench.store.patch(job.id, 1) == Patch("all", b"result 1", b"failures")
    assert bench.store.patch(job.id, 2) is None
    assert counters(job) == (0, 0, 9, 9)


def test_all_rows_are_to_do_from_inputs_where_they_were_kept(bench):
    job = retried(bench, ended(bench, failed=[1], chunks=1, keep_input=True), "all")
    assert bench.store.patch(job.id, 0) is None
    assert bench.lease(job.id).blob


def test_backlog_is_empty_when_inputs_that_stay_are_done(bench):
    job = retried(bench, ended(bench, failed=[1, 0], keep_input=True))
    assert int(bench.client.hget(f"qc:job:{job.id}", "backlog")) > 0
    for _ in range(2):
        hand_in(bench, job.id, keep_input=True)
    assert bench.client.hget(f"qc:job:{job.id}", "backlog") == b"0"
    assert bench.store.input(job.id, 0) == bench.store.input(job.id, 1)


def test_canceled_retry_can_be_retried(bench):
    first = retried(bench, ended(bench, failed=[1, 0]))
    bench.store.cancel(first.id, TENANT)
    first = bench.find(first.id)
    assert counters(first) == (5, 0, 4, 9)
    for rows in ("unprocessed", "both"):
        second = retried(bench, first, rows)
        assert waiting(bench, second) == [0, 2]
        assert bench.store.patch(second.id, 0) == Patch("failed", b"result 0", b"failures")
        assert counters(second) == (5, 0, 4, 9)
    third = retried(bench, first, "all")
    assert bench.store.patch(third.id, 0) == Patch("all", b"result 0", b"failures")
    assert counters(third) == (0, 0, 9, 9)


def test_copying_a_chunk_twice_changes_nothing(bench):
    old = ended(bench, failed=[0, 1])
    upload = opened(bench, old)
    before = bench.find(upload.job_id)
    bench.store.intake.copy_chunks(upload, old, [0, 1, 2], "both")
    assert bench.find(upload.job_id) == before
    assert waiting(bench, before) == [1, 2]


def test_workers_may_end_the_work_before_the_last_chunk_is_copied(bench):
    old = ended(bench, failed=[0, 3])
    upload = opened(bench, old)
    hand_in(bench, upload.job_id)
    hand_in(bench, upload.job_id)
    assert bench.find(upload.job_id).status is Status.RECEIVING
    assert bench.store.intake.close(upload, 3).status is Status.SUCCEEDED


def test_first_chunk_to_do_gets_a_ticket(bench):
    bench.announce()
    old = ended(bench, failed=[0])
    upload = bench.store.intake.open_retry(old)
    assert bench.store.intake.copy_chunks(upload, old, [0], "both") == []
    (ticket,) = bench.store.intake.copy_chunks(upload, old, [1, 2], "both")
    assert ticket.id.startswith(upload.job_id)


def test_old_job_that_is_deleted_meanwhile_leaves_nothing_of_the_new_one(bench):
    old = ended(bench, failed=[0])
    upload = bench.store.intake.open_retry(old)
    bench.store.intake.copy_chunks(upload, old, [0], "both")
    bench.store.delete(old.id, TENANT)
    with pytest.raises(JobGone) as gone:
        bench.store.intake.copy_chunks(upload, old, [1, 2], "both")
    assert (gone.value.job_id, gone.value.reason) == (old.id, "job_deleted")
    with pytest.raises(JobGone):
        bench.store.intake.open_retry(old)
    bench.store.intake.take_back(upload)
    assert bench.client.keys("qc:job:*") == []


def test_copy_that_breaks_off_is_taken_back_by_the_sweep(bench):
    upload = opened(bench, ended(bench, failed=[1]))
    bench.client.zadd("qc:receiving", {upload.job_id: 1})
    bench.sweep()
    assert bench.client.keys(f"qc:job:{upload.job_id}*") == []
    with pytest.raises(UploadRefused):
        bench.store.intake.close(upload, 3)


def test_copying_into_a_canceled_job_is_refused(bench):
    old = ended(bench, failed=[0])
    upload = bench.store.intake.open_retry(old)
    bench.store.cancel(upload.job_id, TENANT)
    with pytest.raises(UploadRefused) as refused:
        bench.store.intake.copy_chunks(upload, old, [0], "both")
    assert refused.value.reason == "job_canceled"


def test_new_job_that_fails_while_it_is_copied_is_taken_back(bench):
    old = ended(bench, failed=[0])
    upload = bench.store.intake.open_retry(old)
    bench.leases.fail([upload.job_id], "model_corrupt", "The file is another one.")
    with pytest.raises(UploadRefused) as refused:
        bench.store.intake.copy_chunks(upload, old, [0], "both")
    assert refused.value.reason == "job_failed"
    bench.store.intake.take_back(upload)
    assert bench.client.keys(f"qc:job:{upload.job_id}*") == []


def nearly_all(bench):
    """A budget without room for another MiB, even when the store takes back the buffers of idle connections."""
    return bench.client.info("memory")["used_memory"] - 2 * MIB


def test_batch_whose_copy_does_not_fit_is_refused_and_leaves_nothing(bench, bench_with):
    upload = bench.batch(1)
    hand_in(bench, upload.job_id, failed=1, result=b"x" * MIB)
    old = bench.find(upload.job_id)
    before = set(bench.client.keys())
    with pytest.raises(StoreFull):
        bench_with(store_budget_bytes=nearly_all(bench)).store.intake.open_retry(old)
    assert set(bench.client.keys()) == before


def test_chunk_without_room_changes_nothing(bench, bench_with):
    upload = bench.batch(1)
    hand_in(bench, upload.job_id, failed=1, result=b"x" * MIB)
    old = bench.find(upload.job_id)
    new = bench.store.intake.open_retry(old)
    with pytest.raises(StoreFull):
        bench_with(store_budget_bytes=nearly_all(bench)).store.intake.copy_chunks(new, old, [0], "both")
    assert bench.find(new.job_id).rows_received == 0


def test_room_is_promised_for_what_is_to_do_and_freed_at_the_end(bench):
    upload = bench.store.intake.open_batch(TENANT, "csv", MODEL, bench.layout(), row_bytes=10)
    for index in range(2):
        bench.store.intake.append(upload, index, b"blob", 3)
    bench.store.intake.close(upload, 2)
    hand_in(bench, upload.job_id)
    job = retried(bench, bench.store.cancel(upload.job_id, TENANT))
    assert bench.client.hget("qc:promised", job.id) == b"30"
    hand_in(bench, job.id)
    assert bench.client.hget("qc:promised", job.id) is None


def test_every_key_of_a_retried_job_expires_with_it_or_goes_when_it_is_deleted(bench):
    job = retried(bench, ended(bench, failed=[1]))
    keys = bench.client.keys(f"qc:job:{job.id}*")
    assert f"qc:job:{job.id}:patches".encode() in keys
    assert all(bench.client.ttl(key) > 0 for key in keys)
    bench.store.cancel(job.id, TENANT)
    assert all(0 < bench.client.ttl(key) <= 3600 for key in bench.client.keys(f"qc:job:{job.id}*"))
    bench.store.delete(job.id, TENANT)
    assert bench.client.keys(f"qc:job:{job.id}*") == []


def test_single_is_accepted_anew(bench):
    bench.announce()
    old, _ = bench.single()
    bench.store.cancel(old.id, TENANT)
    job, tickets = bench.store.intake.retry_single(bench.find(old.id))
    assert (job.status, job.kind, job.retry_of, job.input) == (Status.QUEUED, "single", old.id, old.input)
    assert len(tickets) == 0 or tickets[0].id.startswith("inbox-")
    found = bench.leases.lease_singles([job.model.key], 10, "ticket")
    assert list(found.inputs) == [job.id]
    bench.leases.commit_singles(found.token, {job.id: SingleResult('{"prediction": 7}')})
    assert bench.find(job.id).status is Status.SUCCEEDED
    assert bench.find(old.id).status is Status.CANCELED


def test_single_that_is_gone_is_not_accepted_anew(bench):
    old, _ = bench.single()
    bench.store.cancel(old.id, TENANT)
    old = bench.find(old.id)
    bench.store.delete(old.id, TENANT)
    with pytest.raises(JobGone):
        bench.store.intake.retry_single(old)
    assert bench.client.keys("qc:job:*") == []


def test_attempts_are_read_for_all_jobs_at_once(bench):
    quiet, troubled = bench.find(bench.batch().job_id), bench.batch()
    bench.leases.give_back([bench.lease(troubled.job_id).lease], "crashed")
    job = bench.find(troubled.job_id)
    assert bench.store.attempts([quiet]) == {}
    (attempt,) = bench.store.attempts([quiet, job])[job.id]
    assert job.created_at <= attempt.started_at <= attempt.ended_at
    assert (attempt.chunk, attempt.worker, attempt.reason, attempt.counted) == (0, "w1", "crashed", True)
