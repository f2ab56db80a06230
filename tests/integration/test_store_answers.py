"""What becomes of the errors of a real store: away for now, full, or a defect of ours."""

import contextlib
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest
import redis
from local_store import LocalStore, embedded_program
from reaper import Reaper
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobs.connection import patience, web_client
from jobs.errors import StoreAway, StoreFull
from jobs.scripts import translated
from tests.proxy import Proxy
from tests.waiting import wait_until

KEYS, LOAD_MICROSECONDS = 10_000, 300  # it answers after every thousand


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of our own, whose settings may be changed."""
    directory = tmp_path_factory.mktemp("answers")
    # It takes its time for each key when it reads its file.
    slow = directory / "slow"
    slow.write_text(f'#!/bin/sh\nexec {embedded_program()} "$@" --key-load-delay {LOAD_MICROSECONDS}\n')
    slow.chmod(0o755)
    reaper = Reaper()
    store = LocalStore(directory / "store", reaper, log=directory / "store.log", program=slow)
    yield store
    store.process.end()
    reaper.close()


@pytest.fixture
def client(store):
    with redis.Redis.from_url(store.url, retry=Retry(NoBackoff(), 0)) as client:
        yield client


@pytest.fixture
def impatient():
    """This thread waits as a request does."""
    patience.begin()
    yield
    patience._limited = False


def transaction(client):
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set("key", 1)
        pipeline.get("key")
        pipeline.execute()


def several(client):
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set("key", 1)
        pipeline.execute()


WRITES = {
    "command": lambda client: client.set("key", 1),
    "script": lambda client: client.eval("#!lua\nreturn redis.call('SET', 'key', 1)", 0),
    "script without flags": lambda client: client.eval("return redis.call('SET', 'key', 1)", 0),
    "transaction": transaction,
    "several": several,
}


@contextlib.contextmanager
def without_replicas(client):
    client.config_set("min-replicas-to-write", 1)
    yield
    client.config_set("min-replicas-to-write", 0)


@contextlib.contextmanager
def read_only(client):
    client.replicaof("127.0.0.1", 1)
    yield
    client.replicaof("NO", "ONE")


@contextlib.contextmanager
def without_leader(client):
    client.config_set("replica-serve-stale-data", "no")
    with read_only(client):
        yield
    client.config_set("replica-serve-stale-data", "yes")


@contextlib.contextmanager
def busy(client):
    client.config_set("busy-reply-threshold", 50)

    def run():
        with contextlib.suppress(redis.RedisError), redis.Redis(connection_pool=client.connection_pool) as other:
            other.eval("while true do end", 0)

    thread = threading.Thread(target=run)
    thread.start()

    def is_busy():
        try:
            return not client.get("key") and False
        except redis.ResponseError:
            return True

    wait_until(is_busy, 10, "the script does not keep the store busy")
    yield
    client.script_kill()
    thread.join()


@contextlib.contextmanager
def unable_to_save(client):
    in_the_way = Path(client.config_get("dir")["dir"]) / "dump.rdb"
    in_the_way.mkdir()
    client.config_set("save", "3600 1")
    save(client, "err")
    yield
    in_the_way.rmdir()
    save(client, "ok")
    client.config_set("save", "")


def save(client, outcome):
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == outcome, 10, f"not {outcome}")


STATES = [without_replicas, read_only, without_leader, busy, unable_to_save]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_store_that_takes_nothing_for_now_is_away(client, state):
    with state(client):
        for write in WRITES.values():
            with pytest.raises(StoreAway), translated():
                write(client)
    for write in WRITES.values():
        write(client)


def test_store_that_is_full_is_full(client):
    client.config_set("maxmemory", 1)
    for write in WRITES.values():
        with pytest.raises(StoreFull), translated():
            write(client)
    client.config_set("maxmemory", 0)


def test_store_at_its_limit_of_connections_is_away(store, client):
    client.ping()
    client.config_set("maxclients", 1)
    with redis.Redis.from_url(store.url) as late:
        for write in WRITES.values():
            with pytest.raises(StoreAway), translated():
                write(late)
        client.config_set("maxclients", 10_000)
        late.ping()


def test_store_that_is_gone_and_then_reads_its_file_is_away(store, client):
    with client.pipeline(transaction=False) as pipeline:
        for number in range(KEYS):
            pipeline.set(f"key-{number}", number)
        pipeline.execute()
    store.process.signal(signal.SIGKILL)
    store.process.wait(5)
    with pytest.raises(StoreAway), translated():
        client.get("key-0")
    said, until = [], monotonic() + 20

    def found():
        try:
            with translated():
                return client.get("key-0")
        except StoreAway as error:
            said.append(str(error.__cause__))

    with ThreadPoolExecutor(1) as threads:
        restarted = threads.submit(store.restart)
        # Asked without a pause: reading the file takes a moment only.
        values = (found() for _ in iter(lambda: monotonic() < until, False))
        assert next(value for value in values if value is not None) == b"0"
        restarted.result()
    assert any("loading" in text for text in said), set(said)


def test_defect_of_ours_stays_what_it_is(client):
    for defect in (lambda: client.eval("return nonsense()", 0), lambda: client.lpush("key", 1)):
        client.set("key", "text")
        with pytest.raises(redis.ResponseError), translated():
            defect()


def test_request_asks_nothing_more_of_a_store_that_has_let_it_wait(store, impatient):
    with Proxy("127.0.0.1", store.port) as proxy:
        client = web_client(store.url.replace(f":{store.port}/", f":{proxy.port}/"))
        with translated():
            client.ping()
        proxy.stall()
        with pytest.raises(StoreAway), translated():
            client.ping()
        asked = []
        with pytest.raises(StoreAway), translated():
            asked.append("again")
        assert asked == []
        proxy.resume()
        patience.begin()
        with translated():
            client.ping()
        client.close()


def test_request_waits_for_some_slow_answers_and_a_prompt_one_restores_its_patience(impatient):
    patience.note(0.9, answered=True)
    patience.note(0.01, answered=True)
    patience.note(0.9, answered=True)
    assert not patience.is_over
    patience.note(0.9, answered=True)
    assert patience.is_over


def test_one_answer_that_does_not_come_ends_a_requests_patience_and_a_refusal_at_once_does_not(impatient):
    patience.note(0.001, answered=False)
    assert not patience.is_over
    patience.note(1.0, answered=False)
    assert patience.is_over


def test_thread_that_is_no_request_waits_for_ever():
    patience.note(1000, answered=False)
    assert not patience.is_over
