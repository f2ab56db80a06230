"""Single predictions that many threads of a web process submit at the same moment share a round trip to the store."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from urllib.parse import urlsplit

import pytest
from redis.exceptions import ResponseError

from jobs.combined import Combined
from jobs.connection import patience, web_client
from jobs.errors import KeyRefused, SameRequest, StoreAway, StoreFull
from jobs.store import Store
from tests.integration.conftest import MODEL, TENANT
from tests.proxy import Proxy

ANSWER_SECONDS = 3.0  # design, rule 6
KEY, PRINT, OTHER_PRINT = "ab" * 32, "cd" * 32, "ef" * 32
MIB = 1 << 20


class Remote:
    """A store as a web process reaches it: through the proxy."""

    def __init__(self, proxy, client, bench):
        self.proxy = proxy
        self.client = client
        self.bench = bench
        self.store = Store(client, bench.limits)
        self.submit(-1)  # it is connected, and knows the store's generation

    def submit(self, number, **facts):
        return self.store.intake.accept_single(TENANT, MODEL, json.dumps({"RM": number}), **facts)

    def inputs(self, answers):
        """What stands in the store as the input of each accepted job."""
        return [json.loads(self.bench.find(job.id).input)["RM"] for job, _ in answers]


@pytest.fixture
def remote(bench, store_url):
    port = urlsplit(store_url).port
    with (
        Proxy("127.0.0.1", port) as proxy,
        web_client(store_url.replace(f":{port}/", f":{proxy.port}/")) as client,
    ):
        yield Remote(proxy, client, bench)


def at_once(count, call):
    """What `call` gives or raises for each number from 0, when so many threads ask at the same moment."""
    all_there = threading.Barrier(count)

    def ask(number):
        patience.begin()  # as a request does
        all_there.wait(30)
        try:
            return call(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(ask, range(count)))


@pytest.mark.parametrize("count", [1, 64, 600])
def test_each_thread_gets_the_answer_to_its_own_call(remote, count):
    answers = at_once(count, remote.submit)
    assert remote.inputs(answers) == list(range(count))
    assert remote.bench.client.llen(f"qc:inbox:{MODEL.key}") == count + 1


def test_one_ticket_is_asked_for_however_many_come_at_once(bench):
    answers = at_once(32, lambda number: bench.single(f'{{"RM":{number}}}'))
    assert sum(len(tickets) for _, tickets in answers) == 1


def test_calls_that_wait_for_the_store_reach_it_together(remote):
    remote.proxy.stall()
    resume = threading.Timer(0.3, remote.proxy.resume)
    resume.start()
    before = remote.bench.client.info("stats")["total_reads_processed"]
    answers = at_once(100, remote.submit)
    after = remote.bench.client.info("stats")["total_reads_processed"]
    resume.join()
    assert remote.inputs(answers) == list(range(100))
    assert after - before < 50


def test_call_that_is_refused_for_its_size_harms_no_other(bench_with):
    used = bench_with().client.info("memory")["used_memory"]
    bench = bench_with(store_budget_bytes=used + 12 * MIB)
    long = json.dumps({"RM": "7" * 4 * MIB})  # its record may take four times as much
    answers = at_once(16, lambda number: bench.single(long if number == 7 else f'{{"RM":{number}}}'))
    assert isinstance(answers.pop(7), StoreFull)
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert bench.client.llen(f"qc:inbox:{MODEL.key}") == 15


def test_call_whose_key_is_taken_harms_no_other(remote):
    first, _ = remote.submit(0, key=KEY, fingerprint=PRINT)

    def submit(number):
        facts = {3: {"key": KEY, "fingerprint": PRINT}, 5: {"key": KEY, "fingerprint": OTHER_PRINT}}
        return remote.submit(number, **facts.get(number, {}))

    answers = at_once(16, submit)
    same, reused = answers[3], answers[5]
    assert isinstance(same, SameRequest)
    assert same.job_id == first.id
    assert isinstance(reused, KeyRefused)
    others = [answer for number, answer in enumerate(answers) if number not in (3, 5)]
    assert remote.inputs(others) == [number for number in range(16) if number not in (3, 5)]


def test_of_many_same_requests_at_once_one_makes_the_job(remote):
    answers = at_once(16, lambda _: remote.submit(7, key=KEY, fingerprint=PRINT))
    made = [answer for answer in answers if not isinstance(answer, Exception)]
    assert len(made) == 1
    told = [answer.job_id for answer in answers if isinstance(answer, SameRequest)]
    assert told == [made[0][0].id] * 15


def test_call_that_goes_wrong_in_the_script_fails_alone(remote):
    def spoil(job_id):
        remote.bench.client.set(f"qc:job:{job_id}", "no record")

    answers = at_once(16, lambda number: remote.submit(number, on_id=spoil if number == 4 else None))
    assert isinstance(answers.pop(4), ResponseError)
    assert remote.inputs(answers) == [number for number in range(16) if number != 4]


def test_calls_are_answered_with_what_goes_wrong_beyond_the_store():
    def send(asked):
        raise KeyError(*asked)

    combined = Combined(send)
    answers = at_once(8, combined.call)
    assert {type(answer) for answer in answers} == {KeyError}


@pytest.mark.parametrize("fault", ["refuse", "stall"])
def test_store_that_is_away_is_told_to_all_and_nobody_waits_for_ever(remote, fault):
    getattr(remote.proxy, fault)()
    seconds = []

    def submit(number):
        began = monotonic()
        try:
            return remote.submit(number)
        finally:
            seconds.append(monotonic() - began)

    answers = at_once(50, submit)
    assert {type(answer) for answer in answers} == {StoreAway}
    assert max(seconds) < ANSWER_SECONDS
    remote.proxy.resume()
    answers = at_once(50, remote.submit)
    assert remote.inputs(answers) == list(range(50))


def test_calls_whose_answers_are_lost_are_made_again_and_change_nothing_more(remote):
    remote.proxy.drop_replies(1)
    answers = at_once(32, remote.submit)
    assert remote.proxy.undropped == 0
    assert remote.inputs(answers) == list(range(32))
    jobs = {b"-1"} | {job.id.encode() for job, _ in answers}
    assert remote.bench.client.zcard("qc:singles") == len(jobs)
    assert remote.bench.client.llen(f"qc:inbox:{MODEL.key}") == len(jobs)


def test_scripts_that_the_store_has_forgotten_are_loaded_again(remote):
    for _ in range(3):
        remote.bench.client.script_flush()
        answers = at_once(32, remote.submit)
        assert remote.inputs(answers) == list(range(32))
    assert remote.bench.client.llen(f"qc:inbox:{MODEL.key}") == 3 * 32 + 1


def test_store_that_came_back_empty_accepts_the_calls_of_all_threads(remote):
    remote.bench.client.flushdb()
    answers = at_once(32, remote.submit)
    assert remote.inputs(answers) == list(range(32))
    generation = remote.bench.client.get("qc:generation").decode()
    assert {job.id[:6] for job, _ in answers} == {generation[:6]}
