import pytest

from jobs.codec.chunk import compress
from jobs.codec.layout import plan
from jobs.connection import patience
from jobs.leases import ChunkResult, Leases
from jobs.record import ModelVersion
from jobs.scripts import Limits
from jobs.store import Store
from jobs.tickets import TicketQueue

TENANT = "public"
MODEL = ModelVersion("housing", "1", "ab" * 32)


class Bench:
    """A store, what workers ask of it, and short ways to make jobs."""

    def __init__(self, client, **changes):
        self.client = client
        self.limits = Limits(
            **{
                "upload_deadline_seconds": 60,
                "lease_seconds": 10,
                "results_ttl_seconds": 3600,
                "single_ttl_seconds": 600,
                "tombstone_ttl_seconds": 7200,
                "job_max_age_seconds": 86400,
                "version_wait_seconds": 60,
                "store_budget_bytes": 0,
                **changes,
            }
        )
        self.tickets = TicketQueue(client)
        self.store = Store(client, self.limits)
        self.leases = Leases(client, self.limits, "w1")

    def load_scripts(self):
        """Has the store know every script: where a reply gets lost, it shall be that of a script and of no question."""
        for script in self.store.intake._scripts._scripts.values():
            self.client.script_load(script.script)

    def layout(self):
        return plan(
            format="csv",
            delimiter=",",
            line_end="\n",
            header=("RM",),
            names=("RM",),
            features=("RM",),
            classes=None,
            has_probabilities=False,
            keep="all",
        )

    def open(self, tenant=TENANT):
        return self.store.intake.open_batch(tenant, "csv", MODEL, self.layout())

    def batch(self, chunks=2, rows=3, tenant=TENANT, close=True):
        """A batch of chunks that nobody has touched yet."""
        upload = self.open(tenant)
        for index in range(chunks):
            self.store.intake.append(upload, index, compress(b"7\n" * rows), rows)
        if close:
            self.store.intake.close(upload, chunks)
        return upload

    def single(self, text='{"RM":"7"}', tenant=TENANT):
        return self.store.intake.accept_single(tenant, MODEL, text)

    def lease(self, job_id):
        return self.leases.lease(job_id, 0, "nobody")

    def leases_of(self, worker):
        """What another worker asks of the store."""
        return Leases(self.client, self.limits, worker)

    def lease_as(self, worker, job_id):
        return self.leases_of(worker).lease(job_id, 0, "nobody")

    def commit(self, chunk, ok=None, failed=0):
        ok = chunk.rows - failed if ok is None else ok
        result = ChunkResult(ok, failed, 10, False, b"result", b"failures" if failed else b"")
        return self.leases.commit(chunk.lease, result, keep_input=False)

    def find(self, job_id, tenant=TENANT):
        return self.store.find(job_id, tenant)

    def announce(self, worker="w1", state="idle", keys=(MODEL.key,)):
        self.leases.announce(worker, state, list(keys))

    def sweep(self):
        """A sweep that finds nothing younger than itself to stop it, nor so old a one that it only extends."""
        self.client.set("qc:swept", self.now() - 1)
        return self.leases.sweep(0)

    def let_leases_lapse(self):
        for member in self.client.zrange("qc:leases", 0, -1):
            self.client.zadd("qc:leases", {member: 1})

    def now(self):
        seconds, micros = self.client.time()
        return seconds * 1000 + micros // 1000


@pytest.fixture(autouse=True)
def _lasting_patience():
    """What this thread has of patience after a test is without end again: a worker that was stopped has little."""
    yield
    patience.__dict__.clear()


@pytest.fixture
def bench(redis_client):
    return Bench(redis_client)


@pytest.fixture
def bench_with(redis_client):
    return lambda **changes: Bench(redis_client, **changes)
