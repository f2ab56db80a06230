"""Finding a job by its id, or what is known of one that is not there."""

import redis

from jobs.errors import JobGone, UnknownJob
from jobs.keys import GENERATION, GENERATION_LENGTH, PREFIX, fields, job_key, looks_like_id, random_id, text
from jobs.record import Job, read_record
from jobs.scripts import translated


class Lookup:
    """Finds jobs, and knows in which of its lives the store is. Every method may raise StoreAway."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._generation: str | None = None

    def find(self, job_id: str, tenant: str) -> Job:
        """The job. Raises UnknownJob (another tenant's as well) or JobGone."""
        if not looks_like_id(job_id):
            raise UnknownJob(job_id)
        with translated(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(job_key(job_id))
            pipeline.get(f"{PREFIX}tombstone:{job_id}")
            pipeline.get(GENERATION)
            record, tombstone, generation = pipeline.execute()
        if record:
            job = read_record(job_id, fields(record))
            if job.tenant == tenant:
                return job
            raise UnknownJob(job_id)
        if tombstone:
            reason, at, owner = text(tombstone).split(" ", 2)
            if owner == tenant:
                raise JobGone(job_id, reason, int(at))
        elif not job_id.startswith(text(generation) if generation else self._begun_generation()):
            raise JobGone(job_id, "job_lost", None)
        raise UnknownJob(job_id)

    def read(self, job_id: str) -> Job:
        """The job, whoever owns it. Raises JobGone."""
        with translated():
            record = self._client.hgetall(job_key(job_id))
        if not record:
            raise JobGone(job_id, "job_deleted", None)
        return read_record(job_id, fields(record))

    @property
    def generation(self) -> str:
        """The store's generation, as far as we know; begun here if it has none yet."""
        return self._generation or self._begun_generation()

    def forget_generation(self) -> None:
        """The store has begun another life since we asked."""
        self._generation = None

    def _begun_generation(self) -> str:
        begun = random_id()[:GENERATION_LENGTH]
        with translated():
            found = self._client.set(GENERATION, begun, nx=True, get=True)
        self._generation = text(found) if found else begun
        return self._generation
