"""Idempotency keys in the store: who has one, until when, and what repeating a script does to it."""

from urllib.parse import urlsplit

import pytest

from jobs.connection import web_client
from jobs.errors import JobGone, KeyRefused, SameRequest, StoreAway, StoreFull, UploadRefused
from jobs.ids import ID_LENGTH
from jobs.inbox_intake import SmallBatch
from jobs.intake import Bound
from jobs.keys import new_token
from jobs.record import packed_sha256
from jobs.store import Store
from tests.integration.conftest import MODEL, TENANT, Bench
from tests.proxy import Proxy

KEY = "ab" * 32
PRINT, OTHER_PRINT = "cd" * 32, "ef" * 32
NAME = f"qc:idempotency:{TENANT}:{KEY}"
DAY = 24 * 3600


def open_batch(bench, key=KEY):
    return bench.store.intake.open_batch(TENANT, "csv", MODEL, bench.layout(), key=key)


def accept_batch(bench, fingerprint=PRINT):
    upload = open_batch(bench)
    bench.store.intake.append(upload, 0, b"blob", 3)
    bench.store.intake.close(upload, 1, fingerprint)
    return upload


def accept_single(bench, fingerprint=PRINT, tenant=TENANT, key=KEY):
    return bench.store.intake.accept_single(tenant, MODEL, '{"RM":"7"}', key=key, fingerprint=fingerprint)[0]


def bound(bench, tenant=TENANT):
    return bench.store.intake.find_key(tenant, KEY)


def fall_silent(bench, upload, seconds):
    """Makes it so long since the upload gave a sign of life."""
    deadline = bench.now() + (bench.limits.upload_deadline_seconds - seconds) * 1000
    bench.client.zadd("qc:receiving", {upload.job_id: deadline}, xx=True)


def is_in_use(bench):
    with pytest.raises(KeyRefused) as refused:
        bound(bench)
    return refused.value.reason == "idempotency_key_in_use"


def test_key_is_in_use_while_the_body_arrives_and_bound_by_the_acceptance(bench):
    assert bound(bench) is None
    upload = open_batch(bench)
    assert is_in_use(bench)
    bench.store.intake.append(upload, 0, b"blob", 3)
    assert is_in_use(bench)
    bench.store.intake.close(upload, 1, PRINT)
    assert bound(bench) == Bound(upload.job_id, PRINT)


def test_key_is_bound_by_a_single_at_once(bench):
    job = accept_single(bench)
    assert bound(bench) == Bound(job.id, PRINT)


def test_same_request_is_told_the_job_and_another_one_that_the_key_is_reused(bench):
    job = accept_single(bench)
    with pytest.raises(SameRequest) as same:
        accept_single(bench)
    assert same.value.job_id == job.id
    with pytest.raises(KeyRefused, match="idempotency_key_reused"):
        accept_single(bench, OTHER_PRINT)
    assert bench.client.zrange("qc:singles", 0, -1) == [job.id.encode()]


def test_two_uploads_cannot_claim_one_key(bench):
    first = open_batch(bench)
    with pytest.raises(KeyRefused, match="idempotency_key_in_use"):
        open_batch(bench)
    with pytest.raises(KeyRefused, match="idempotency_key_in_use"):
        accept_single(bench)
    assert bench.client.zrange("qc:batches", 0, -1) == [first.job_id.encode()]


def test_upload_whose_key_was_bound_since_it_was_looked_up_is_refused(bench):
    accept_single(bench)
    with pytest.raises(KeyRefused, match="idempotency_key_in_use"):
        open_batch(bench)


def test_key_is_the_tenant_s_own(bench):
    mine, theirs = accept_single(bench), accept_single(bench, OTHER_PRINT, tenant="another")
    assert bound(bench) == Bound(mine.id, PRINT)
    assert bound(bench, "another") == Bound(theirs.id, OTHER_PRINT)


def test_no_key_leaves_no_trace(bench):
    bench.batch()
    bench.single()
    assert bench.client.keys("qc:idempotency:*") == []


def test_key_is_free_after_the_upload_was_taken_back(bench):
    upload = open_batch(bench)
    bench.store.intake.take_back(upload)
    assert bound(bench) is None
    assert bench.client.exists(NAME) == 0


def test_key_is_free_after_the_sweep_took_the_upload_back(bench):
    upload = open_batch(bench)
    bench.announce()
    fall_silent(bench, upload, 61)
    bench.sweep()
    assert bench.client.exists(NAME) == 0
    with pytest.raises(JobGone, match="upload_failed"):
        bench.find(upload.job_id)


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_key_is_free_when_the_job_is_stopped_before_its_acceptance(bench, end):
    upload = open_batch(bench)
    bench.store.intake.append(upload, 0, b"blob", 3)
    getattr(bench.store, end)(upload.job_id, TENANT)
    second = accept_batch(bench)
    # Whatever still happens to the first job, the key is the second one's.
    with pytest.raises(UploadRefused):
        bench.store.intake.close(upload, 1, OTHER_PRINT)
    bench.store.intake.take_back(upload)
    if end == "cancel":
        bench.store.delete(upload.job_id, TENANT)
    assert bound(bench) == Bound(second.job_id, PRINT)


def test_key_is_free_when_the_job_fails_before_its_acceptance(bench):
    upload = open_batch(bench)
    bench.leases.fail([upload.job_id], "model_corrupt", "The file is not the one that was added.")
    assert bound(bench) is None


@pytest.mark.parametrize("claim", [accept_batch, accept_single])
def test_upload_without_a_sign_of_life_gives_way_to_who_comes_with_its_key(bench, claim):
    dead = open_batch(bench)
    fall_silent(bench, dead, 8)
    assert is_in_use(bench)
    fall_silent(bench, dead, 11)
    assert bound(bench) is None
    claim(bench)
    with pytest.raises(JobGone, match="upload_failed"):
        bench.find(dead.job_id)
    with pytest.raises(UploadRefused, match="upload_failed"):
        bench.store.intake.append(dead, 0, b"blob", 3)
    with pytest.raises(UploadRefused, match="upload_failed"):
        bench.store.intake.close(dead, 0, PRINT)
    assert bound(bench).job_id != dead.job_id


def test_upload_that_gives_signs_of_life_keeps_its_key(bench):
    slow = open_batch(bench)
    fall_silent(bench, slow, 50)
    bench.store.intake.renew_upload(slow)
    assert is_in_use(bench)


def test_key_of_a_job_that_is_gone_without_having_been_accepted_is_free(bench):
    upload = open_batch(bench)
    bench.client.delete(f"qc:job:{upload.job_id}", f"qc:tombstone:{upload.job_id}")
    bench.client.zrem("qc:receiving", upload.job_id)
    assert bound(bench) is None
    second = accept_batch(bench)
    assert bound(bench) == Bound(second.job_id, PRINT)


@pytest.mark.parametrize("ttl", [7200, 2 * DAY])
def test_key_stays_as_long_as_the_tombstone_and_a_day_at_least(bench_with, ttl):
    bench = bench_with(tombstone_ttl_seconds=ttl)
    longest = max(ttl, DAY)

    def check(job_id):
        for name in (NAME, f"qc:tombstone:{job_id}"):
            assert longest - 5 <= bench.client.ttl(name) <= longest
            bench.client.expire(name, longest - 100)  # as if some time had passed

    check(open_batch(bench).job_id)
    bench.client.flushdb()
    job_id = accept_batch(bench).job_id
    check(job_id)
    bench.store.cancel(job_id, TENANT)
    check(job_id)
    bench.client.expire(f"qc:job:{job_id}", 1)
    bench.store.hold(job_id, 10)
    check(job_id)
    bench.store.delete(job_id, TENANT)
    check(job_id)


def test_key_of_a_job_that_is_gone_leads_to_the_reason(bench):
    job = accept_single(bench)
    bench.store.delete(job.id, TENANT)
    assert bound(bench) == Bound(job.id, PRINT)
    with pytest.raises(JobGone, match="job_deleted"):
        bench.find(job.id)


def test_key_that_was_freed_can_be_had_again(bench):
    first = accept_single(bench)
    bench.store.intake.free_key(first)
    second = accept_single(bench, OTHER_PRINT)
    bench.store.intake.free_key(first)
    assert bound(bench) == Bound(second.id, OTHER_PRINT)


def test_key_that_is_kept_is_not_freed(bench):
    job = accept_single(bench)
    assert bench.store.intake.keep_key(job)
    bench.store.cancel(job.id, TENANT)
    bench.store.intake.free_key(job)
    assert bound(bench) == Bound(job.id, PRINT)


def test_key_that_a_job_has_no_more_cannot_be_kept(bench):
    first = accept_single(bench)
    bench.store.intake.free_key(first)
    second = accept_single(bench)
    assert not bench.store.intake.keep_key(first)
    bench.store.delete(second.id, TENANT)
    assert not bench.store.intake.keep_key(second)
    assert bench.client.exists(f"qc:job:{second.id}") == 0
    assert bound(bench) == Bound(second.id, PRINT)


def scripts_of(bench):
    return bench.store._scripts.call


def test_opening_closing_and_accepting_twice_change_nothing(bench):
    """What the web's client does when a connection breaks before the answer came."""
    call = scripts_of(bench)
    bench.open()
    generation = bench.client.get("qc:generation").decode()
    token, job_id, single = new_token(), "a" * ID_LENGTH, "b" * ID_LENGTH
    opening = (MODEL.key, MODEL.sha256, bench.layout().to_json(), token, "0", 0, KEY)
    assert [call("open", job_id, generation, TENANT, "csv", *opening) for _ in range(2)] == [b"ok", b"ok"]
    assert is_in_use(bench)
    call("append", job_id, token, 0, 3, b"blob", "nonce")
    assert [call("close", job_id, token, 1, PRINT) for _ in range(2)] == [b"ok", b"ok"]
    assert bound(bench) == Bound(job_id, PRINT)
    bench.client.delete(NAME)
    accepting = (MODEL.key, packed_sha256(MODEL.sha256), "inbox-x", KEY, PRINT, 10, "input", '{"RM":"7"}')
    items = (single, generation, TENANT, *accepting)
    [first], [again] = [call("accept_singles", 5000, len(items), *items) for _ in range(2)]
    assert first == again
    assert first.startswith(b"front ")
    assert bound(bench) == Bound(single, PRINT)


@pytest.fixture
def lossy(bench, store_url):
    """A proxy in front of the store, and the store as a web process sees it through that."""
    parts = urlsplit(store_url)
    with Proxy(parts.hostname, parts.port) as proxy:
        place = parts.netloc.replace(f":{parts.port}", f":{proxy.port}")
        with web_client(parts._replace(netloc=place).geturl()) as client:
            store = Store(client, bench.limits)
            store.intake.accept_single(TENANT, MODEL, '{"RM":"7"}')  # it is connected
            bench.load_scripts()
            yield proxy, store


@pytest.mark.parametrize("lose", [Proxy.drop_replies, Proxy.drop_requests])
def test_single_is_accepted_once_when_the_connection_breaks_over_it(bench, lossy, lose):
    proxy, store = lossy
    before = bench.client.zcard("qc:singles")
    lose(proxy)
    job, _ = store.intake.accept_single(TENANT, MODEL, '{"RM":"7"}', key=KEY, fingerprint=PRINT)
    assert proxy.undropped == 0
    assert bound(bench) == Bound(job.id, PRINT)
    assert bench.client.zcard("qc:singles") == before + 1


@pytest.mark.parametrize("lose", [Proxy.drop_replies, Proxy.drop_requests])
@pytest.mark.parametrize("step", ["open", "close"])
def test_batch_is_accepted_once_when_the_connection_breaks_over_it(bench, lossy, lose, step):
    proxy, store = lossy
    accept_batch(bench)
    bench.client.delete(NAME)  # all scripts are loaded
    if step == "open":
        lose(proxy)
    upload = store.intake.open_batch(TENANT, "csv", MODEL, bench.layout(), key=KEY)
    store.intake.append(upload, 0, b"blob", 3)
    if step == "close":
        lose(proxy)
    job = store.intake.close(upload, 1, PRINT)
    assert proxy.undropped == 0
    assert (job.id, job.status) == (upload.job_id, "queued")
    assert bound(bench) == Bound(job.id, PRINT)
    assert bench.client.zcard("qc:batches") == 2


def test_single_whose_acceptance_was_never_heard_of_is_found(bench, lossy):
    proxy, store = lossy
    proxy.drop_replies(2)
    with pytest.raises(StoreAway):
        store.intake.accept_single(TENANT, MODEL, '{"RM":"7"}', key=KEY, fingerprint=PRINT)
    job_id = bound(bench).job_id
    with pytest.raises(SameRequest) as same:
        accept_single(bench)
    assert same.value.job_id == job_id


@pytest.fixture
def filling(bench, lossy, monkeypatch):
    """The same; the store is full from the moment at which the first reply or request is dropped."""
    proxy, store = lossy
    lose = proxy.loses

    def loses(kind):
        lost = lose(kind)
        if lost:
            bench.client.config_set("maxmemory", 1)
        return lost

    monkeypatch.setattr(proxy, "loses", loses)
    yield proxy, store
    bench.client.config_set("maxmemory", 0)


@pytest.mark.parametrize("is_stopped", [False, True])
@pytest.mark.parametrize("lose", [Proxy.drop_replies, Proxy.drop_requests])
def test_close_that_ran_is_an_acceptance_also_when_the_store_is_full_at_its_repetition(
    bench, filling, lose, is_stopped
):
    proxy, store = filling
    upload = accept_batch(bench)
    bench.client.delete(NAME)  # the script is loaded
    upload = open_batch(bench)
    bench.store.intake.append(upload, 0, b"blob", 3)
    if is_stopped:
        bench.store.cancel(upload.job_id, TENANT)
    lose(proxy)
    if lose is Proxy.drop_replies and not is_stopped:
        assert store.intake.close(upload, 1, PRINT).status == "queued"
        assert bound(bench) == Bound(upload.job_id, PRINT)
    else:
        with pytest.raises(StoreFull):
            store.intake.close(upload, 1, PRINT)
        assert bench.client.hget(f"qc:job:{upload.job_id}", "closed") is None
    assert proxy.undropped == 0


def accept_small(store):
    batch = SmallBatch(b'[["7"]]', 1, 10.0, 0.1, 100)
    return store.intake.accept_batch(TENANT, MODEL, Bench.layout(None), batch, key=KEY, fingerprint=PRINT)


def accept_one(store):
    return store.intake.accept_single(TENANT, MODEL, '{"RM":"7"}', key=KEY, fingerprint=PRINT)


@pytest.mark.parametrize("accept", [accept_one, accept_small])
@pytest.mark.parametrize("lose", [Proxy.drop_replies, Proxy.drop_requests])
def test_acceptance_that_ran_is_one_also_when_the_store_is_full_at_its_repetition(bench, filling, lose, accept):
    proxy, store = filling
    accept(bench.store)
    bench.client.delete(NAME)  # the script is loaded
    lose(proxy)
    if lose is Proxy.drop_replies:
        job, tickets = accept(store)
        assert (job.status, len(tickets)) == ("queued", 1)
        assert bench.find(job.id).created_at == job.created_at
        assert bound(bench) == Bound(job.id, PRINT)
    else:
        with pytest.raises(StoreFull):
            accept(store)
        assert bound(bench) is None
    assert proxy.undropped == 0


@pytest.mark.parametrize("is_retry", [False, True])
@pytest.mark.parametrize("lose", [Proxy.drop_replies, Proxy.drop_requests])
def test_upload_that_was_opened_can_go_on_also_when_the_store_is_full_at_its_repetition(bench, filling, lose, is_retry):
    proxy, store = filling
    ended = bench.store.cancel(bench.batch(1).job_id, TENANT)

    def begin():
        intake = store.intake
        return intake.open_retry(ended) if is_retry else intake.open_batch(TENANT, "csv", MODEL, bench.layout())

    lose(proxy)
    if lose is Proxy.drop_replies:
        upload = begin()
        bench.client.config_set("maxmemory", 0)
        if is_retry:
            bench.store.intake.copy_chunks(upload, ended, [0], "both")
        else:
            bench.store.intake.append(upload, 0, b"blob", 3)
        assert bench.store.intake.close(upload, 1).status == "queued"
    else:
        with pytest.raises(StoreFull):
            begin()
        assert bench.client.zcard("qc:receiving") == 0
    assert proxy.undropped == 0


@pytest.mark.parametrize("lose", [Proxy.drop_replies, Proxy.drop_requests])
def test_batch_whose_acceptance_was_never_heard_of_is_wholly_there_or_wholly_absent(bench, lossy, lose):
    proxy, store = lossy
    upload = open_batch(bench)
    bench.store.intake.append(upload, 0, b"blob", 3)
    lose(proxy, 2)
    with pytest.raises(StoreAway):
        store.intake.close(upload, 1, PRINT)
    if lose is Proxy.drop_requests:
        assert is_in_use(bench)
        fall_silent(bench, upload, 11)
        upload = accept_batch(bench)
    assert bound(bench) == Bound(upload.job_id, PRINT)
    assert bench.client.zrange("qc:batches", 0, -1) == [upload.job_id.encode()]


def test_store_that_comes_back_empty_knows_no_keys(bench):
    accept_single(bench)
    bench.client.flushdb()
    job = accept_single(bench, OTHER_PRINT)
    assert bound(bench) == Bound(job.id, OTHER_PRINT)
