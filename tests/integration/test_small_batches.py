"""Small JSON batches in the store: accepted in one step, and never lost although their place in the inbox may be."""

from urllib.parse import urlsplit

import pytest

from jobs.codec.layout import plan
from jobs.connection import web_client
from jobs.errors import JobGone, KeyRefused, SameRequest, StoreAway, StoreFull
from jobs.inbox_intake import SmallBatch
from jobs.intake import Bound
from jobs.leases import ChunkResult
from jobs.store import Store
from tests.integration.conftest import MODEL, TENANT
from tests.proxy import Proxy

INBOX = f"qc:inbox:{MODEL.key}"
WAITING = INBOX + ":batches"
RATE = f"qc:rate:{MODEL.key}"
LAYOUT = plan(format="json", names=("RM",), features=("RM",), classes=None, has_probabilities=False)
KEY, PRINT, OTHER_PRINT = "ab" * 32, "cd" * 32, "ef" * 32
SECONDS, UNMEASURED = 0.1, 128


def small(rows=3, row_bytes=20.0):
    chunk = b"".join(b'{"RM":%d}\n' % row for row in range(rows))
    return SmallBatch(chunk, rows, row_bytes, most_seconds=SECONDS, unmeasured_rows=UNMEASURED)


def accept(bench, batch=None, store=None, **facts):
    return (store or bench.store).intake.accept_batch(TENANT, MODEL, LAYOUT, batch or small(), **facts)


def accepted(bench, rows=3):
    """The job of a batch that was accepted."""
    job, _ = accept(bench, small(rows))
    return job


def nothing_is_there(bench):
    left = {key.decode() for key in bench.client.keys("qc:*")}
    return left <= {"qc:generation", RATE}


@pytest.fixture
def lossy(bench, store_url):
    """A proxy, and a store as a web process reaches it through the proxy; it knows the generation and the script."""
    port = urlsplit(store_url).port
    with (
        Proxy("127.0.0.1", port) as proxy,
        web_client(store_url.replace(f":{port}/", f":{proxy.port}/")) as client,
    ):
        store = Store(client, bench.limits)
        job, _ = accept(bench, store=store)
        store.delete(job.id, TENANT)
        bench.client.delete(*bench.client.keys(INBOX + "*"))
        yield proxy, store


def test_small_batch_is_whole_from_the_start(bench):
    job, (ticket,) = accept(bench)
    assert (job.kind, job.form, job.status) == ("batch", "json", "queued")
    assert (job.rows_received, job.rows_total, job.chunks_received, job.rows_done) == (3, 3, 1, 0)
    assert (job.model, job.layout) == (MODEL, LAYOUT)
    assert bench.find(job.id) == job
    assert bench.store.input(job.id, 0) == small().chunk
    assert [(chunk.index, chunk.rows, chunk.done) for chunk in bench.store.chunks(job)] == [(0, 3, False)]
    assert (ticket.function, ticket.arguments, ticket.front) == ("work_on_inbox", (MODEL.key,), True)
    assert bench.store.listing.page(TENANT, None, None, 10, None)[0] == [job]


def test_small_batches_and_singles_of_a_model_share_one_ticket(bench):
    _, tickets = accept(bench)
    assert len(tickets) == 1
    assert accept(bench)[1] == []
    assert bench.single()[1] == []


def test_inbox_does_not_end_while_a_small_batch_waits(bench):
    job, (ticket,) = accept(bench)
    assert bench.leases.keep_inbox(MODEL.key, ticket.id)
    assert bench.leases.next_small_batch(MODEL.key) == job.id
    assert bench.leases.next_small_batch(MODEL.key) is None
    assert not bench.leases.keep_inbox(MODEL.key, ticket.id)
    assert bench.client.keys(INBOX + "*") == []
    assert len(accept(bench)[1]) == 1


def test_bell_is_gone_with_the_end_of_the_inbox(bench):
    _, (ticket,) = bench.single()
    bench.leases.lease_singles([MODEL.key], 1, ticket.id)
    accept(bench)
    assert bench.client.llen(INBOX + ":bell") == 1  # rung, and heard by nobody
    bench.leases.next_small_batch(MODEL.key)
    assert not bench.leases.keep_inbox(MODEL.key, ticket.id)
    assert bench.client.keys(INBOX + "*") == []


def test_small_batches_are_taken_in_their_order(bench):
    jobs = [accepted(bench) for _ in range(3)]
    assert [bench.leases.next_small_batch(MODEL.key) for _ in jobs] == [job.id for job in jobs]


def test_commit_of_its_chunk_ends_it_and_leaves_nothing_in_the_lists(bench):
    job, (ticket,) = accept(bench)
    bench.leases.next_small_batch(MODEL.key)
    assert bench.leases.describe(job.id) == (MODEL, LAYOUT)
    chunk = bench.leases.lease(job.id, -1, ticket.id)
    assert (chunk.blob, chunk.rows) == (small().chunk, 3)
    assert bench.find(job.id).status == "running"
    bench.commit(chunk, failed=1)
    ended = bench.find(job.id)
    assert (ended.status, ended.rows_ok, ended.rows_failed) == ("succeeded", 2, 1)
    bench.leases.keep_inbox(MODEL.key, ticket.id)
    left = {key.decode() for key in bench.client.keys("qc:*")} - {"qc:generation", "qc:turn"}
    assert all(job.id in key or key == f"qc:jobs:{TENANT}:batch" for key in left)


def test_batch_that_nobody_has_measured_is_large_beyond_so_many_rows(bench):
    assert accept(bench, small(UNMEASURED + 1)) is None
    assert nothing_is_there(bench)
    assert accept(bench, small(UNMEASURED)) is not None


@pytest.mark.parametrize("rate", [50, 1_000, 1_000_000])
def test_batch_is_large_when_the_measured_speed_of_its_model_says_so(bench, rate):
    bench.client.set(RATE, rate)
    most = int(rate * SECONDS)
    assert accept(bench, small(most + 1)) is None
    assert nothing_is_there(bench)
    assert accept(bench, small(most)) is not None


def test_speed_of_a_small_batch_is_learned(bench):
    job = accepted(bench, rows=100)
    result = ChunkResult(100, 0, 10, False, b"result", b"", seconds=2.0)
    bench.leases.commit(bench.lease(job.id).lease, result, keep_input=True)
    assert float(bench.client.get(RATE)) == 50
    assert accept(bench, small(6)) is None
    assert accept(bench, small(5)) is not None


def test_sweep_asks_for_a_batch_whose_place_in_the_inbox_was_lost(bench):
    job = accepted(bench)
    bench.client.delete(WAITING)
    (ticket,) = bench.sweep()
    assert (ticket.function, ticket.arguments, ticket.front) == ("work_on_job", (job.id, 0), True)
    bench.commit(bench.leases.lease(job.id, 0, ticket.id))
    assert bench.find(job.id).status == "succeeded"
    assert bench.leases.hand_on_slot(job.id, 0, ticket.id, front=False) is None


def test_sweep_asks_for_a_batch_that_was_taken_from_the_inbox_and_never_leased(bench):
    job = accepted(bench)
    bench.leases.next_small_batch(MODEL.key)  # the worker dies
    assert [ticket.arguments for ticket in bench.sweep()] == [(job.id, 0)]


def test_batch_of_a_dead_worker_is_asked_for(bench):
    job = accepted(bench)
    bench.leases.next_small_batch(MODEL.key)
    bench.lease(job.id)
    bench.let_leases_lapse()
    assert [ticket.arguments for ticket in bench.sweep()] == [(job.id, 0)]
    assert bench.lease_as("w2", job.id) is not None


def test_place_in_the_inbox_of_a_batch_that_a_ticket_brought_to_its_end_harms_nothing(bench):
    job = accepted(bench)
    assert bench.sweep() == []  # nobody needs another ticket for it: the inbox has one
    bench.commit(bench.lease(job.id))
    assert bench.leases.next_small_batch(MODEL.key) is None
    assert bench.lease(job.id) is None
    assert bench.find(job.id).rows_ok == 3


def test_batch_that_was_canceled_before_it_was_begun_is_not_worked_on(bench):
    job = accepted(bench)
    canceled = bench.store.cancel(job.id, TENANT)
    assert (canceled.status, canceled.rows_done, canceled.rows_total) == ("canceled", 0, 3)
    bench.leases.next_small_batch(MODEL.key)
    assert bench.lease(job.id) is None
    assert bench.sweep() == []
    assert bench.client.hlen("qc:promised") == 0
    assert bench.store.input(job.id, 0) == small().chunk  # it may be retried


def test_batch_that_was_deleted_leaves_only_its_tombstone(bench):
    job, (ticket,) = accept(bench)
    bench.store.delete(job.id, TENANT)
    assert [key.decode() for key in bench.client.keys(f"*{job.id}*")] == [f"qc:tombstone:{job.id}"]
    with pytest.raises(JobGone) as gone:
        bench.find(job.id)
    assert gone.value.reason == "job_deleted"
    assert bench.leases.describe(bench.leases.next_small_batch(MODEL.key)) is None
    assert not bench.leases.keep_inbox(MODEL.key, ticket.id)


def test_same_request_is_told_the_batch_and_another_one_that_the_key_is_reused(bench):
    job, _ = accept(bench, key=KEY, fingerprint=PRINT)
    assert bench.store.intake.find_key(TENANT, KEY) == Bound(job.id, PRINT)
    with pytest.raises(SameRequest) as same:
        accept(bench, key=KEY, fingerprint=PRINT)
    assert same.value.job_id == job.id
    with pytest.raises(KeyRefused, match="idempotency_key_reused"):
        accept(bench, key=KEY, fingerprint=OTHER_PRINT)
    assert bench.client.zrange("qc:batches", 0, -1) == [job.id.encode()]
    assert bench.client.llen(WAITING) == 1


def test_key_of_an_upload_that_goes_on_is_in_use(bench):
    bench.store.intake.open_batch(TENANT, "json", MODEL, LAYOUT, key=KEY)
    with pytest.raises(KeyRefused, match="idempotency_key_in_use"):
        accept(bench, key=KEY, fingerprint=PRINT)


def test_large_batch_leaves_its_key_free(bench):
    assert accept(bench, small(UNMEASURED + 1), key=KEY, fingerprint=PRINT) is None
    assert bench.store.intake.find_key(TENANT, KEY) is None


def test_key_lives_as_long_as_the_tombstone(bench):
    def is_so():
        key_ttl, tombstone_ttl = map(bench.client.ttl, names)
        return abs(key_ttl - tombstone_ttl) <= 1

    job, _ = accept(bench, key=KEY, fingerprint=PRINT)
    names = [f"qc:idempotency:{TENANT}:{KEY}", f"qc:tombstone:{job.id}"]
    assert is_so()
    bench.commit(bench.lease(job.id))
    assert is_so()


@pytest.mark.parametrize(("row_bytes", "budget_bytes"), [(20.0, 1), (float(1 << 30), 1 << 30)])
def test_store_without_room_for_it_or_for_its_results_refuses_it_and_keeps_nothing(bench_with, row_bytes, budget_bytes):
    bench = bench_with(store_budget_bytes=budget_bytes)
    with pytest.raises(StoreFull):
        accept(bench, small(row_bytes=row_bytes), key=KEY, fingerprint=PRINT)
    assert nothing_is_there(bench)


def test_results_of_small_batches_are_promised_until_they_are_there(bench):
    first, second = accepted(bench, rows=3), accepted(bench, rows=5)
    promised = {job_id.decode(): int(left) for job_id, left in bench.client.hgetall("qc:promised").items()}
    assert promised == {first.id: 60, second.id: 100}
    bench.commit(bench.lease(first.id))
    assert bench.client.hkeys("qc:promised") == [second.id.encode()]


def test_batch_is_accepted_once_when_the_answer_was_lost(bench, lossy):
    proxy, store = lossy
    proxy.drop_replies(1)
    job, tickets = accept(bench, store=store, key=KEY, fingerprint=PRINT)
    assert proxy.undropped == 0
    assert bench.find(job.id) == job
    assert (job.rows_received, job.chunks_received) == (3, 1)
    assert bench.client.zrange("qc:batches", 0, -1) == [job.id.encode()]
    assert bench.client.llen(f"qc:job:{job.id}:waiting") == 1
    assert bench.client.llen(WAITING) == 1
    assert bench.client.hgetall("qc:promised") == {job.id.encode(): b"60"}
    mark = bench.client.get(INBOX + ":mark").decode()
    assert [ticket.id for ticket in tickets] == [mark]


def test_replay_after_a_worker_has_begun_changes_nothing(bench):
    """The web process hears so late that it repeats the call when the batch has been worked on already."""
    job_id, generation = bench.store.intake._lookup.new_id(TENANT)
    batch = small()
    facts = (job_id, generation, TENANT, MODEL.key, MODEL.sha256, LAYOUT.to_json(), "20.000", batch.rows, batch.chunk)
    arguments = (*facts, UNMEASURED, SECONDS, "inbox-1", 5000, KEY, PRINT)
    call = bench.store.intake._scripts.call
    assert call("accept_batch", *arguments).startswith(b"front ")
    assert bench.leases.next_small_batch(MODEL.key) == job_id
    chunk = bench.lease(job_id)
    running = bench.find(job_id)
    assert call("accept_batch", *arguments).startswith(b"front ")
    assert bench.find(job_id) == running
    assert bench.client.llen(WAITING) == 0
    assert bench.client.llen(f"qc:job:{job_id}:waiting") == 0
    bench.commit(chunk)
    ended = bench.find(job_id)
    bench.client.delete(INBOX + ":mark")
    assert call("accept_batch", *arguments).startswith(b"ok ")
    assert bench.find(job_id) == ended


@pytest.mark.parametrize(("lose", "there"), [(Proxy.drop_requests, False), (Proxy.drop_replies, True)])
def test_batch_that_nobody_heard_of_is_wholly_there_or_wholly_absent(bench, lossy, lose, there):
    proxy, store = lossy
    lose(proxy, 2)
    with pytest.raises(StoreAway):
        accept(bench, store=store, key=KEY, fingerprint=PRINT)
    bound = bench.store.intake.find_key(TENANT, KEY)
    assert bool(bound) is there
    assert bench.client.zcard("qc:batches") == bench.client.llen(WAITING) == int(there)
    if bound:
        assert bench.find(bound.job_id).rows_total == 3
        with pytest.raises(SameRequest):
            accept(bench, store=store, key=KEY, fingerprint=PRINT)


def test_small_batches_fail_when_nobody_has_their_model(bench):
    job = accepted(bench)
    bench.announce("w2", keys=())
    bench.client.set(f"qc:unserved:{MODEL.key}", bench.now() - 60_001)
    bench.sweep()
    failed = bench.find(job.id)
    assert (failed.status, failed.error_code) == ("failed", "model_unavailable")


def test_every_key_of_a_small_batch_has_an_expiry(bench):
    without = {"qc:generation", "qc:batches", "qc:leases", "qc:inboxes", "qc:promised"}
    job, _ = accept(bench, key=KEY, fingerprint=PRINT)
    accept(bench)  # it finds a mark
    for step in (lambda: None, lambda: bench.lease(job.id), lambda: bench.store.cancel(job.id, TENANT)):
        step()
        lasting = {key.decode() for key in bench.client.keys("qc:*") if bench.client.ttl(key) == -1}
        assert lasting <= without
