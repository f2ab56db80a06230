"""What someone who can write into RQ's keys can make of a ticket: nothing."""

import json
import pickle
import zlib
from typing import ClassVar

import pytest
from rq.exceptions import DeserializationError
from rq.serializers import JSONSerializer

from jobs.scripts import TICKETS_KEY
from jobs.tickets import Ticket, TicketJob

RAN = []


class Job(TicketJob):
    functions: ClassVar = {"work_on_job": lambda *arguments: RAN.append(arguments)}


@pytest.fixture
def planted(bench):
    """Puts a ticket, changes fields of its hash, and fetches it as a worker does."""
    RAN.clear()

    def plant(**fields):
        bench.tickets.put([Ticket("abc-0-x", "work_on_job", ("abc", 0))])
        bench.client.hset("rq:job:abc-0-x", mapping=fields or {"origin": "queuecast"})
        return Job.fetch("abc-0-x", connection=bench.client, serializer=JSONSerializer)

    return plant


def test_ticket_runs_its_function_with_its_own_id(planted):
    planted().perform()
    assert RAN == [("abc", 0, "abc-0-x")]


@pytest.mark.parametrize("name", ["os.system", "work_on_everything", "jobs.tickets.Ticket", ""])
def test_function_that_is_not_on_the_list_does_not_run(planted, name):
    job = planted(data=zlib.compress(json.dumps([name, None, ["true"], {}]).encode()))
    with pytest.raises(LookupError):
        job.perform()
    assert RAN == []


def test_method_of_an_instance_does_not_run(planted):
    job = planted(data=zlib.compress(json.dumps(["work_on_job", {"x": 1}, [], {}]).encode()))
    with pytest.raises(LookupError):
        job.perform()


def test_pickle_is_not_loaded(planted, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    job = planted(data=zlib.compress(pickle.dumps(Bomb())), meta=pickle.dumps(Bomb()), result=pickle.dumps(Bomb()))
    with pytest.raises(DeserializationError):
        job.perform()
    assert not (tmp_path / "exploded").exists()


def test_callbacks_meta_webhooks_dependents_and_repeats_are_not_restored(planted):
    job = planted(
        success_callback_name="os.system",
        failure_callback_name="os.system",
        stopped_callback_name="os.system",
        webhooks=json.dumps([{"url": "http://127.0.0.1:1/", "events": ["finished"]}]),
        meta=json.dumps({"planted": True}),
        dependency_ids=json.dumps(["other"]),
        repeats_left="5",
        repeat_intervals="[1]",
        retries_left="5",
        result_ttl="500",
        failure_ttl="500000",
    )
    assert job.success_callback is None
    assert job.failure_callback is None
    assert job.stopped_callback is None
    assert not job.webhooks
    assert job.meta == {}
    assert not job._dependency_ids
    assert job.repeats_left is None
    assert job.retries_left is None
    assert (job.result_ttl, job.failure_ttl) == (0, 60)


def test_ticket_carries_no_description_of_its_arguments(bench):
    bench.tickets.put([Ticket("abc-0-x", "work_on_job", ("abc", 0))])
    assert bench.client.hget("rq:job:abc-0-x", "description") == b"ticket"


def test_front_tickets_overtake(bench):
    bench.tickets.put([Ticket("a-0-x", "work_on_job", ("a", 0)), Ticket("b-0-x", "work_on_job", ("b", 0), front=True)])
    assert bench.client.lrange(TICKETS_KEY, 0, -1) == [b"b-0-x", b"a-0-x"]
