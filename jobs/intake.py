"""Accepting: how jobs and their rows come into the store. What waits in an inbox comes through jobs/inbox_intake.py."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from jobs.accepting import check_key, check_room
from jobs.codec.layout import Layout
from jobs.errors import StoreFull, UploadRefused
from jobs.inbox_intake import InboxIntake
from jobs.keys import new_token, text, texts
from jobs.record import Job, ModelVersion
from jobs.tickets import Ticket, job_ticket


@dataclass(frozen=True, slots=True)
class Upload:
    """The right to append to, and to close, one batch that is being received."""

    job_id: str
    token: str


@dataclass(frozen=True, slots=True)
class Appended:
    """What follows from a chunk that was added.

    `rows_per_second` is what one worker does of this model (None: nobody has measured), `backlog_bytes` is input of
    this batch that is not done, `tickets` are to be put.
    """

    rows_per_second: float | None
    backlog_bytes: int
    tickets: list[Ticket]


@dataclass(frozen=True, slots=True)
class Bound:
    """The job that an idempotency key is bound to, and the fingerprint of the request that made it."""

    job_id: str
    fingerprint: str


class Intake(InboxIntake):
    """What accepts jobs. Every method may raise StoreAway or StoreFull."""

    def open_batch(
        self,
        tenant: str,
        form: str,
        model: ModelVersion,
        layout: Layout,
        *,
        row_bytes: float = 0.0,
        expected_rows: int = 0,
        key: str = "",
    ) -> Upload:
        """Creates the record of a batch whose body is still arriving.

        `row_bytes` is what a row of results will take in the store; `expected_rows` is 0 when nobody knows; `key` is
        the digest of the idempotency key, if there is one. Raises KeyRefused when another job has it, and StoreFull
        when the results of so many rows could not be kept.
        """
        token = new_token()
        facts = (form, model.key, model.sha256, layout.to_json(), token, f"{row_bytes:.3f}", expected_rows, key)
        job_id, _ = self._accept(tenant, partial(self._scripts.call, "open"), *facts)
        return Upload(job_id, token)

    def append(self, upload: Upload, index: int, blob: bytes, rows: int) -> Appended:
        """Adds one chunk; the same index twice changes nothing.

        Raises UploadRefused when the job was canceled, deleted or taken back meanwhile or has failed, and StoreFull
        when there is no room for the chunk and its results at this moment.
        """
        answer = self._scripts.call("append", upload.job_id, upload.token, index, rows, blob, secrets.token_hex(4))
        reason, *found = texts(answer)
        _check_upload(upload, reason)
        rate, backlog_bytes, *ticket_ids = found
        return Appended(
            float(rate) if rate else None, int(backlog_bytes), [job_ticket(ticket_id) for ticket_id in ticket_ids]
        )

    def renew_upload(self, upload: Upload) -> None:
        """Moves the deadline of an upload that is slow but alive. Raises UploadRefused."""
        _check_upload(upload, text(self._scripts.call("renew_upload", upload.job_id, upload.token)))

    def close(self, upload: Upload, chunks: int, fingerprint: str = "") -> Job:
        """Closes an upload of so many chunks: from here on the job is accepted. Raises UploadRefused.

        The `fingerprint` of the request is what its idempotency key is bound to, if it came with one.
        """
        try:
            answer = self._scripts.call("close", upload.job_id, upload.token, chunks, fingerprint)
        except StoreFull:
            # A full store runs no such script: also not a second time, after the answer to the first one was lost.
            if not self._lookup.is_closed(upload.job_id, upload.token):
                raise
        else:
            _check_upload(upload, text(answer))
        return self._lookup.read(upload.job_id)

    def take_back(self, upload: Upload) -> None:
        """Erases a batch whose upload failed. One that was canceled, deleted or closed meanwhile is left alone."""
        self._scripts.call("take_back", upload.job_id, upload.token)

    def find_key(self, tenant: str, key: str) -> Bound | None:
        """What the idempotency key with the digest `key` is bound to; None when it is free. Raises KeyRefused."""
        answer = texts(self._scripts.call("find_key", tenant, key))
        if not answer:
            return None
        check_key(answer[0])
        job_id, fingerprint = answer
        return Bound(job_id, fingerprint)

    def free_key(self, job: Job) -> None:
        """Frees the idempotency key that a job came with, so that the same request makes a new job.

        One that is to be kept stays as it is.
        """
        self._scripts.call("free_key", job.id)

    def keep_key(self, job: Job) -> bool:
        """Has a job keep its idempotency key whatever comes of it; False when it has none any more."""
        return bool(self._scripts.call("keep_key", job.id))

    # Retrying

    def open_retry(self, job: Job) -> Upload:
        """Creates the record of a batch that retries an ended one; `copy_chunks` and `close` follow.

        Raises JobGone when that one is not there any more, and StoreFull when what is copied could not be kept.
        """
        token = new_token()
        job_id, answer = self._accept(job.tenant, partial(self._scripts.call, "open_retry"), job.id, token)
        if answer == "gone":
            raise self._gone(job)
        return Upload(job_id, token)

    def copy_chunks(self, upload: Upload, job: Job, indexes: Iterable[int], rows: str) -> list[Ticket]:
        """Copies chunks of an ended batch into the one that retries its `rows`; returns the tickets to put.

        `rows` is "failed", "unprocessed", "both" or "all". The same index twice changes nothing. Raises JobGone,
        UploadRefused and StoreFull.
        """
        facts = [(upload.job_id, upload.token, index, job.id, rows, secrets.token_hex(4)) for index in indexes]
        tickets: list[Ticket] = []
        for answer in self._scripts.call_all("copy_chunk", facts):
            reason, *ticket_ids = texts(answer)
            if reason == "gone":
                raise self._gone(job)
            _check_upload(upload, reason)
            tickets += map(job_ticket, ticket_ids)
        return tickets


def _check_upload(upload: Upload, reason: str) -> None:
    check_room(reason)
    if reason != "ok":
        raise UploadRefused(upload.job_id, reason)
