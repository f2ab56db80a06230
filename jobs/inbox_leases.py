"""What workers ask of the store for what waits in inboxes: single predictions, and small batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import redis

from jobs.inbox_intake import MARK_MILLISECONDS
from jobs.keys import inbox_batches, inbox_bell, new_inbox_ticket_id, new_token, text
from jobs.lease import SINGLE, Lease
from jobs.pieces import pieces
from jobs.scripts import Scripts, translated
from jobs.status import Status
from jobs.tickets import Ticket, inbox_ticket


@dataclass(frozen=True, slots=True)
class LeasedSingles:
    """Single predictions of one model version to predict together; all under one token."""

    model_key: str
    token: str
    inputs: dict[str, str]  # job id → input as JSON
    losses: int = 0  # how many workers were lost over the only one, while it was alone
    small_batches: int = 0  # that wait behind them

    @property
    def leases(self) -> list[Lease]:
        """One lease for each of them."""
        return [Lease(job_id, SINGLE, self.token) for job_id in self.inputs]


@dataclass(frozen=True, slots=True)
class SingleResult:
    """What came out of a single prediction: a result as JSON, or why there is none."""

    result: str | None
    code: str = ""
    message: str = ""
    column: str | None = None

    @property
    def status(self) -> Status:
        """What the job ends as."""
        return Status.FAILED if self.result is None else Status.SUCCEEDED

    def changes(self) -> list[str]:
        """The fields of the record that say so, each followed by its text."""
        if self.result is not None:
            return pieces("result", self.result)
        where = [] if self.column is None else ["error_column", self.column]
        return ["rows_failed", "1", "error_code", self.code, "error_message", self.message, *where]


class InboxLeases:
    """The part of jobs.leases.Leases that is about inboxes."""

    _client: redis.Redis
    _scripts: Scripts
    _worker: str
    _lease_milliseconds: int

    def lease_singles(self, model_keys: Sequence[str], most: int, ticket_id: str) -> LeasedSingles | None:
        """Single predictions that wait for one of these model versions; None when none do."""
        token = new_token()
        holding = (token, self._worker, self._lease_milliseconds)
        answer = self._scripts.call("lease_inbox", *holding, most, ticket_id, MARK_MILLISECONDS, *model_keys)
        if not answer:
            return None
        model_key, losses, small_batches, *pairs = answer
        inputs = {text(job_id): text(sent) for job_id, sent in zip(pairs[::2], pairs[1::2], strict=True)}
        return LeasedSingles(text(model_key), token, inputs, int(losses), int(small_batches))

    def note_singles(self, token: str, job_ids: Sequence[str], reason: str, seconds: float, nonce: str) -> None:
        """Lists an attempt of leased single predictions; the same nonce twice changes nothing."""
        self._scripts.call("note_singles", token, reason, int(seconds * 1000), nonce, *job_ids)

    def commit_singles(self, token: str, results: dict[str, SingleResult]) -> None:
        """Hands in single predictions by job id and ends their jobs; those not held any more are left alone."""
        arguments: list[str | int] = []
        for job_id, outcome in results.items():
            changes = outcome.changes()
            arguments += [job_id, outcome.status.value, len(changes), *changes]
        self._scripts.call("commit_singles", token, *arguments)

    def next_small_batch(self, model_key: str) -> str | None:
        """The id of the next small batch that waits in an inbox; None when there is none."""
        with translated():
            found = self._client.lpop(inbox_batches(model_key))
            if found is not None:  # else the bell may ring for what has just come
                self._client.delete(inbox_bell(model_key))
        return None if found is None else text(found)

    def hear_bell(self, model_key: str, seconds: float) -> bool:
        """Waits so long for a single prediction to come into an empty inbox; True when one may have come."""
        with translated():
            return self._client.blpop([inbox_bell(model_key)], timeout=seconds) is not None

    def keep_inbox(self, model_key: str, ticket_id: str) -> bool:
        """When nothing seems to wait: False ends the ticket's work, True says that something came after all."""
        return bool(self._scripts.call("close_inbox", model_key, ticket_id, "", MARK_MILLISECONDS))

    def hand_on_inbox(self, model_key: str, ticket_id: str, front: bool) -> Ticket | None:
        """At the end of a slice: the ticket to put for the next one; None when nothing waits or it is another's."""
        following = new_inbox_ticket_id()
        if self._scripts.call("close_inbox", model_key, ticket_id, following, MARK_MILLISECONDS):
            return inbox_ticket(following, model_key, front)
        return None
