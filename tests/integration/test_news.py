"""What the scripts publish of each change, and how those who wait hear of it: also when a message gets lost."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from time import monotonic
from urllib.parse import urlsplit

import pytest

from jobs.connection import news_client
from jobs.inbox_leases import SingleResult
from jobs.news import LOOK_AGAIN, LOOK_SECONDS, News
from jobs.record import changed
from jobs.scripts import LUA
from tests.integration.conftest import MODEL, TENANT
from tests.proxy import Proxy
from tests.waiting import wait_until

RESULT = SingleResult('{"prediction":29.04}')
SOON_SECONDS = 5.0  # for what is told at once, on a machine that is busy


@contextmanager
def listening(url):
    """News of a store, once it is there; its thread ends with the block."""
    news = News(lambda: news_client(url))
    news.watch()
    wait_until(lambda: news.is_live, SOON_SECONDS, "there is no subscription")
    try:
        yield news
    finally:
        end(news)


def end(news):
    news.close()
    wait_until(lambda: not news._thread.is_alive(), SOON_SECONDS, "the listener goes on after the end")


@pytest.fixture(scope="module")
def news(store_url):
    with listening(store_url) as news:
        yield news


@pytest.fixture
def own(redis_client, store_url):
    """News that a test may disturb."""
    with listening(store_url) as news:
        yield news


@pytest.fixture
def remote(redis_client, store_url):
    """News of the store behind a proxy, and the proxy."""
    port = urlsplit(store_url).port
    with Proxy("127.0.0.1", port) as proxy, listening(store_url.replace(f":{port}/", f":{proxy.port}/")) as news:
        yield news, proxy


def subscriptions(bench):
    return [client["id"] for client in bench.client.client_list(_type="pubsub")]


def told(watch, seconds=SOON_SECONDS):
    """The next change that was published."""
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        change = watch.wait(deadline - monotonic())
        if change is not None and change is not LOOK_AGAIN:
            return change
    raise AssertionError("nothing was told")


def catch_up(bench, news):
    """Returns when the listener has heard of all that was published so far."""
    with news.watch() as watch:
        job, _ = bench.single()
        watch.add(job.id)
        bench.store.cancel(job.id, TENANT)
        told(watch)


def told_nothing(bench, watch):
    """Whether a watch has heard of nothing so far."""
    catch_up(bench, watch._news)
    return watch.wait(0) is None


def progress(watch):
    """Whether the next change is one that does not end the job."""
    return not told(watch).ended


def lease(bench, job):
    return bench.leases.lease_singles([job.model.key], 1, "t")


def end_by(result):
    def end(bench, job):
        bench.leases.commit_singles(lease(bench, job).token, {job.id: result})

    return end


def cancel(bench, job):
    bench.store.cancel(job.id, TENANT)


def cancel_leased(bench, job):
    lease(bench, job)
    cancel(bench, job)


def fail(bench, job):
    bench.leases.fail([job.id], "model_corrupt", "The file of the model is damaged.")


def let_it_get_too_old(bench, job):
    old = bench.now() - 86_400_001
    bench.client.zadd("qc:singles", {job.id: old})
    bench.sweep()


def let_nobody_have_its_model(bench, job):
    bench.announce("w2", keys=())
    bench.client.set(f"qc:unserved:{job.model.key}", bench.now() - 60_001)
    bench.sweep()


ENDS = [
    (end_by(RESULT), "succeeded", None),
    (end_by(SingleResult('{"prediction":"' + "é" * 150 + '"}')), "succeeded", None),
    (end_by(SingleResult(None, "model_error", "The model refused it.", "RM")), "failed", "model_error"),
    (cancel, "canceled", None),
    (cancel_leased, "canceled", None),
    (fail, "failed", "model_corrupt"),
    (let_it_get_too_old, "failed", "deadline_exceeded"),
    (let_nobody_have_its_model, "failed", "model_unavailable"),
]


@pytest.mark.parametrize(("end", "status", "code"), ENDS)
def test_end_of_a_single_is_told_with_all_that_its_record_says(bench, news, end, status, code):
    with news.watch() as watch:
        job, _ = bench.store.intake.accept_single(TENANT, MODEL, '{"RM":"7"}', on_id=watch.add)
        end(bench, job)
        change = told(watch)
    assert change.ended
    ended = changed(job, change.fields)
    assert ended == bench.find(job.id)
    assert (ended.status, ended.error_code) == (status, code)


def test_long_result_does_not_travel_in_the_message(bench, news):
    most = int((LUA / "shared" / "singles.lua").read_text().partition("MOST_TOLD_BYTES = ")[2].split()[0])
    frame = len('result{"prediction":""}')
    with news.watch() as watch:
        for size, travels in ((most - frame, True), (most - frame + 1, False)):
            job, _ = bench.store.intake.accept_single(TENANT, MODEL, '{"RM":"7"}', on_id=watch.add)
            end_by(SingleResult(json.dumps({"prediction": "x" * size}, separators=(",", ":"))))(bench, job)
            change = told(watch)
            assert change.ended
            assert bool(change.fields) is travels


def test_end_after_attempts_is_read_from_the_record(bench, news):
    job, _ = bench.single()
    singles = lease(bench, job)
    bench.leases.note_singles(singles.token, [job.id], "crashed", 0.1, "nonce")
    with news.watch() as watch:
        watch.add(job.id)
        bench.leases.commit_singles(singles.token, {job.id: RESULT})
        change = told(watch)
    assert change.ended
    assert change.fields is None


def test_ends_of_one_commit_are_told_to_each_who_waits(bench, news):
    jobs = [bench.single(f'{{"RM":{number}}}')[0] for number in range(20)]
    with ExitStack() as stack:
        watches = [stack.enter_context(news.watch()) for _ in jobs]
        for job, watch in zip(jobs, watches, strict=True):
            watch.add(job.id)
        singles = bench.leases.lease_singles([MODEL.key], 20, "t")
        results = {job.id: SingleResult(f'{{"prediction":{number}}}') for number, job in enumerate(jobs)}
        bench.leases.commit_singles(singles.token, results)
        for number, watch in enumerate(watches):
            assert told(watch).fields["result"] == f'{{"prediction":{number}}}'


def test_what_was_not_held_any_more_is_not_told(bench, news):
    job, _ = bench.single()
    singles = lease(bench, job)
    bench.store.cancel(job.id, TENANT)
    catch_up(bench, news)
    with news.watch() as watch:
        watch.add(job.id)
        bench.leases.commit_singles(singles.token, {job.id: RESULT})
        bench.leases.fail([job.id], "model_corrupt", "x")
        assert told_nothing(bench, watch)


@pytest.mark.parametrize("make", [lambda bench: bench.single()[0].id, lambda bench: bench.batch().job_id])
@pytest.mark.parametrize("ended", [False, True])
def test_deletion_is_told_without_fields(bench, news, make, ended):
    job_id = make(bench)
    if ended:
        bench.store.cancel(job_id, TENANT)
        catch_up(bench, news)
    with news.watch() as watch:
        watch.add(job_id)
        bench.store.delete(job_id, TENANT)
        change = told(watch)
    assert change.ended
    assert change.fields is None


def test_batch_tells_each_step_of_its_way(bench, news):
    upload = bench.open()
    with news.watch(until_end=False) as watch:
        watch.add(upload.job_id)
        for index in range(2):
            bench.store.intake.append(upload, index, b"blob", 3)
            assert progress(watch)
        bench.store.intake.close(upload, 2)
        assert progress(watch)
        first, second = bench.lease(upload.job_id), bench.lease(upload.job_id)
        assert progress(watch)  # it is running: said once
        bench.commit(first)
        assert progress(watch)
        bench.commit(second)
        assert told(watch).ended
        assert told_nothing(bench, watch)


def test_who_waits_for_the_end_of_a_batch_hears_of_nothing_else(bench, news):
    upload = bench.batch(chunks=2)
    with news.watch() as watch:
        watch.add(upload.job_id)
        bench.commit(bench.lease(upload.job_id))
        assert told_nothing(bench, watch)
        bench.commit(bench.lease(upload.job_id))
        change = told(watch)
    assert change.ended
    assert bench.find(upload.job_id).status == "succeeded"


def test_close_that_ends_a_batch_is_told_as_its_end(bench, news):
    upload = bench.batch(chunks=1, close=False)
    bench.commit(bench.lease(upload.job_id))
    catch_up(bench, news)
    with news.watch(until_end=False) as watch:
        watch.add(upload.job_id)
        bench.store.intake.close(upload, 1)
        assert told(watch).ended


def drop_upload(bench, upload):
    bench.client.zadd("qc:receiving", {upload.job_id: 1})
    bench.sweep()


def let_batch_get_too_old(bench, upload):
    bench.client.hset(f"qc:job:{upload.job_id}", "created_at", bench.now() - 86_400_001)
    bench.sweep()


@pytest.mark.parametrize(
    ("end", "closed"),
    [
        (lambda bench, upload: bench.store.cancel(upload.job_id, TENANT), True),
        (lambda bench, upload: bench.leases.fail([upload.job_id], "model_corrupt", "x"), True),
        (lambda bench, upload: bench.store.intake.take_back(upload), False),
        (let_batch_get_too_old, True),
        (drop_upload, False),
    ],
)
def test_end_of_a_batch_is_told_whoever_brings_it_about(bench, news, end, closed):
    upload = bench.batch(close=closed)
    with news.watch() as watch:
        watch.add(upload.job_id)
        end(bench, upload)
        assert told(watch).ended


def test_news_of_a_job_comes_from_the_watch_on_and_not_from_before(bench, news):
    upload = bench.batch(chunks=3)
    bench.commit(bench.lease(upload.job_id))
    catch_up(bench, news)
    with news.watch(until_end=False) as watch:
        watch.add(upload.job_id)
        assert told_nothing(bench, watch)
        bench.commit(bench.lease(upload.job_id))
        assert progress(watch)


def test_watch_that_was_left_hears_nothing(bench, news):
    upload = bench.batch(chunks=2)
    catch_up(bench, news)
    with news.watch(until_end=False) as stays:
        stays.add(upload.job_id)
        with news.watch(until_end=False) as left:
            left.add(upload.job_id)
        bench.lease(upload.job_id)
        assert progress(stays)
        assert left.wait(0) is None


def test_nothing_stays_of_watches_however_they_end(bench, news):
    with suppress(KeyError), news.watch() as watch:
        watch.add("a job that never was")
        raise KeyError
    upload = bench.batch()
    with news.watch() as watch:
        watch.add(upload.job_id)
        watch.add(upload.job_id)
        bench.store.delete(upload.job_id, TENANT)
        told(watch)
    assert news._listeners == {}


def test_many_who_wait_share_one_subscription_and_all_hear(bench, news):
    job, _ = bench.single()
    others = [bench.single()[0] for _ in range(10)]
    all_there = threading.Barrier(51)

    def wait(number):
        with news.watch() as watch:
            watch.add(job.id)
            watch.add(others[number % 10].id)
            all_there.wait(30)
            return told(watch)

    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(wait, number) for number in range(50)]
        all_there.wait(30)
        assert len(subscriptions(bench)) == 1
        bench.store.cancel(job.id, TENANT)
        assert all(found.result().fields["status"] == "canceled" for found in waiting)
    assert news._listeners == {}


def test_subscription_begins_with_the_first_who_waits(bench, store_url):
    before = subscriptions(bench)
    news = News(lambda: news_client(store_url))
    assert subscriptions(bench) == before
    news.watch()
    wait_until(lambda: len(subscriptions(bench)) > len(before), SOON_SECONDS, "there is no subscription")
    end(news)
    wait_until(lambda: subscriptions(bench) == before, SOON_SECONDS, "the subscription goes on")


def test_killed_connection_costs_a_moment_and_no_answer(bench, own):
    job, _ = bench.single()
    with own.watch() as watch:
        watch.add(job.id)
        began = monotonic()
        bench.client.client_kill_filter(_type="pubsub")
        bench.store.cancel(job.id, TENANT)  # nobody listens
        change = wait_until(lambda: watch.wait(LOOK_SECONDS), SOON_SECONDS, "nobody says to look again")
        assert change is LOOK_AGAIN
        assert monotonic() - began < 2 * LOOK_SECONDS
    wait_until(lambda: own.is_live, SOON_SECONDS, "there is no subscription again")
    with own.watch() as watch:
        other, _ = bench.store.intake.accept_single(TENANT, MODEL, "{}", on_id=watch.add)
        bench.store.cancel(other.id, TENANT)
        assert told(watch).fields["status"] == "canceled"


def test_connection_that_is_killed_again_and_again_comes_back_each_time(bench, own):
    for _ in range(3):
        killed = subscriptions(bench)
        bench.client.client_kill_filter(_type="pubsub")
        wait_until(lambda killed=killed: set(subscriptions(bench)) - set(killed), SOON_SECONDS, "it stays away")
        wait_until(lambda: own.is_live, SOON_SECONDS, "it stays away")


def test_while_the_store_does_not_answer_nobody_relies_on_hearing(bench, remote):
    news, proxy = remote
    job, _ = bench.single()
    with news.watch() as watch:
        watch.add(job.id)
        proxy.stall()
        began = monotonic()
        wait_until(lambda: not news.is_live, SOON_SECONDS, "the news seems to be live")
        assert monotonic() - began < 3 * LOOK_SECONDS
        assert all(watch.wait(0.05) is LOOK_AGAIN for _ in range(3))
        bench.store.cancel(job.id, TENANT)
        proxy.resume()
        wait_until(lambda: news.is_live, SOON_SECONDS, "the news does not come back")
        assert told(watch).fields["status"] == "canceled"  # the connection has kept it


def test_while_the_store_is_away_who_waits_looks_every_second_and_then_again_at_once(bench, remote):
    news, proxy = remote
    job, _ = bench.single()
    with news.watch() as watch:
        watch.add(job.id)
        proxy.refuse()
        assert wait_until(lambda: watch.wait(LOOK_SECONDS), SOON_SECONDS, "nobody says to look again") is LOOK_AGAIN
        assert not news.is_live
        proxy.resume()
        wait_until(lambda: news.is_live, 2 * SOON_SECONDS, "there is no subscription again")
        bench.store.cancel(job.id, TENANT)
        assert told(watch).fields["status"] == "canceled"


def test_store_that_is_away_from_the_start_keeps_nobody_waiting(redis_client, store_url):
    port = urlsplit(store_url).port
    with Proxy("127.0.0.1", port) as proxy:
        proxy.refuse()
        news = News(lambda: news_client(store_url.replace(f":{port}/", f":{proxy.port}/")))
        began = monotonic()
        with news.watch() as watch:
            watch.add("a job")
            assert watch.wait(0.05) is LOOK_AGAIN
        assert monotonic() - began < 2 * LOOK_SECONDS
        proxy.resume()
        wait_until(lambda: news.is_live, SOON_SECONDS, "there is no subscription")
        end(news)


def test_end_of_the_process_wakes_all_who_wait(bench, own):
    jobs = [bench.single()[0] for _ in range(10)]
    all_there = threading.Barrier(11)

    def wait(job):
        with own.watch() as watch:
            watch.add(job.id)
            all_there.wait(30)
            return wait_until(lambda: watch.wait(LOOK_SECONDS), SOON_SECONDS, "nobody wakes it"), monotonic()

    with ThreadPoolExecutor(10) as pool:
        waiting = [pool.submit(wait, job) for job in jobs]
        all_there.wait(30)
        closed_at = monotonic()
        own.close()
        for found in waiting:
            change, woken_at = found.result()
            assert change is LOOK_AGAIN
            assert woken_at - closed_at < LOOK_SECONDS
    assert own.is_closing
