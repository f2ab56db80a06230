"""The list of a tenant's jobs, page by page."""

from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

import redis

from jobs.errors import StoreAway
from jobs.ids import looks_like_id
from jobs.keys import PREFIX, fields, job_key, text
from jobs.record import Job, read_record
from jobs.scripts import Limits, translated
from jobs.status import Status

LIST_SECONDS = 1.0  # after that a page is given as it is: a web process has three to answer in


class Listing:
    """Reads the list. May raise StoreAway."""

    def __init__(self, client: redis.Redis, limits: Limits) -> None:
        self._client = client
        self._limits = limits

    def page(
        self, tenant: str, status: Status | None, model: str | None, limit: int, cursor: str | None
    ) -> tuple[list[Job], str | None]:
        """The tenant's jobs, newest first, and the cursor of the next page. Raises ValueError for a bad cursor.

        Where few of many are wanted, or there, the page may be short or empty; None alone means that it is the last.
        """
        before, until = _read_cursor(cursor) if cursor else None, monotonic() + LIST_SECONDS
        found: list[Job] = []
        while True:
            entries = self._entries(tenant, before, most=max(limit, 100))
            for created_at, job_id, job in entries:
                if job and status in (None, job.status) and model in (None, job.model.name):
                    found.append(job)
                    if len(found) == limit:
                        return found, _write_cursor((created_at, job_id))
            if not entries:
                return found, None
            before = entries[-1][:2]
            self._unlist(tenant, [job_id for _, job_id, job in entries if job is None])
            if monotonic() >= until:
                return found, _write_cursor(before)

    def _entries(self, tenant: str, before: tuple[int, str] | None, most: int) -> list[tuple[int, str, Job | None]]:
        """Up to `most` jobs of both kinds that come after the cursor, newest first; None is one that is gone."""
        # Strictly older ones: did some of `most` come before the cursor, the one kind's would end too early, and jobs
        # of that kind be left out behind older ones of the other.
        bound = f"({before[0]}" if before else "+inf"
        with translated(), self._client.pipeline(transaction=False) as pipeline:
            for kind in ("batch", "single"):
                key = f"{PREFIX}jobs:{tenant}:{kind}"
                # Jobs of the cursor's own millisecond may be on both sides of it, so all of them are read.
                pipeline.zrevrangebyscore(key, bound, "-inf", start=0, num=most, withscores=True)
                if before:
                    pipeline.zrangebyscore(key, before[0], before[0], withscores=True)
            listed = {(int(at), text(job_id)) for entries in pipeline.execute() for job_id, at in entries}
        order = sorted((entry for entry in listed if before is None or entry < before), reverse=True)[:most]
        with translated(), self._client.pipeline(transaction=False) as pipeline:
            for _, job_id in order:
                pipeline.hgetall(job_key(job_id))
            records = pipeline.execute()
        return [
            (at, job_id, read_record(job_id, fields(record), self._limits.single_ttl_seconds) if record else None)
            for (at, job_id), record in zip(order, records, strict=True)
        ]

    def _unlist(self, tenant: str, gone: Sequence[str]) -> None:
        """Takes jobs that are gone out of the list, so that the next one who reads it does not meet them."""
        if gone:
            # It only tidies: the page is right without it, and whoever reads next does it.
            with suppress(StoreAway), translated(), self._client.pipeline(transaction=False) as pipeline:
                for kind in ("batch", "single"):
                    pipeline.zrem(f"{PREFIX}jobs:{tenant}:{kind}", *gone)
                pipeline.execute()


def _write_cursor(before: tuple[int, str]) -> str:
    return f"{before[0]}-{before[1]}"


def _read_cursor(cursor: str) -> tuple[int, str]:
    at, _, job_id = cursor.partition("-")
    if not at.isascii() or not at.isdigit() or len(at) > 15 or not looks_like_id(job_id):
        raise ValueError("the cursor is not one that this server gave out")
    return int(at), job_id
