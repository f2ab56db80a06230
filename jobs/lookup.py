"""Finding a job by its id, or what is known of one that is not there."""

from collections.abc import Iterable
from time import monotonic

import redis

from jobs.errors import JobGone, UnknownJob
from jobs.ids import Generation, looks_like_id
from jobs.keys import GENERATION, PREFIX, fields, job_key, text
from jobs.record import Job, read_record
from jobs.scripts import Limits, translated


class Lookup:
    """Finds jobs, and knows in which of its lives the store is. Every method may raise StoreAway."""

    def __init__(self, client: redis.Redis, limits: Limits) -> None:
        self._client = client
        self._limits = limits
        self._generation: Generation | None = None
        self._clock_began_at = 0.0  # what the store's clock showed when ours showed 0, in seconds

    def find(self, job_id: str, tenant: str) -> Job:
        """The job. Raises UnknownJob (another tenant's as well) or JobGone."""
        if not looks_like_id(job_id):
            raise UnknownJob(job_id)
        with translated(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(job_key(job_id))
            pipeline.get(f"{PREFIX}tombstone:{job_id}")
            pipeline.get(GENERATION)
            pipeline.time()
            record, tombstone, generation, clock = pipeline.execute()
        self._hear_clock(*clock)
        if record:
            job = read_record(job_id, fields(record), self._limits.single_ttl_seconds)
            if job.tenant == tenant:
                return job
            raise UnknownJob(job_id)
        if tombstone:
            reason, at, owner = text(tombstone).split(" ", 2)
            if owner == tenant:
                raise JobGone(job_id, reason, int(at))
        else:
            known = Generation(text(generation)) if generation else self._ask_generation()
            self._tell_by_id(job_id, tenant, known)
        raise UnknownJob(job_id)

    def read(self, job_id: str) -> Job:
        """The job, whoever owns it. Raises JobGone."""
        with translated():
            record = self._client.hgetall(job_key(job_id))
        if not record:
            raise JobGone(job_id, "job_deleted", None)
        return read_record(job_id, fields(record), self._limits.single_ttl_seconds)

    def is_closed(self, job_id: str, token: str) -> bool:
        """Whether the upload with this token was closed, and its job is still there."""
        with translated():
            found = self._client.hget(job_key(job_id), "closed")
        return found is not None and text(found) == token

    def created_at(self, job_ids: Iterable[str]) -> list[bytes | None]:
        """When each of these jobs was created, in milliseconds; None where it is not there."""
        with translated(), self._client.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hget(job_key(job_id), "created_at")
            found: list[bytes | None] = pipeline.execute()
        return found

    def new_id(self, tenant: str) -> tuple[str, str]:
        """An id for a new job, and the generation it is of, which the store is asked to compare."""
        generation = self._generation or self._ask_generation()
        return generation.new_id(int(self._now()), tenant), generation.value

    def forget_generation(self) -> None:
        """The store has begun another life since we asked."""
        self._generation = None

    def _tell_by_id(self, job_id: str, tenant: str, generation: Generation) -> None:
        """Raises JobGone when the id alone tells that it was a job."""
        if not generation.has(job_id):
            raise JobGone(job_id, "job_lost", None)
        made_at, now = generation.made_at(job_id, tenant), self._now()
        if made_at is None:
            return
        expired_at = made_at + self._limits.single_ttl_seconds
        if now < expired_at:  # nothing of that age can have expired: the store came back as it was before
            raise JobGone(job_id, "job_lost", None)
        if now - made_at < self._limits.tombstone_ttl_seconds:
            raise JobGone(job_id, "job_expired", expired_at * 1000)

    def _ask_generation(self) -> Generation:
        """The store's generation, begun here if it has none yet."""
        with translated(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.get(GENERATION)
            pipeline.time()
            found, clock = pipeline.execute()
        self._hear_clock(*clock)
        self._generation = Generation(text(found)) if found else self._begun_generation()
        return self._generation

    def _begun_generation(self) -> Generation:
        begun = Generation.begin()
        with translated():
            found = self._client.set(GENERATION, begun.value, nx=True, get=True)
        return Generation(text(found)) if found else begun

    def _hear_clock(self, seconds: int, microseconds: int) -> None:
        self._clock_began_at = seconds + microseconds / 1e6 - monotonic()

    def _now(self) -> float:
        """Seconds since the epoch by the store's clock, as we last heard it."""
        return self._clock_began_at + monotonic()
