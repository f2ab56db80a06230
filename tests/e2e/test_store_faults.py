"""What happens when the store is away, restarted, empty, full, slow, or at its limit of connections.

Workers wait and stay, the web process answers within three seconds, and nothing that was accepted is lost.
"""

import contextlib
import json
import random
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from process import ROOT
from stack import Stack

from tests.client import Client, answer
from tests.proxy import Proxy
from tests.waiting import wait_until

ANSWER_SECONDS = 3.0
RESUMED_SECONDS = 5.0
ROWS = 6_000  # of a slow batch: some seconds
JSON = {"Content-Type": "application/json"}
# With leases of two seconds the tests need not wait for long ones.
QUICK = {"LEASE_SECONDS": "2", "SWEEP_SECONDS": "0.5", "WEB_CONCURRENCY": "1"}


class Faulty:
    """A stack that reaches its store through a proxy, and what a test does to both."""

    def __init__(self, directory, models_path, workers, environment, refused):
        self.proxy = None
        self._refused = refused
        settings = {"MODELS_PATH": str(models_path), "PYTHONPATH": str(ROOT), **QUICK, **environment}
        self.stack = Stack(directory, workers=workers, environment=settings, reach=self._reach)

    def _reach(self, store):
        self.proxy = Proxy("127.0.0.1", store.port)
        if self._refused:
            self.proxy.refuse()
        return store.url.replace(f":{store.port}/", f":{self.proxy.port}/")

    def start(self):
        self.stack.start()
        self.client = Client(self.stack.url)
        self.pids = [worker.pid for worker in self.stack.workers]
        return self

    def stop(self):
        self.stack.stop()
        self.proxy.close()

    @contextlib.contextmanager
    def store(self):
        """A client of the store itself, not through the proxy."""
        with redis.Redis.from_url(self.stack.redis_url) as client:
            yield client

    def configure(self, **settings):
        with self.store() as client:
            for name, value in settings.items():
                client.config_set(name, value)

    def kill_store(self):
        self.stack.store.process.signal(signal.SIGKILL)
        assert self.stack.store.process.wait(5)

    def predict(self, value):
        return self.client.ask("POST", "/predict?model=identity", json.dumps({"input": value}), JSON)

    def still_predicts(self):
        assert wait_until(lambda: self.predict(7).status == 200, RESUMED_SECONDS, "nothing is predicted")
        return True

    def check_workers(self):
        """No worker has exited, and none was started in the place of another."""
        assert all(worker.is_alive for worker in self.stack.workers)
        assert [worker.pid for worker in self.stack.workers] == self.pids

    def log_lines(self):
        return sum(len(worker.log.read_bytes().splitlines()) for worker in self.stack.workers)

    def rows_done(self, path):
        answer = self.client.get(path)
        return answer.json["progress"]["rows_done"] if answer.status == 200 else -1

    def goes_on(self, path):
        """More rows of the batch are done soon, or all are."""
        done = wait_until(lambda: max(self.rows_done(path), 0), RESUMED_SECONDS, f"{path} is not answered for")
        wait_until(
            lambda: self.rows_done(path) > done or self.client.job(path)["ended_at"],
            RESUMED_SECONDS,
            f"{path} does not go on",
        )


class Poller:
    """Asks for paths all the time in threads of its own; use as a context manager, then look at what was answered."""

    def __init__(self, client, *paths):
        self.client = client
        self.seen = []  # (path, status, Retry-After, seconds)
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._poll, args=(path,)) for path in paths]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _poll(self, path):
        while not self._ended.wait(0.1):
            began = time.monotonic()
            found = self.client.get(path)
            self.seen.append((path, found.status, found.headers["Retry-After"], time.monotonic() - began))

    def check(self):
        """Every answer came in time; a store that is away is 503 with advice, and never anything else."""
        assert max(seconds for *_, seconds in self.seen) < ANSWER_SECONDS
        for path, status, retry_after, _ in self.seen:
            if path == "/healthz":
                assert status == 200
            else:
                assert status in (200, 503), (path, status)
                assert status == 200 or int(retry_after) > 0


@pytest.fixture
def faulty(tmp_path_factory, models_path):
    """Starts stacks behind a proxy that end with the test: `faulty(workers=2, **environment)`."""
    started = []

    def start(workers=2, refused=False, **environment):
        environment = {name: str(value) for name, value in environment.items()}
        own = Faulty(tmp_path_factory.mktemp("faulty"), models_path, workers, environment, refused)
        started.append(own)
        return own

    yield start
    with ThreadPoolExecutor() as threads:
        list(threads.map(Faulty.stop, started))


def table(rows):
    return b"x\n" + b"".join(b"%d\n" % number for number in range(rows))


def finished(own, path, rows, seconds=60):
    """Every row of the batch has its own prediction, once."""
    job = own.client.finished(path, seconds)
    progress = job["progress"]
    assert (job["status"], progress["rows_ok"], progress["rows_done"]) == ("succeeded", rows, rows)
    assert [row["prediction"] for row in own.client.rows(path)] == list(range(rows))


def away(own, fault, seconds):
    """Lets the store be away for so long during a batch; whatever the fault, everybody waits and goes on after it."""
    path = own.client.submit(table(ROWS), "?model=slow")
    wait_until(lambda: own.rows_done(path) > 0, 20, "nothing was done")
    with Poller(own.client, path, "/healthz", "/readyz", "/queue", "/jobs") as poller:
        if fault == "killed":
            own.kill_store()
        else:
            getattr(own.proxy, fault)()
        time.sleep(seconds)  # the fault itself
        refused = own.client.send(table(5), "?model=identity")
        if fault == "killed":
            own.stack.store.restart()
        else:
            own.proxy.resume()
        own.goes_on(path)
        wait_until(lambda: own.client.get("/readyz").status == 200, RESUMED_SECONDS, "it is not ready again")
    poller.check()
    assert {status for path, status, *_ in poller.seen if path == "/readyz"} == {200, 503}
    assert (refused.status, refused.code) == (503, "queue_unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    finished(own, path, ROWS)
    own.check_workers()


def test_batch_goes_on_after_the_store_was_killed_refused_or_stalled(faulty):
    # Several stacks at the same time, for nobody does anything but wait.
    courses = [
        (2, [("killed", 5), ("stall", 3), ("stall", 10)]),
        (1, [("killed", 20)]),
        (1, [("refuse", 20)]),
        (1, [("stall", 30)]),
    ]

    def run(course):
        workers, faults = course
        own = faulty(workers=workers).start()
        for fault, seconds in faults:
            away(own, fault, seconds)

    with ThreadPoolExecutor(len(courses)) as threads:
        list(threads.map(run, courses))


def test_workers_that_are_told_to_stop_while_the_store_stalls_exit_soon(faulty):
    own = faulty(workers=4).start()
    path = own.client.submit(table(60_000), "?model=slow")
    wait_until(lambda: own.rows_done(path) > 0, 20, "nothing was done")
    own.proxy.stall()
    wait_until(lambda: own.client.get("/readyz").status == 503, 5, "the stall is not felt")

    def stop(number):
        worker = own.stack.workers[number]
        time.sleep(0.8 * number)  # each waits for another answer: of a renewal, of RQ's pop, of RQ's new worker
        worker.signal(signal.SIGTERM)
        return worker.wait(10) and worker.exit_code == 0

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(stop, range(4))) == [True] * 4


def test_store_that_comes_back_empty_has_lost_the_old_jobs_and_takes_new_ones(faulty):
    own = faulty().start()
    ended = own.client.done(table(10), "?model=identity")
    running = own.client.submit(table(60_000), "?model=slow")
    wait_until(lambda: own.rows_done(running) > 0, 20, "nothing was done")
    with own.client.connected() as upload:
        upload.sendall(b"POST /jobs?model=identity HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n")
        upload.sendall(b"Content-Length: 100000000\r\n\r\n" + table(40_000))
        wait_until(lambda: own.client.get("/jobs?status=receiving").json["jobs"], 10, "the upload is not listed")
        own.kill_store()
        shutil.rmtree(own.stack.store.directory)
        own.stack.store.directory.mkdir()
        own.stack.store.restart()
        with contextlib.suppress(ConnectionError):  # the answer is there already
            for _ in range(50):
                upload.sendall(b"1\n" * 40_000)
        refused = answer(upload)
    assert (refused.status, refused.code) in [(503, "queue_unavailable"), (410, "upload_failed")]
    for path in (ended, running):
        wait_until(lambda path=path: own.client.get(path).status != 503, RESUMED_SECONDS, "the store is not back")
        gone = own.client.get(path)
        assert (gone.status, gone.code) == (410, "job_lost")
    assert own.client.get("/jobs").json["jobs"] == []
    finished(own, own.client.submit(table(1_000), "?model=identity"), 1_000)
    assert own.still_predicts()
    own.check_workers()


def test_full_store_refuses_submissions_and_loses_nothing(faulty):
    own = faulty().start()
    path = own.client.submit(table(ROWS), "?model=slow")
    wait_until(lambda: own.rows_done(path) > 0, 20, "nothing was done")
    with own.store() as store:
        store.config_set("maxmemory", store.info("memory")["used_memory"] // 2)
    began, lines = time.monotonic(), own.log_lines()
    for refused in (own.client.send(table(5), "?model=identity"), own.predict(1)):
        assert (refused.status, refused.code) == (507, "storage_full")
        assert int(refused.headers["Retry-After"]) > 0
    # What ends jobs may still write: the batch ends though no ticket can be taken.
    finished(own, path, ROWS)
    for page in (path, "/jobs", "/queue", "/readyz", f"{path}/results"):
        assert own.client.get(page).status == 200
    # Idle workers in a full store make no noise.
    wait_until(lambda: time.monotonic() - began > 4, 20, "never")
    assert (own.log_lines() - lines) / (time.monotonic() - began) < 10
    own.check_workers()
    own.configure(maxmemory=0)
    assert own.still_predicts()
    finished(own, own.client.submit(table(1_000), "?model=identity"), 1_000)
    own.check_workers()


def test_store_at_its_limit_of_connections_is_waited_for(faulty):
    own = faulty().start()
    path = own.client.submit(table(ROWS), "?model=slow")
    wait_until(lambda: own.rows_done(path) > 0, 20, "nothing was done")
    with own.store() as store, Poller(own.client, path, "/healthz") as poller:
        store.ping()
        store.config_set("maxclients", 1)
        lines = own.log_lines()
        own.proxy.cut()
        wait_until(lambda: 503 in [status for _, status, *_ in poller.seen], 5, "the limit is not felt")
        late = own.stack.start_worker()
        time.sleep(3)  # the fault itself
        assert (own.log_lines() - lines) / 3 < 40
        store.config_set("maxclients", 10_000)
        own.goes_on(path)
    poller.check()
    finished(own, path, ROWS)
    assert late.is_alive
    own.pids.append(late.pid)
    own.check_workers()


def test_processes_that_start_before_the_store_wait_for_it(faulty):
    own = faulty(refused=True)
    timer = threading.Timer(3, lambda: own.proxy.resume())  # noqa: PLW0108 (there is no proxy yet)
    timer.start()
    own.start()  # raises if a process ended
    timer.join()
    assert own.still_predicts()
    finished(own, own.client.submit(table(1_000), "?model=identity"), 1_000)


def test_lost_requests_and_replies_change_nothing_and_lose_nothing(faulty):
    own = faulty(MAX_LOAD_ATTEMPTS=50).start()
    chance = random.Random(4)
    path = own.client.submit(table(ROWS), "?model=slow")
    ended = threading.Event()

    def lose():
        while not ended.wait(chance.uniform(0.05, 0.4)):
            chance.choice([own.proxy.drop_replies, own.proxy.drop_requests])()

    thief = threading.Thread(target=lose)
    thief.start()
    try:
        answers = [own.predict(value) for value in range(40)]
        batches = [own.client.send(table(300), "?model=identity") for _ in range(5)]
        wait_until(lambda: own.client.get(path).status == 200 and own.client.job(path)["ended_at"], 60, "no end")
    finally:
        ended.set()
        thief.join()
        own.proxy.resume()
    finished(own, path, ROWS)
    for value, found in enumerate(answers):
        assert found.status in (200, 202, 503)
        assert found.status != 200 or found.json == {"response": float(value)}
    for batch in batches:
        assert batch.status in (202, 503)
        if batch.status == 202:
            finished(own, batch.headers["Location"], 300)
    # What was not answered with 202 is wholly there or wholly absent, and none is there twice.
    listed = wait_until(lambda: own.client.get("/jobs?limit=100").json["jobs"], 10, "no list")
    assert len(listed) <= 1 + len(answers) + len(batches)
    for job in listed:
        done = own.client.finished(job["links"]["self"])
        assert done["progress"]["rows_done"] == done["progress"]["rows_total"] == done["progress"]["rows_ok"]
    own.check_workers()


def test_idle_connections_that_the_store_closes_fail_no_request(faulty):
    own = faulty(workers=1).start()
    own.configure(timeout=1)
    path = own.client.done(table(10), "?model=identity")
    for _ in range(2):
        time.sleep(2.2)  # the store looks for idle connections about every second
        assert own.client.get(path).status == 200
        assert own.predict(1).status == 200
    own.configure(timeout=0)
    for _ in range(20):
        own.proxy.cut()
        assert own.client.get(path).status == 200
        assert own.client.send(table(5), "?model=identity").status == 202
    assert own.still_predicts()
    own.check_workers()
