"""The rules of records, uploads and their ends, in the scripts themselves."""

import json

import pytest

from jobs.codec.chunk import decompress
from jobs.errors import JobGone, MoveRefused, UnknownJob, UploadRefused
from jobs.ids import ID_LENGTH, looks_like_id
from jobs.inbox_leases import SingleResult
from jobs.intake import Upload
from jobs.status import Status, may_move
from tests.integration.conftest import MODEL, Bench
from tests.waiting import wait_until

ABSENT = "a" * 32


def test_upload_is_receiving_until_it_is_closed(bench):
    upload = bench.open()
    assert bench.find(upload.job_id).status == "receiving"
    bench.store.intake.append(upload, 0, b"blob", 5)
    assert bench.find(upload.job_id).rows_total is None
    job = bench.store.intake.close(upload, 1)
    assert (job.status, job.rows_total, job.rows_received) == ("queued", 5, 5)


def test_same_index_twice_changes_nothing(bench):
    upload = bench.open()
    bench.store.intake.append(upload, 0, b"first", 5)
    bench.store.intake.append(upload, 0, b"second", 9)
    job = bench.find(upload.job_id)
    assert (job.rows_received, job.chunks_received) == (5, 1)
    assert bench.store.input(upload.job_id, 0) == b"first"
    assert bench.client.llen(f"qc:job:{upload.job_id}:waiting") == 1


def test_closing_twice_is_closing_once(bench):
    upload = bench.batch(chunks=1)
    assert bench.store.intake.close(upload, 1).status == "queued"


def test_close_that_misses_a_chunk_is_refused(bench):
    upload = bench.open()
    bench.store.intake.append(upload, 0, b"blob", 5)
    with pytest.raises(UploadRefused):
        bench.store.intake.close(upload, 2)
    assert bench.find(upload.job_id).status == "receiving"


def test_append_and_close_need_the_token(bench):
    upload = bench.open()
    stranger = Upload(upload.job_id, "not the token")
    with pytest.raises(UploadRefused):
        bench.store.intake.append(stranger, 0, b"blob", 1)
    with pytest.raises(UploadRefused):
        bench.store.intake.close(stranger, 0)
    bench.store.intake.take_back(stranger)
    assert bench.find(upload.job_id).status == "receiving"


@pytest.mark.parametrize(("end", "reason"), [("cancel", "job_canceled"), ("delete", "job_deleted")])
def test_append_close_and_renewal_are_refused_after_the_end(bench, end, reason):
    upload = bench.open()
    getattr(bench.store, end)(upload.job_id, "public")
    for refused in (
        lambda: bench.store.intake.append(upload, 0, b"blob", 1),
        lambda: bench.store.intake.close(upload, 0),
        lambda: bench.store.intake.renew_upload(upload),
    ):
        with pytest.raises(UploadRefused) as caught:
            refused()
        assert caught.value.reason == reason


def test_upload_that_was_taken_back_leaves_only_a_tombstone(bench):
    upload = bench.batch(close=False)
    bench.store.intake.take_back(upload)
    with pytest.raises(JobGone) as caught:
        bench.find(upload.job_id)
    assert caught.value.reason == "upload_failed"
    left = {key.decode() for key in bench.client.keys("qc:*")}
    assert left == {"qc:generation", f"qc:tombstone:{upload.job_id}"}


def test_closed_upload_is_not_taken_back(bench):
    upload = bench.batch()
    bench.store.intake.take_back(upload)
    assert bench.find(upload.job_id).status == "queued"


def test_upload_whose_deadline_passed_is_swept_away(bench_with):
    bench = bench_with(upload_deadline_seconds=0)
    upload = bench.batch(close=False)
    bench.sweep()
    with pytest.raises(JobGone) as caught:
        bench.find(upload.job_id)
    assert caught.value.reason == "upload_failed"
    with pytest.raises(UploadRefused):
        bench.store.intake.append(upload, 2, b"blob", 1)


@pytest.mark.parametrize("is_closed", [False, True])
def test_upload_whose_job_failed_before_it_was_closed_is_swept_away_and_an_accepted_job_is_not(bench, is_closed):
    upload = bench.batch(close=is_closed)
    bench.leases.fail([upload.job_id], "model_load_failed", "It cannot be loaded.")
    assert bench.find(upload.job_id).status == "failed"
    bench.client.zadd("qc:receiving", {upload.job_id: 1})  # its web process is gone
    bench.sweep()
    if is_closed:
        assert bench.find(upload.job_id).status == "failed"
    else:
        with pytest.raises(JobGone) as caught:
            bench.find(upload.job_id)
        assert caught.value.reason == "upload_failed"
    assert not bench.client.exists("qc:receiving")


def test_renewed_upload_is_not_swept_away(bench):
    upload = bench.batch(close=False)
    bench.client.zadd("qc:receiving", {upload.job_id: 1})
    bench.store.intake.renew_upload(upload)
    bench.sweep()
    assert bench.find(upload.job_id).status == "receiving"


def test_job_of_another_tenant_is_unknown(bench):
    upload = bench.batch(tenant="theirs")
    for look in (bench.store.find, bench.store.cancel, bench.store.delete):
        with pytest.raises(UnknownJob):
            look(upload.job_id, "mine")
    assert bench.find(upload.job_id, "theirs").status == "queued"


def test_deleted_job_of_another_tenant_is_unknown_too(bench):
    upload = bench.batch(tenant="theirs")
    bench.store.delete(upload.job_id, "theirs")
    with pytest.raises(UnknownJob):
        bench.find(upload.job_id, "mine")
    with pytest.raises(JobGone):
        bench.find(upload.job_id, "theirs")


def test_id_that_was_never_given_out_is_unknown(bench):
    generation = bench.batch().job_id[:6]
    with pytest.raises(UnknownJob):
        bench.find(generation + "a" * (ID_LENGTH - 6))


def test_id_of_another_life_of_the_store_is_lost(bench):
    upload = bench.batch()
    bench.client.flushdb()
    bench.batch()
    with pytest.raises(JobGone) as caught:
        bench.find(upload.job_id)
    assert caught.value.reason == "job_lost"


def test_acceptance_goes_on_in_a_store_that_came_back_empty(bench):
    bench.single()
    bench.client.flushdb()
    job, _ = bench.single()
    assert bench.find(job.id).status == "queued"
    assert job.id.startswith(bench.client.get("qc:generation").decode()[:6])


ALMOST = "a" * (ID_LENGTH - 1)


@pytest.mark.parametrize("text", ["", "../etc", ALMOST, "A" * ID_LENGTH, "a" * 10_000, ALMOST + "\n", ALMOST + "\0"])
def test_what_is_no_id_never_reaches_the_store(text):
    assert not looks_like_id(text)


def test_ids_are_unguessable_and_well_formed(bench):
    ids = {bench.single()[0].id for _ in range(50)}
    assert len(ids) == 50
    assert all(looks_like_id(job_id) for job_id in ids)


def test_cancel_keeps_what_is_done_and_what_was_never_reached(bench):
    upload = bench.batch(chunks=2, rows=3)
    bench.commit(bench.lease(upload.job_id))
    job = bench.store.cancel(upload.job_id, "public")
    assert (job.status, job.rows_done, job.rows_total) == ("canceled", 3, 6)
    done, unreached = bench.store.chunks(job)
    assert (done.done, unreached.done) == (True, False)
    assert bench.store.result(job.id, done.index) == b"result"
    assert decompress(bench.store.input(job.id, unreached.index)) == b"7\n" * 3


def test_cancel_is_repeatable_and_refused_after_another_end(bench):
    upload = bench.batch(chunks=1)
    bench.store.cancel(upload.job_id, "public")
    assert bench.store.cancel(upload.job_id, "public").status == "canceled"
    other = bench.batch(chunks=1)
    bench.commit(bench.lease(other.job_id))
    with pytest.raises(MoveRefused) as caught:
        bench.store.cancel(other.job_id, "public")
    assert caught.value.current == Status.SUCCEEDED


def test_no_key_comes_back_after_a_delete(bench):
    upload = bench.batch(chunks=3)
    chunk = bench.lease(upload.job_id)
    bench.store.delete(upload.job_id, "public")
    assert not bench.commit(chunk)
    bench.leases.give_back([chunk.lease], "crashed")
    assert bench.leases.renew([chunk.lease], 0, "nobody") == [chunk.lease]
    assert bench.lease(upload.job_id) is None
    bench.leases.fail([upload.job_id], "model_corrupt", "x")
    bench.sweep()
    assert bench.client.keys(f"qc:job:{upload.job_id}*") == []
    with pytest.raises(JobGone) as caught:
        bench.find(upload.job_id)
    assert caught.value.reason == "job_deleted"


def test_single_that_was_canceled_is_not_predicted(bench):
    job, _ = bench.single()
    bench.store.cancel(job.id, "public")
    assert bench.leases.lease_singles([job.model.key], 10, "t") is None


@pytest.mark.parametrize("current", list(Status))
@pytest.mark.parametrize("wanted", list(Status))
def test_scripts_and_table_agree_on_every_move(bench, current, wanted):
    """fail, cancel, close, lease and commit all go through the one function `move`; here it is asked directly."""
    upload = bench.batch()
    bench.client.hset(f"qc:job:{upload.job_id}", "status", current)
    script = bench.client.register_script(_move_script(bench))
    moved = script(args=[upload.job_id, wanted])
    assert bool(moved) == may_move(current, wanted)
    expected = wanted if may_move(current, wanted) else current
    assert bench.find(upload.job_id).status == expected


def _move_script(bench):
    from jobs.scripts import assemble

    return assemble("#!lua\nreturn move(ARGV[1], ARGV[2]) and 1 or 0", bench.limits)


def test_every_key_has_an_expiry_but_the_documented_few(bench):
    without = {"qc:generation", "qc:batches", "qc:singles", "qc:receiving", "qc:leases", "qc:inboxes", "qc:workers"}

    def check():
        for key in bench.client.keys("qc:*"):
            if bench.client.ttl(key) == -1:
                assert key.decode() in without

    bench.announce()
    upload = bench.open()
    check()
    for index in range(3):
        bench.store.intake.append(upload, index, b"blob", 2)
        check()
    bench.store.intake.close(upload, 3)
    bench.single()
    check()
    first, second = bench.lease(upload.job_id), bench.lease(upload.job_id)
    check()
    bench.commit(first, failed=1)
    bench.leases.give_back([second.lease], "crashed")
    singles = bench.leases.lease_singles(["housing@1:abababababab"], 5, "t")
    bench.leases.give_back(singles.leases)
    check()
    bench.sweep()
    check()
    for _ in range(2):
        bench.commit(bench.lease(upload.job_id))
    assert bench.find(upload.job_id).ended
    check()


def test_ended_job_has_one_expiry_on_all_its_keys(bench):
    upload = bench.batch(chunks=1)
    bench.commit(bench.lease(upload.job_id), failed=1)
    expiries = {bench.client.expiretime(key) for key in bench.client.keys(f"qc:job:{upload.job_id}*")}
    assert len(expiries) == 1
    job = bench.find(upload.job_id)
    assert abs(expiries.pop() * 1000 - job.expires_at) <= 1000


def test_job_whose_record_expired_is_gone_with_the_time(redis_client):
    bench = Bench(redis_client, single_ttl_seconds=1)
    job, _ = bench.single()
    singles = bench.leases.lease_singles([job.model.key], 5, "t")
    bench.leases.commit_singles(singles.token, {job.id: SingleResult('{"prediction":1}')})
    expires_at = bench.find(job.id).expires_at

    def gone_at():
        with pytest.raises(JobGone) as caught:
            bench.find(job.id)
        return caught.value.reason == "job_expired" and caught.value.at

    bench.client.delete(f"qc:job:{job.id}")
    at = wait_until(gone_at, 5, "it has not expired")
    assert 0 <= expires_at - at < 2000  # its id knows the second at which it was made
    with pytest.raises(UnknownJob):
        bench.find(job.id, "another")


def test_finished_single_leaves_nothing_but_its_packed_record_and_its_place_in_the_list(bench):
    sent = json.dumps({f"feature {number}": 0.12345 * number for number in range(8)})
    job, _ = bench.single(sent)
    singles = bench.leases.lease_singles([job.model.key], 5, "t")
    assert singles.inputs == {job.id: sent}
    long = json.dumps({"prediction": "ü" * 40, "probabilities": {"a": 0.25, "b": 0.75}}, ensure_ascii=False)
    bench.leases.commit_singles(singles.token, {job.id: SingleResult(long)})
    assert (bench.find(job.id).input, bench.find(job.id).result) == (sent, long)
    assert bench.client.object("encoding", f"qc:job:{job.id}") == b"listpack"
    assert [key.decode() for key in bench.client.scan_iter(f"*{job.id}*")] == [f"qc:job:{job.id}"]
    left = bench.client.keys("qc:*")
    assert b"qc:singles" not in left
    assert b"qc:leases" not in left


@pytest.mark.parametrize("text", ["é" * 30, "x" * 64, "x" * 65, "日" * 200, "x" * 5000])
def test_input_of_any_length_comes_back_whole(bench, text):
    sent = json.dumps({"RM": text}, ensure_ascii=False)
    job, _ = bench.single(sent)
    again, _ = bench.store.intake.retry_single(_ended(bench, job))
    assert bench.find(again.id).input == sent
    assert bench.leases.lease_singles([job.model.key], 5, "t").inputs == {again.id: sent}


def _ended(bench, job):
    singles = bench.leases.lease_singles([job.model.key], 5, "t")
    bench.leases.commit_singles(singles.token, {job.id: SingleResult('{"prediction":1}')})
    return bench.find(job.id)


def test_jobs_are_listed_newest_first_and_page_by_page(bench):
    ids = [bench.batch().job_id if number % 2 else bench.single()[0].id for number in range(7)]
    listed, cursor = [], None
    while True:
        page, cursor = bench.store.listing.page("public", None, None, 3, cursor)
        listed += [job.id for job in page]
        if cursor is None:
            break
    assert sorted(listed) == sorted(ids)
    moments = [bench.find(job_id).created_at for job_id in listed]
    assert moments == sorted(moments, reverse=True)


@pytest.mark.parametrize("limit", [7, 100])
def test_no_job_is_left_out_between_pages_that_one_kind_fills(bench, limit):
    ids = [bench.batch(chunks=1).job_id for _ in range(3)] + [bench.single()[0].id for _ in range(350)]
    listed, cursor = [], None
    while cursor or not listed:
        page, cursor = bench.store.listing.page("public", None, None, limit, cursor)
        listed += [job.id for job in page]
    assert sorted(listed) == sorted(ids)


def test_jobs_are_filtered_by_status_and_model(bench):
    upload = bench.batch()
    bench.store.cancel(bench.batch().job_id, "public")
    found, _ = bench.store.listing.page("public", Status.QUEUED, "housing", 10, None)
    assert [job.id for job in found] == [upload.job_id]
    assert bench.store.listing.page("public", None, "iris", 10, None) == ([], None)
    assert bench.store.listing.page("others", None, None, 10, None) == ([], None)


def test_list_of_many_jobs_that_are_gone_is_read_in_bounded_steps(bench, monkeypatch):
    monkeypatch.setattr("jobs.listing.LIST_SECONDS", 0.0)
    upload = bench.batch()
    gone = [bench.store.intake.new_single("public", MODEL, "7").job_id for _ in range(1000)]
    later = bench.now() + 1000
    bench.client.zadd("qc:jobs:public:single", {job_id: later + number for number, job_id in enumerate(gone)})
    page, cursor = bench.store.listing.page("public", None, None, 10, None)
    assert (page, bench.client.zcard("qc:jobs:public:single")) == ([], 900)  # nobody meets these again
    steps = 1
    while cursor and not page:
        page, cursor = bench.store.listing.page("public", None, None, 10, cursor)
        steps += 1
    assert [job.id for job in page] == [upload.job_id]
    assert steps == 11
    assert bench.store.listing.page("public", None, None, 10, cursor) == ([], None)
    assert bench.client.exists("qc:jobs:public:single") == 0


def test_list_in_which_little_matches_is_read_in_bounded_steps(bench, monkeypatch):
    monkeypatch.setattr("jobs.listing.LIST_SECONDS", 0.0)
    bench.store.cancel(bench.batch().job_id, "public")
    for _ in range(150):
        bench.single()
    page, cursor = bench.store.listing.page("public", Status.CANCELED, None, 10, None)
    assert page == []
    page, cursor = bench.store.listing.page("public", Status.CANCELED, None, 10, cursor)
    assert [job.status for job in page] == ["canceled"]
    assert bench.client.zcard("qc:jobs:public:single") == 150


@pytest.mark.parametrize("cursor", ["x", "1", "-", "1-" + "A" * 32, "9" * 40 + "-" + ABSENT])
def test_cursor_that_was_not_given_out_is_refused(bench, cursor):
    with pytest.raises(ValueError, match="cursor"):
        bench.store.listing.page("public", None, None, 10, cursor)


def test_jobs_that_are_gone_leave_the_list(bench):
    for _ in range(20):
        job, _ = bench.single()
        bench.client.delete(f"qc:job:{job.id}")
    assert bench.store.listing.page("public", None, None, 10, None)[0] == []
    for _ in range(20):
        bench.single()
    assert bench.client.zcard("qc:jobs:public:single") == 20


def test_queue_counts_unended_jobs_and_their_rows(bench):
    first = bench.batch(chunks=2, rows=3)
    bench.single()
    second = bench.batch(chunks=1, rows=4)
    bench.commit(bench.lease(first.job_id))
    bench.announce("w1", "busy")
    bench.announce("w2", "idle")
    state = bench.store.queue_state()
    assert (state.jobs, state.rows, state.workers_busy, state.workers_idle) == (3, 3 + 1 + 4, 1, 1)
    assert state.oldest_created_at == bench.find(first.job_id).created_at
    later = bench.now() + 5
    bench.client.zadd("qc:batches", {second.job_id: later})
    bench.client.hset(f"qc:job:{second.job_id}", "created_at", later)
    ahead = bench.store.ahead(bench.find(second.job_id))
    assert (ahead.jobs, ahead.rows, ahead.workers) == (2, 4, 2)


def test_worker_that_is_gone_is_not_counted(bench):
    bench.announce("w1", "idle")
    bench.announce("w1", "gone")
    state = bench.store.queue_state()
    assert (state.workers_busy, state.workers_idle) == (0, 0)
