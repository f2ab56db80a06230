"""The rules of leases, commits, slots, inboxes and the sweep, in the scripts themselves."""

import json
from dataclasses import replace

import pytest

from jobs.inbox_leases import SingleResult
from jobs.leases import SearchStep
from jobs.scripts import TICKETS_KEY
from worker.suspects import Suspects

KEY = "housing@1:abababababab"


def waiting(bench, upload):
    return [int(index) for index in bench.client.lrange(f"qc:job:{upload.job_id}:waiting", 0, -1)]


def attempts(bench, job):
    key = f"qc:job:{getattr(job, 'job_id', None) or job.id}:attempts"
    return [json.loads(attempt) for attempt in bench.client.lrange(key, 0, -1)]


def test_chunks_are_leased_in_order_each_once(bench):
    upload = bench.batch(chunks=3)
    indexes = [bench.lease(upload.job_id).lease.index for _ in range(3)]
    assert indexes == ["0", "1", "2"]
    assert bench.lease(upload.job_id) is None


def test_chunk_is_taken_ahead_only_while_enough_wait_for_the_other_workers(bench):
    bench.announce("w1")
    bench.announce("w2")
    upload = bench.batch(chunks=3)
    ahead = [bench.leases.lease(upload.job_id, 0, "nobody", ahead=True) for _ in range(3)]
    assert [chunk and chunk.lease.index for chunk in ahead] == ["0", "1", None]
    assert bench.lease(upload.job_id).lease.index == "2"


def test_first_lease_starts_the_job(bench):
    upload = bench.batch()
    assert bench.find(upload.job_id).started_at is None
    bench.lease(upload.job_id)
    job = bench.find(upload.job_id)
    assert job.status == "running"
    assert job.started_at >= job.created_at


def test_work_starts_while_the_body_arrives_and_does_not_end_the_job(bench):
    upload = bench.batch(chunks=1, close=False)
    bench.commit(bench.lease(upload.job_id))
    assert bench.find(upload.job_id).status == "receiving"
    assert bench.store.intake.close(upload, 1).status == "succeeded"


def test_close_of_a_batch_that_is_being_worked_on_makes_it_running(bench):
    upload = bench.batch(chunks=1, close=False)
    bench.lease(upload.job_id)
    assert bench.store.intake.close(upload, 1).status == "running"


def test_last_commit_ends_the_job_with_exact_counters(bench):
    upload = bench.batch(chunks=2, rows=3)
    first, second = bench.lease(upload.job_id), bench.lease(upload.job_id)
    assert bench.commit(second, failed=1)
    assert bench.find(upload.job_id).prefix == 0
    assert bench.commit(first)
    job = bench.find(upload.job_id)
    assert (job.status, job.rows_ok, job.rows_failed, job.rows_done, job.prefix) == ("succeeded", 5, 1, 6, 2)
    assert job.ended_at >= job.started_at
    assert job.expires_at == job.ended_at + 3600 * 1000


def test_batch_without_a_prediction_has_failed(bench):
    upload = bench.batch(chunks=1, rows=3)
    bench.commit(bench.lease(upload.job_id), failed=3)
    job = bench.find(upload.job_id)
    assert (job.status, job.error_code) == ("failed", "all_rows_failed")


def test_commit_twice_counts_once(bench):
    upload = bench.batch(chunks=2, rows=3)
    chunk = bench.lease(upload.job_id)
    assert bench.commit(chunk)
    assert bench.commit(chunk)
    assert bench.find(upload.job_id).rows_ok == 3


def test_commit_with_a_voided_token_is_refused(bench):
    upload = bench.batch(chunks=1, rows=3)
    late = bench.lease(upload.job_id)
    bench.let_leases_lapse()
    bench.sweep()
    anew = bench.lease(upload.job_id)
    assert anew.lease.index == late.lease.index
    assert not bench.commit(late, failed=3)
    assert bench.find(upload.job_id).rows_done == 0
    assert bench.commit(anew)
    assert bench.find(upload.job_id).rows_ok == 3


def test_passed_deadline_alone_voids_no_token(bench):
    upload = bench.batch(chunks=1)
    slow = bench.lease(upload.job_id)
    bench.let_leases_lapse()
    bench.sweep()
    assert waiting(bench, upload) == [0]
    assert bench.commit(slow)
    assert waiting(bench, upload) == []
    assert bench.find(upload.job_id).status == "succeeded"


def test_renewal_after_the_deadline_takes_the_chunk_back_from_the_waiting(bench):
    upload = bench.batch(chunks=1)
    slow = bench.lease(upload.job_id)
    bench.let_leases_lapse()
    bench.sweep()
    assert bench.leases.renew([slow.lease], 0, "nobody") == []
    assert bench.lease(upload.job_id) is None
    assert bench.commit(slow)


def test_ticket_of_a_job_whose_chunk_was_left_lying_comes_to_the_front(bench):
    upload = bench.batch(chunks=3)
    bench.lease(upload.job_id)
    (held,) = bench.client.hvals(f"qc:job:{upload.job_id}:slots")
    ticket = held.split()[0]
    bench.client.rpush(TICKETS_KEY, "another", "one more", ticket)
    bench.sweep()
    assert bench.client.lrange(TICKETS_KEY, 0, -1) == [b"another", b"one more", ticket]
    bench.let_leases_lapse()
    bench.sweep()
    assert bench.client.lrange(TICKETS_KEY, 0, -1) == [ticket, b"another", b"one more"]


@pytest.mark.parametrize("others", [0, 5], ids=["short queue", "long queue"])
@pytest.mark.parametrize("chunks", [2, 5])
def test_chunk_left_lying_has_a_ticket_of_its_own_while_a_worker_hangs_on_the_only_one(bench, chunks, others):
    upload = bench.open()
    tickets = [
        ticket for index in range(chunks) for ticket in bench.store.intake.append(upload, index, b"blob", 1).tickets
    ]
    assert [ticket.arguments for ticket in tickets] == [(upload.job_id, 0)]
    bench.announce("w1")
    bench.announce("w2")
    bench.client.rpush(TICKETS_KEY, "another", *(f"another-{number}" for number in range(others)))
    left = bench.lease_as("w3", upload.job_id)
    hanging = bench.leases.lease(upload.job_id, 0, tickets[0].id)
    bench.let_leases_lapse()
    bench.leases.renew([hanging.lease], 0, tickets[0].id)
    (ticket,) = bench.sweep()
    assert (ticket.arguments, ticket.front) == ((upload.job_id, 1), True)
    assert bench.leases.lease(upload.job_id, 1, ticket.id).lease.index == left.lease.index
    assert bench.sweep() == []


def test_sweep_goes_on_when_the_stores_clock_was_set_back(bench):
    upload = bench.batch(chunks=1)
    bench.lease(upload.job_id)
    bench.client.set("qc:swept", bench.now() + 3_600_000)
    bench.leases.sweep(2)
    assert int(bench.client.get("qc:swept")) <= bench.now()


def test_bytes_promised_to_a_batch_whose_record_expired_are_free_again(bench):
    upload = bench.batch(chunks=1)
    bench.client.hset("qc:promised", upload.job_id, 1000)
    bench.client.delete(f"qc:job:{upload.job_id}")
    bench.sweep()
    assert bench.client.hget("qc:promised", upload.job_id) is None


def test_renewed_lease_is_not_swept(bench):
    upload = bench.batch(chunks=1)
    chunk = bench.lease(upload.job_id)
    bench.let_leases_lapse()
    bench.leases.renew([chunk.lease], 0, "nobody")
    bench.sweep()
    assert waiting(bench, upload) == []


def test_renewal_names_the_leases_that_are_lost(bench):
    first, second = bench.batch(chunks=1), bench.batch(chunks=1)
    kept, lost = bench.lease(first.job_id), bench.lease(second.job_id)
    bench.store.cancel(second.job_id, "public")
    assert bench.leases.renew([kept.lease, lost.lease], 0, "nobody") == [lost.lease]


def test_chunk_of_a_dead_worker_goes_to_the_front(bench):
    upload = bench.batch(chunks=3)
    bench.lease(upload.job_id)
    bench.let_leases_lapse()
    bench.sweep()
    assert waiting(bench, upload) == [0, 1, 2]


def test_chunk_handed_back_goes_to_the_front_and_status_stays(bench):
    upload = bench.batch(chunks=3)
    chunk = bench.lease(upload.job_id)
    bench.leases.give_back([chunk.lease])
    assert waiting(bench, upload) == [0, 1, 2]
    assert bench.find(upload.job_id).status == "running"
    assert bench.lease(upload.job_id).losses == 0
    assert attempts(bench, upload) == []


def test_chunk_handed_back_at_a_shutdown_is_listed_and_not_counted(bench):
    upload = bench.batch(chunks=1)
    chunk = bench.lease(upload.job_id)
    bench.leases.give_back([chunk.lease], "shutdown")
    (attempt,) = attempts(bench, upload)
    assert (attempt["chunk"], attempt["worker"], attempt["reason"], attempt["counted"]) == (0, "w1", "shutdown", False)
    assert attempt["started_at"] <= attempt["ended_at"]
    assert bench.lease(upload.job_id).losses == 0


def test_lease_of_a_worker_that_nobody_heard_of_again_is_an_attempt(bench):
    upload = bench.batch(chunks=1)
    bench.lease(upload.job_id)
    bench.let_leases_lapse()
    bench.sweep()
    assert bench.lease_as("w2", upload.job_id).losses == 1
    (attempt,) = attempts(bench, upload)
    assert (attempt["worker"], attempt["reason"], attempt["counted"]) == ("w1", "worker_lost", True)


def test_lease_whose_answer_was_lost_on_the_way_is_no_attempt(bench):
    upload = bench.batch(chunks=1)
    bench.lease(upload.job_id)
    bench.let_leases_lapse()
    bench.sweep()
    bench.announce("w1")
    assert bench.lease_as("w2", upload.job_id).losses == 0
    assert attempts(bench, upload) == []


def test_attempts_are_kept_up_to_a_hundred_and_counted_beyond(bench):
    upload = bench.batch(chunks=1)
    for _ in range(120):
        bench.leases.give_back([bench.lease(upload.job_id).lease], "crashed")
    assert len(attempts(bench, upload)) == 100
    assert bench.client.hget(f"qc:job:{upload.job_id}", "attempts") == b"120"


def test_search_is_kept_under_the_lease_and_forgotten_with_the_commit(bench):
    upload = bench.batch(chunks=2, rows=4)
    chunk = bench.lease(upload.job_id)
    suspects = Suspects.begin(4)
    suspects.died(suspects.parts[0], "crashed", (1, 2))
    bench.leases.keep_search(chunk.lease, SearchStep(suspects.to_json(), reason="crashed", seconds=0.5))
    suspects.finish(suspects.parts[0], 1)
    assert bench.leases.keep_search(chunk.lease, SearchStep(suspects.to_json(), 0, 1, b"part"))
    other = bench.lease(upload.job_id)
    bench.leases.keep_search(other.lease, SearchStep(Suspects.begin(4).to_json(), 0, 2, b"another chunk's"))
    assert [attempt["reason"] for attempt in attempts(bench, upload)] == ["crashed"]
    bench.leases.give_back([chunk.lease])
    again = bench.lease_as("w2", upload.job_id)
    assert Suspects.from_json(again.search) == suspects
    assert bench.leases.finished_parts(again.lease) == {(0, 1): b"part"}
    assert not bench.leases.keep_search(chunk.lease, SearchStep("{}"))
    bench.commit(again)
    assert set(bench.client.hkeys(f"qc:job:{upload.job_id}:parts")) == {b"1", b"1:0-2"}
    bench.commit(other)
    assert bench.client.hgetall(f"qc:job:{upload.job_id}:parts") == {}


def test_step_of_a_search_that_is_repeated_is_one_attempt(bench):
    upload = bench.batch(chunks=1)
    chunk = bench.lease(upload.job_id)
    step = SearchStep(Suspects.begin(3).to_json(), reason="crashed")
    for _ in range(3):
        assert bench.leases.keep_search(chunk.lease, step)
    assert len(attempts(bench, upload)) == 1
    assert bench.client.hget(f"qc:job:{upload.job_id}", "attempts") == b"1"


def doubt(bench, chunk, enough=20):
    return bench.leases.doubt(chunk.lease, Suspects.begin(3).to_json(), enough)


def test_job_fails_when_every_chunk_speaks_against_the_model(bench):
    upload = bench.batch(chunks=3, rows=3)
    assert bench.lease(upload.job_id).lease.index == "0"
    bench.let_leases_lapse()
    bench.sweep()
    for expected in (0, 1):
        chunk = bench.lease(upload.job_id)
        assert (chunk.lease.index, chunk.doubted) == (str(expected), expected)
        assert doubt(bench, chunk) == "put back"
        assert doubt(bench, chunk) == "refused"
    assert waiting(bench, upload) == [2, 0, 1]
    assert doubt(bench, bench.lease(upload.job_id)) == "failed"
    job = bench.find(upload.job_id)
    assert (job.status, job.error_code, job.rows_done) == ("failed", "all_rows_failed", 0)


@pytest.mark.parametrize(
    ("doubted", "then"), [(2, ("failed", "all_rows_failed")), (1, ("running", None)), (0, ("queued", None))]
)
def test_chunks_that_speak_against_the_model_before_their_upload_is_closed_are_judged_then(bench, doubted, then):
    upload = bench.batch(chunks=2, close=False)
    for _ in range(doubted):
        assert doubt(bench, bench.lease(upload.job_id), enough=1) == "put back"
    job = bench.store.intake.close(upload, 2)
    assert (job.status, job.error_code) == then


@pytest.mark.parametrize(("reason", "disturbed"), [("crashed", True), ("shutdown", False), ("", False)])
def test_every_worker_knows_of_a_chunk_that_a_single_prediction_has_disturbed(bench, reason, disturbed):
    upload = bench.batch(chunks=2)
    chunk = bench.lease(upload.job_id)
    assert not chunk.disturbed
    for _ in range(2):
        bench.leases.give_back([chunk.lease], reason)
    first, other = bench.lease_as("w2", upload.job_id), bench.lease_as("w2", upload.job_id)
    assert (first.lease.index, first.disturbed, other.disturbed) == ("0", disturbed, False)


def test_chunk_that_was_searched_to_its_end_speaks_against_the_model_no_more(bench):
    upload = bench.batch(chunks=1, close=False)
    state = replace(Suspects.begin(3), doubted=True).to_json()
    assert bench.leases.doubt(bench.lease(upload.job_id).lease, state, 20) == "put back"
    assert bench.commit(bench.lease(upload.job_id), failed=3)
    bench.store.intake.append(upload, 1, b"blob", 3)
    assert bench.store.intake.close(upload, 2).status == "running"


@pytest.mark.parametrize(
    ("failed", "then"), [(3, ("failed", "all_rows_failed")), (2, ("running", None))], ids=["no prediction", "one"]
)
def test_chunks_that_speak_against_the_model_are_judged_when_the_last_other_one_is_done(bench, failed, then):
    upload = bench.batch(chunks=2)
    doubted, other = bench.lease(upload.job_id), bench.lease(upload.job_id)
    assert doubt(bench, doubted) == "put back"
    assert bench.commit(other, failed=failed)
    assert bench.commit(other, failed=failed)
    job = bench.find(upload.job_id)
    assert (job.status, job.error_code) == then


def test_chunk_that_has_a_prediction_after_all_speaks_against_the_model_no_more(bench):
    upload = bench.batch(chunks=2)
    chunk, other = bench.lease(upload.job_id), bench.lease(upload.job_id)
    suspects = replace(Suspects.begin(3), doubted=True)
    assert bench.leases.doubt(chunk.lease, suspects.to_json(), 20) == "put back"
    again = bench.lease(upload.job_id)
    for _ in range(2):
        assert bench.leases.keep_search(again.lease, SearchStep(suspects.to_json()))
    assert bench.client.hget(f"qc:job:{upload.job_id}", "doubted") == b"1"
    suspects.acquit_model()
    for _ in range(2):
        assert bench.leases.keep_search(again.lease, SearchStep(suspects.to_json()))
    assert bench.commit(other, failed=3)
    assert bench.find(upload.job_id).status == "running"
    assert bench.commit(again)
    assert bench.client.hget(f"qc:job:{upload.job_id}", "doubted") == b"0"


def test_so_many_doubted_chunks_are_enough(bench):
    upload = bench.batch(chunks=5)
    assert doubt(bench, bench.lease(upload.job_id), enough=2) == "put back"
    assert doubt(bench, bench.lease(upload.job_id), enough=2) == "failed"


def test_chunk_is_searched_to_its_end_when_some_row_of_the_job_has_a_prediction(bench):
    upload = bench.batch(chunks=3)
    doubted, good = bench.lease(upload.job_id), bench.lease(upload.job_id)
    bench.commit(good)
    assert doubt(bench, doubted) == "searched"
    assert bench.lease(upload.job_id).doubted == 0
    assert bench.commit(doubted)


def test_lease_of_a_worker_that_stopped_without_handing_it_back_is_not_counted(bench):
    upload = bench.batch(chunks=1)
    bench.lease(upload.job_id)
    bench.announce("w1", "gone")
    bench.let_leases_lapse()
    bench.sweep()
    assert bench.lease_as("w2", upload.job_id).losses == 0
    assert [(each["reason"], each["counted"]) for each in attempts(bench, upload)] == [("shutdown", False)]


def test_lease_that_an_older_release_wrote_can_be_taken_over(bench):
    upload, single = bench.batch(chunks=1), bench.single()[0]
    bench.lease(upload.job_id)
    bench.leases.lease_singles([KEY], 10, "t")
    bench.client.hset(f"qc:job:{upload.job_id}:leases", "0", "0123456789abcdef")
    bench.client.hset(f"qc:job:{single.id}", "lease", "0123456789abcdef")
    bench.let_leases_lapse()
    bench.sweep()
    assert bench.lease_as("w2", upload.job_id).lease.index == "0"
    assert single.id in bench.leases_of("w2").lease_singles([KEY], 10, "t").inputs


def test_attempts_of_singles_are_listed_for_those_that_are_still_held(bench):
    kept, canceled = bench.single()[0], bench.single()[0]
    singles = bench.leases.lease_singles([KEY], 10, "t")
    bench.store.cancel(canceled.id, "public")
    for _ in range(2):
        bench.leases.note_singles(singles.token, [kept.id, canceled.id], "timeout", 1.0, "nonce")
    assert [attempt["reason"] for attempt in attempts(bench, kept)] == ["timeout"]
    assert attempts(bench, kept)[0]["chunk"] is None
    assert attempts(bench, canceled) == []


def test_single_over_which_workers_were_lost_comes_alone_and_only_that_is_its_doing(bench):
    suspect, other = bench.single()[0], bench.single()[0]
    workers = iter("abcdefgh")

    def lose():
        singles = bench.leases_of(next(workers)).lease_singles([KEY], 10, "t")
        bench.let_leases_lapse()
        bench.sweep()
        return singles

    assert set(lose().inputs) == {suspect.id, other.id}
    assert set(lose().inputs) == {suspect.id, other.id}
    alone = [lose() for _ in range(4)]
    assert [singles.losses for singles in alone] == [0, 1, 2, 3]
    assert len({tuple(singles.inputs) for singles in alone}) == 1
    assert len(alone[0].inputs) == 1
    assert bench.client.llen(f"qc:inbox:{KEY}") == 2


def test_handing_back_needs_the_token(bench):
    upload = bench.batch(chunks=1)
    late = bench.lease(upload.job_id)
    bench.let_leases_lapse()
    bench.sweep()
    bench.lease(upload.job_id)
    bench.leases.give_back([late.lease], "crashed")
    assert waiting(bench, upload) == []


def test_sweep_after_a_long_silence_extends_instead_of_collecting(bench):
    upload = bench.batch(chunks=1)
    bench.lease(upload.job_id)
    bench.client.zadd("qc:leases", {f"{upload.job_id} 0": bench.now() - 100})
    bench.client.set("qc:swept", bench.now() - 6000)  # more than half a lease of ten seconds
    bench.leases.sweep(0)
    assert waiting(bench, upload) == []
    assert bench.client.zscore("qc:leases", f"{upload.job_id} 0") > bench.now()


def test_lease_that_nobody_renewed_already_before_the_silence_is_collected_at_once(bench):
    upload = bench.batch(chunks=1)
    bench.lease(upload.job_id)
    bench.client.zadd("qc:leases", {f"{upload.job_id} 0": bench.now() - 1500})
    bench.client.set("qc:swept", bench.now() - 6000)
    bench.leases.sweep(0)
    assert waiting(bench, upload) == [0]


def test_sweep_after_a_long_silence_asks_for_lost_tickets_all_the_same(bench):
    upload = bench.batch(chunks=1)
    bench.client.delete(f"qc:job:{upload.job_id}:slots")
    bench.client.set("qc:swept", bench.now() - 60_000)
    assert [ticket.arguments for ticket in bench.leases.sweep(0)] == [(upload.job_id, 0)]


def test_sweeps_as_seldom_as_an_idle_worker_makes_them_collect_however_short_leases_are(bench_with):
    bench = bench_with(lease_seconds=0.5)
    upload = bench.batch(chunks=1)
    bench.lease(upload.job_id)
    bench.let_leases_lapse()
    bench.client.set("qc:swept", bench.now() - 3000)  # two seconds, and what a slow machine adds to them
    bench.leases.sweep(0.1)
    assert waiting(bench, upload) == [0]


def test_two_sweeps_in_a_moment_are_one(bench):
    upload = bench.batch(chunks=1)
    bench.lease(upload.job_id)
    bench.client.set("qc:swept", bench.now())
    bench.let_leases_lapse()
    assert bench.leases.sweep(2) == []
    assert waiting(bench, upload) == []


def test_slots_are_as_many_as_waiting_chunks_or_live_workers(bench):
    bench.announce("w1")
    bench.announce("w2")
    upload = bench.open()
    tickets = [ticket for index in range(5) for ticket in bench.store.intake.append(upload, index, b"blob", 1).tickets]
    assert [ticket.arguments for ticket in tickets] == [(upload.job_id, 0), (upload.job_id, 1)]


def test_ticket_that_owns_its_slot_queues_itself_again(bench):
    upload = bench.open()
    (ticket,) = bench.store.intake.append(upload, 0, b"blob", 1).tickets
    following = bench.leases.hand_on_slot(upload.job_id, 0, ticket.id, front=False)
    assert following.arguments == (upload.job_id, 0)
    assert following.id != ticket.id
    assert bench.leases.hand_on_slot(upload.job_id, 0, ticket.id, front=False) is None


def test_slot_is_freed_when_nothing_waits(bench):
    upload = bench.open()
    (ticket,) = bench.store.intake.append(upload, 0, b"blob", 1).tickets
    bench.lease(upload.job_id)
    assert bench.leases.hand_on_slot(upload.job_id, 0, ticket.id, front=False) is None
    assert len(bench.store.intake.append(upload, 1, b"blob", 1).tickets) == 1


def test_lost_ticket_is_replaced_by_the_sweep(bench):
    bench.announce()
    upload = bench.open()
    (lost,) = bench.store.intake.append(upload, 0, b"blob", 1).tickets
    age_slots(bench, upload)
    (ticket,) = bench.sweep()
    assert ticket.arguments == (upload.job_id, 0)
    assert ticket.front
    assert ticket.id != lost.id


def add_older_batches(bench):
    """More than a sweep looks after; they are gone, so it takes those out that it has looked at."""
    bench.client.zadd("qc:batches", {f"older-{number}": 1 for number in range(1500)})


def test_lost_ticket_of_one_of_very_many_batches_is_replaced_within_some_sweeps(bench):
    bench.announce()
    upload = bench.open()
    (lost,) = bench.store.intake.append(upload, 0, b"blob", 1).tickets
    age_slots(bench, upload)
    for _ in range(200):
        add_older_batches(bench)
        if found := bench.sweep():
            break
    (ticket,) = found
    assert ticket.arguments == (upload.job_id, 0)
    assert ticket.id != lost.id


def test_chunk_left_lying_of_one_of_very_many_batches_has_a_ticket_at_once(bench):
    bench.announce()
    for _ in range(10):
        upload = bench.batch(chunks=1)
        bench.lease(upload.job_id)
        bench.let_leases_lapse()
        add_older_batches(bench)
        age_slots(bench, upload)
        (ticket,) = bench.sweep()
        assert ticket.arguments == (upload.job_id, 0)
        bench.store.delete(upload.job_id, "public")


def test_ticket_that_waits_in_the_queue_is_not_replaced(bench):
    bench.announce()
    upload = bench.open()
    bench.tickets.put(bench.store.intake.append(upload, 0, b"blob", 1).tickets)
    age_slots(bench, upload)
    assert bench.sweep() == []


def test_slot_at_work_is_not_freed(bench):
    bench.announce()
    upload = bench.batch(chunks=0, close=False)
    (ticket,) = bench.store.intake.append(upload, 0, b"blob", 1).tickets
    bench.store.intake.append(upload, 1, b"blob", 1)
    chunk = bench.leases.lease(upload.job_id, 0, ticket.id)
    age_slots(bench, upload)
    bench.leases.renew([chunk.lease], 0, ticket.id)
    assert bench.sweep() == []


def age_slots(bench, upload):
    key = f"qc:job:{upload.job_id}:slots"
    for slot, held in bench.client.hgetall(key).items():
        bench.client.hset(key, slot, held.split()[0] + b" 1")


def test_first_single_asks_for_a_ticket_and_the_next_does_not(bench):
    _, tickets = bench.single()
    assert [ticket.arguments for ticket in tickets] == [(KEY,)]
    assert bench.single()[1] == []


def test_ticket_of_an_inbox_goes_to_the_front_unless_no_batch_had_its_turn(bench):
    _, (first,) = bench.single()
    assert first.front
    bench.leases.lease_singles([KEY], 10, first.id)
    assert not bench.leases.keep_inbox(KEY, first.id)
    _, (second,) = bench.single()
    assert not second.front
    bench.leases.lease_singles([KEY], 10, second.id)
    bench.leases.keep_inbox(KEY, second.id)
    bench.lease(bench.batch().job_id)
    _, (third,) = bench.single()
    assert third.front


def test_inbox_ends_only_when_it_is_empty(bench):
    _, (ticket,) = bench.single()
    assert bench.leases.keep_inbox(KEY, ticket.id)
    bench.leases.lease_singles([KEY], 10, ticket.id)
    assert not bench.leases.keep_inbox(KEY, ticket.id)
    assert len(bench.single()[1]) == 1


def test_inbox_is_handed_on_while_something_waits(bench):
    _, (ticket,) = bench.single()
    following = bench.leases.hand_on_inbox(KEY, ticket.id, front=False)
    assert following.arguments == (KEY,)
    assert bench.leases.hand_on_inbox(KEY, ticket.id, front=False) is None
    assert bench.single()[1] == []


def test_singles_are_leased_together_and_end_one_by_one(bench):
    jobs = [bench.single(f'{{"RM":"{number}"}}')[0] for number in range(3)]
    singles = bench.leases.lease_singles([KEY], 10, "t")
    assert list(singles.inputs) == [job.id for job in jobs]
    assert bench.find(jobs[0].id).status == "running"
    bench.leases.commit_singles(
        singles.token,
        {
            jobs[0].id: SingleResult('{"prediction":1}'),
            jobs[1].id: SingleResult(None, "model_error", "the model raised ValueError"),
        },
    )
    first, second, third = (bench.find(job.id) for job in jobs)
    assert (first.status, first.result, first.rows_ok) == ("succeeded", '{"prediction":1}', 1)
    assert (second.status, second.error_code, second.rows_failed) == ("failed", "model_error", 1)
    assert third.status == "running"


def test_single_of_a_dead_worker_is_predicted_by_another(bench):
    job, _ = bench.single()
    late = bench.leases.lease_singles([KEY], 10, "t")
    bench.let_leases_lapse()
    bench.announce()
    bench.client.delete(f"qc:inbox:{KEY}:mark")
    tickets = bench.sweep()
    assert [ticket.arguments for ticket in tickets] == [(KEY,)]
    anew = bench.leases.lease_singles([KEY], 10, "t")
    bench.leases.commit_singles(late.token, {job.id: SingleResult('{"prediction":"late"}')})
    assert bench.find(job.id).status == "running"
    bench.leases.commit_singles(anew.token, {job.id: SingleResult('{"prediction":"anew"}')})
    assert bench.find(job.id).result == '{"prediction":"anew"}'


def test_single_handed_back_is_predicted_next(bench):
    job, _ = bench.single()
    bench.single()
    singles = bench.leases.lease_singles([KEY], 1, "t")
    bench.leases.give_back(singles.leases)
    assert list(bench.leases.lease_singles([KEY], 1, "t").inputs) == [job.id]


def test_lost_ticket_of_an_inbox_is_replaced_by_the_sweep(bench):
    bench.single()
    bench.announce()
    bench.client.delete(f"qc:inbox:{KEY}:mark")
    assert [ticket.arguments for ticket in bench.sweep()] == [(KEY,)]
    assert bench.sweep() == []


@pytest.mark.parametrize("kind", ["batch", "single"])
def test_job_whose_model_nobody_has_fails_only_after_the_wait(bench_with, kind):
    bench = bench_with(version_wait_seconds=30)
    job_id = bench.batch().job_id if kind == "batch" else bench.single()[0].id
    bench.announce(keys=["iris@1:000000000000"])
    bench.sweep()
    assert bench.find(job_id).status == "queued"
    bench.client.set(f"qc:unserved:{KEY}", bench.now() - 31_000)
    bench.sweep()
    job = bench.find(job_id)
    assert (job.status, job.error_code) == ("failed", "model_unavailable")


def test_version_that_is_served_again_starts_the_wait_anew(bench):
    upload = bench.batch()
    bench.sweep()
    bench.client.set(f"qc:unserved:{KEY}", 1)
    bench.announce()
    bench.sweep()
    assert bench.find(upload.job_id).status == "queued"
    assert bench.client.get(f"qc:unserved:{KEY}") is None


def test_version_that_was_there_meanwhile_is_missed_anew_though_nothing_waited_for_it(bench):
    upload = bench.batch()
    bench.client.set(f"qc:unserved:{KEY}", 1)
    bench.announce("w1")
    bench.client.delete(f"qc:served:{KEY}")
    bench.announce("w2", keys=["iris@1:000000000000"])
    bench.sweep()
    assert bench.find(upload.job_id).status == "queued"


@pytest.mark.parametrize("kind", ["batch", "single"])
def test_job_that_is_too_old_fails(bench, kind):
    job_id = bench.batch().job_id if kind == "batch" else bench.single()[0].id
    bench.announce()
    bench.client.hset(f"qc:job:{job_id}", "created_at", 1)
    bench.client.zadd("qc:batches" if kind == "batch" else "qc:singles", {job_id: 1})
    bench.sweep()
    job = bench.find(job_id)
    assert (job.status, job.error_code) == ("failed", "deadline_exceeded")


def test_nothing_is_left_in_the_lists_of_work_when_all_has_ended(bench):
    upload = bench.batch(chunks=2)
    for _ in range(2):
        bench.commit(bench.lease(upload.job_id))
    job, (ticket,) = bench.single()
    singles = bench.leases.lease_singles([KEY], 10, ticket.id)
    bench.leases.commit_singles(singles.token, {job.id: SingleResult('{"prediction":1}')})
    bench.leases.keep_inbox(KEY, ticket.id)
    bench.store.cancel(bench.batch().job_id, "public")
    for key in ("qc:leases", "qc:batches", "qc:singles", "qc:receiving", "qc:inboxes"):
        assert not bench.client.exists(key), key
