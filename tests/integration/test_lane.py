"""The fast lane: what it answers itself, and what it gives back to the app."""

import itertools
import json
from time import monotonic
from urllib.parse import urlsplit

import pytest
from redis.exceptions import ResponseError

from api.context import Api
from api.lane import Lane, Plain
from api.seats import Seats
from jobs.connection import news_client, web_client
from jobs.errors import StoreAway
from jobs.inbox_leases import SingleResult
from jobs.news import News
from jobs.scripts import Limits
from jobs.status import Status
from jobs.store import Store
from jobs.tickets import TicketQueue
from models.catalog import Catalog
from settings import Settings
from tests.integration.conftest import TENANT
from tests.proxy import Proxy
from tests.waiting import wait_until

ANSWER_SECONDS = 3.0  # design, rule 6
SOON_SECONDS = 5.0
SEATS = 200
UNPLAIN = [
    b"",
    b"{",
    b"[1]",
    b'{"inputs":[[1]]}',
    b'{"input":[1],"wait":1}',
    b'{"input":[1,2]}',
    b'{"input":["x"]}',
    b'{"input":[1],"model":7}',
    b'{"input":[1],"model":"nobody"}',
    b'{"input":[1],"input":[1]}',
    b'{"input":[NaN]}',
    b'{"input":{"y":1}}',
    b"\xff\xfe",
]


class Lanes:
    """A lane on the store that a proxy stands before, and what became of its requests."""

    def __init__(self, bench, store_url, models_path, proxy):
        port = urlsplit(store_url).port
        url = store_url.replace(f":{port}/", f":{proxy.port}/")
        settings = Settings.from_environment({"REDIS_URL": url, "MODELS_PATH": str(models_path)})
        self.proxy = proxy
        self.bench = bench
        self.client = web_client(url)
        store = Store(self.client, Limits.of(settings))
        news = News(lambda: news_client(url))
        catalog = Catalog.read(settings.models_path, settings.default_model)
        self.api = Api(settings, catalog, store, TicketQueue(self.client), news, Seats(SEATS))
        self.answered, self.returned = {}, {}
        self._numbers = itertools.count()
        self.lane = Lane(self.api, self._answer, self._give_back)
        news.watch()
        self.wait_until_open()

    def wait_until_open(self):
        wait_until(lambda: self.lane.is_open, 2 * SOON_SECONDS, "the lane does not open")

    def close(self):
        self.api.news.close()
        wait_until(lambda: not self.api.news._thread.is_alive(), SOON_SECONDS, "the news goes on")
        self.client.close()

    def take(self, *bodies):
        """Lets requests come at the same moment; their numbers are their origins."""
        numbers = [next(self._numbers) for _ in bodies]
        plain = [
            Plain(body, "" if b'"nobody"' in body else "identity", f"id{number}")
            for number, body in zip(numbers, bodies, strict=True)
        ]
        requests = [self.lane.enter(*each) for each in zip(plain, numbers, strict=True)]
        self.lane.take(requests)
        return requests

    def take_numbers(self, count):
        return self.take(*(json.dumps({"input": [number]}).encode() for number in range(count)))

    def work(self, fail=()):
        """Predicts as a worker does all that waits; the inputs in `fail` come to nothing."""
        singles = self.bench.leases.lease_singles([self.key], SEATS, "t")
        found = {job_id: json.loads(text)["x"] for job_id, text in singles.inputs.items()}
        failure = SingleResult(None, "model_error", "The model refused it.", "x")
        self.bench.leases.commit_singles(
            singles.token,
            {
                job_id: failure if value in fail else SingleResult(json.dumps({"prediction": value}))
                for job_id, value in found.items()
            },
        )

    @property
    def key(self):
        return self.api.catalog.find("identity").key

    def have_come(self, count):
        wait_until(lambda: self.waiting() >= count, SOON_SECONDS, f"there are not {count} in the inbox")

    def waiting(self):
        return self.bench.client.llen(f"qc:inbox:{self.key}")

    def are_seen_to(self, count, seconds=SOON_SECONDS):
        wait_until(lambda: len(self.answered) + len(self.returned) >= count, seconds, "not all are seen to")

    def is_left(self):
        """Whether nothing is kept of requests that are seen to."""
        return self.lane.is_empty and self.api.news._listeners == {} and self.api.seats._taken == 0

    def _answer(self, request, headers, body):
        assert request.origin not in {*self.answered, *self.returned}
        self.answered[request.origin] = headers, body

    def _give_back(self, request):
        assert request.origin not in {*self.answered, *self.returned}
        self.returned[request.origin] = request.returned()
        assert self.returned[request.origin].has_seat
        self.api.seats.leave()  # as the app does at the end


@pytest.fixture
def lanes(bench, store_url, models_path):
    with Proxy("127.0.0.1", urlsplit(store_url).port) as proxy:
        made = Lanes(bench, store_url, models_path, proxy)
        yield made
        proxy.resume()
        made.close()


def test_each_request_is_answered_with_its_own_prediction(lanes):
    lanes.take_numbers(100)
    lanes.have_come(100)
    assert not lanes.answered
    lanes.work()
    lanes.are_seen_to(100)
    assert lanes.returned == {}
    for number, (headers, body) in lanes.answered.items():
        assert json.loads(body) == {"response": number}
        assert headers["Content-Length"] == str(len(body))
        assert headers["X-Request-Id"] == f"id{number}"
        assert lanes.bench.find(headers["X-Job-Id"]).status is Status.SUCCEEDED
    assert lanes.is_left()


def test_requests_of_one_moment_share_a_call(lanes):
    lanes.take_numbers(1)
    lanes.have_come(1)
    lanes.bench.client.config_resetstat()
    lanes.take_numbers(100)
    lanes.have_come(101)
    assert lanes.bench.client.info("commandstats")["cmdstat_evalsha"]["calls"] == 1


def test_what_does_not_succeed_is_given_back_with_its_job(lanes):
    lanes.take_numbers(4)
    lanes.have_come(4)
    canceled = lanes.bench.client.lindex(f"qc:inbox:{lanes.key}", 1).decode()
    lanes.bench.store.cancel(canceled, TENANT)
    lanes.work(fail=[2])
    lanes.are_seen_to(4)
    assert set(lanes.answered) == {0, 3}
    jobs = {number: lanes.bench.find(returned.came_of.id) for number, returned in lanes.returned.items()}
    assert {number: job.status for number, job in jobs.items()} == {1: Status.CANCELED, 2: Status.FAILED}
    assert lanes.is_left()


@pytest.mark.parametrize("body", UNPLAIN)
def test_what_is_no_input_is_given_back_unaccepted_and_harms_no_other(lanes, body):
    lanes.take(b'{"input":[0]}', body, b'{"input":{"x":2}}')
    lanes.have_come(2)
    lanes.work()
    lanes.are_seen_to(3)
    assert set(lanes.answered) == {0, 2}
    assert lanes.returned[1].came_of is None
    assert lanes.is_left()


def test_what_takes_longer_than_a_lost_message_may_cost_is_given_back_with_its_job(lanes):
    lanes.take_numbers(3)
    lanes.have_come(3)
    lanes.lane.give_late_back()
    assert not lanes.returned

    def has_given_back():
        lanes.lane.give_late_back()
        return len(lanes.returned) == 3

    wait_until(has_given_back, SOON_SECONDS, "they are not given back")
    assert all(each.waited_seconds >= 1 for each in lanes.returned.values())
    jobs = [lanes.bench.find(each.came_of.id) for each in lanes.returned.values()]
    assert [json.loads(job.input) for job in jobs] == [{"x": number} for number in range(3)]
    assert lanes.is_left()


def test_news_that_may_have_missed_something_gives_all_back(lanes):
    lanes.take_numbers(3)
    lanes.have_come(3)
    lanes.bench.client.client_kill_filter(_type="pubsub")
    wait_until(lambda: not lanes.lane.is_open, SOON_SECONDS, "the lane stays open")
    lanes.are_seen_to(3)
    assert [each.came_of.status for each in lanes.returned.values()] == [Status.QUEUED] * 3
    assert lanes.is_left()
    lanes.wait_until_open()


def test_end_of_the_process_gives_all_back_and_closes_the_lane(lanes):
    lanes.take_numbers(3)
    lanes.have_come(3)
    lanes.api.news.close()
    lanes.are_seen_to(3)
    assert not lanes.lane.is_open
    assert lanes.is_left()


def test_news_that_comes_before_the_store_has_said_yes_is_not_forgotten(lanes):
    lanes.take_numbers(1)
    lanes.have_come(1)
    lanes.work()
    lanes.are_seen_to(1)
    lanes.proxy.stall()
    lanes.take(b'{"input":[1]}')
    wait_until(lambda: lanes.api.news._listeners, SOON_SECONDS, "it is not sent")
    lanes.api.news._wake_all()
    assert not lanes.returned
    lanes.proxy.resume()
    lanes.are_seen_to(2)
    assert lanes.bench.find(lanes.returned[1].came_of.id).status is Status.QUEUED
    assert lanes.is_left()


def test_what_goes_wrong_with_one_harms_no_other(lanes):
    lanes.take_numbers(1)
    lanes.have_come(1)
    lanes.proxy.stall()
    taken = lanes.take_numbers(4)
    wait_until(lambda: all(each.single for each in taken), SOON_SECONDS, "they are not sent")
    lanes.bench.client.set(f"qc:job:{taken[1].single.job_id}", "no record")
    lanes.proxy.resume()
    lanes.have_come(4)
    lanes.are_seen_to(1)
    lanes.work()
    lanes.are_seen_to(5)
    assert set(lanes.answered) == {0, 1, 3, 4}
    assert isinstance(lanes.returned[2].came_of, ResponseError)
    assert lanes.is_left()


def test_what_is_accepted_after_the_end_was_told_is_given_back_at_once(lanes):
    lanes.take_numbers(1)
    lanes.have_come(1)
    lanes.proxy.stall()
    lanes.take_numbers(1)
    wait_until(lambda: len(lanes.api.news._listeners) == 2, SOON_SECONDS, "it is not sent")
    lanes.api.news.close()
    lanes.proxy.resume()
    lanes.are_seen_to(2)
    assert [each.came_of.status for each in lanes.returned.values()] == [Status.QUEUED] * 2


@pytest.mark.parametrize("fault", ["refuse", "stall"])
def test_store_that_is_away_is_told_in_time_to_all_who_came_meanwhile(lanes, fault):
    lanes.take_numbers(1)
    lanes.have_come(1)
    lanes.work()
    lanes.are_seen_to(1)
    getattr(lanes.proxy, fault)()
    began = monotonic()
    for _ in range(5):
        lanes.take_numbers(4)
    lanes.are_seen_to(21)
    assert monotonic() - began < ANSWER_SECONDS
    kinds = {type(each.came_of) for each in lanes.returned.values()}
    wait_until(lambda: lanes.lane.is_empty, ANSWER_SECONDS, "somebody still waits")
    assert kinds == {StoreAway}
    assert len({id(each.came_of) for each in lanes.returned.values()}) == 20  # each has an error of its own
    assert lanes.is_left()
    lanes.proxy.resume()
    lanes.wait_until_open()


def test_store_that_came_back_empty_is_for_the_app(lanes):
    lanes.take_numbers(1)
    lanes.have_come(1)
    lanes.bench.client.flushdb()
    lanes.take(b'{"input":[1]}')
    lanes.are_seen_to(1)
    (returned,) = lanes.returned.values()
    assert returned.came_of is None
    lanes.take(b'{"input":[2]}')
    lanes.have_come(1)  # it knows the new generation


@pytest.mark.parametrize("free", [1000, -1000])  # the script says so, or the store runs none
def test_store_that_is_full_is_for_the_app(lanes, free):
    lanes.take_numbers(1)
    lanes.have_come(1)
    lanes.work()
    lanes.are_seen_to(1)
    lanes.bench.client.delete("qc:plenty")
    lanes.bench.client.config_set("maxmemory", lanes.bench.client.info("memory")["used_memory"] + free)
    try:
        lanes.take_numbers(3)
        lanes.are_seen_to(4)
    finally:
        lanes.bench.client.config_set("maxmemory", 0)
    assert lanes.waiting() == 0
    assert [each.came_of for each in lanes.returned.values()] == [None] * 3
    assert lanes.is_left()


def test_lane_has_as_many_seats_as_there_are(lanes):
    entered = [lanes.lane.enter(Plain(b"", "", ""), number) for number in range(SEATS + 1)]
    assert [each is None for each in entered] == [False] * SEATS + [True]
