"""How a script that accepts a job is called, and what its answer says; what is accepted is in jobs/intake.py."""

from collections.abc import Callable, Sequence
from typing import Any

from jobs.errors import JobGone, KeyRefused, SameRequest, StoreFull
from jobs.keys import text
from jobs.lookup import Lookup
from jobs.record import Job
from jobs.scripts import Argument, Scripts


class Accepting:
    """What everything that accepts jobs has in common: an id of the store's present life, and a plain refusal."""

    def __init__(self, scripts: Scripts, lookup: Lookup) -> None:
        self._scripts = scripts
        self._lookup = lookup

    def _accept(self, tenant: str, call: Callable[..., Any], *arguments: Argument) -> tuple[str, str]:
        """Makes an id of the store's present generation and calls an accepting script with it."""
        while True:
            job_id, generation = self._lookup.new_id(tenant)
            try:
                answer = text(call(job_id, generation, tenant, *arguments))
            except StoreFull:
                [said] = self._said_before([job_id])
                if isinstance(said, BaseException):
                    raise
                answer = text(said)
            if self._is_accepted(answer):
                return job_id, answer

    def _said_before(self, job_ids: Sequence[str]) -> list[bytes | BaseException]:
        """What an accepting script has said of each job, or StoreFull, where a full store has not run it.

        It may have been full only when the script was called a second time, after the answer to the first one was
        lost. The tickets are to be put: one too many changes nothing.
        """
        return [StoreFull() if at is None else b"front " + at for at in self._lookup.created_at(job_ids)]

    def _is_accepted(self, answer: str) -> bool:
        """False when the store has begun another life since we asked. Raises what the answer refuses with."""
        check_room(answer)
        check_key(answer)
        if answer == "generation":
            self._lookup.forget_generation()
        return answer != "generation"

    def _gone(self, job: Job) -> JobGone:
        """What is known of a job that was there a moment ago."""
        self._lookup.find(job.id, job.tenant)  # raises it, mostly
        return JobGone(job.id, "job_expired", None)


def check_room(answer: str) -> None:
    """Raises StoreFull when that is what a script says."""
    if answer.startswith("full "):
        _, needed, free = answer.split()
        raise StoreFull(int(needed), int(free))


def check_key(answer: str) -> None:
    """Raises KeyRefused or SameRequest when a script says that another job has the idempotency key."""
    if answer.startswith("idempotency_key_"):
        raise KeyRefused(answer)
    if answer.startswith("same "):
        raise SameRequest(answer.removeprefix("same "))
