"""What can go wrong with a job. The errors carry facts; the API turns them into answers."""

from jobs.status import Status


class JobsError(Exception):
    """The base of everything this package raises on purpose."""


class UnknownJob(JobsError):
    """Raised when no job with this id was ever accepted, or it belongs to another tenant."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} is not known")
        self.job_id = job_id


class JobGone(JobsError):
    """Raised when a job was there and is not any more.

    `reason` is `job_expired`, `job_deleted`, `upload_failed` or `job_lost`; `at` is when, in milliseconds since
    the epoch, or None where nobody knows.
    """

    def __init__(self, job_id: str, reason: str, at: int | None) -> None:
        super().__init__(f"job {job_id} is gone: {reason}")
        self.job_id = job_id
        self.reason = reason
        self.at = at


class UploadRefused(JobsError):
    """Raised when an append or a close is refused, because the job was canceled, deleted or taken back meanwhile.

    `reason` is `job_canceled`, `job_deleted` or `upload_failed`.
    """

    def __init__(self, job_id: str, reason: str) -> None:
        super().__init__(f"the upload of job {job_id} was refused: {reason}")
        self.job_id = job_id
        self.reason = reason


class KeyRefused(JobsError):
    """Raised when a request's idempotency key belongs to another request.

    `reason` is `idempotency_key_in_use` while that one is still being received, else `idempotency_key_reused`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the idempotency key was refused: {reason}")
        self.reason = reason


class SameRequest(JobsError):
    """Raised when the same request with the same idempotency key has made a job already."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the same request has made job {job_id}")
        self.job_id = job_id


class MoveRefused(JobsError):
    """Raised when a job cannot go to the wanted status from the one it is in."""

    def __init__(self, job_id: str, current: Status, wanted: Status) -> None:
        super().__init__(f"job {job_id} is {current} and cannot become {wanted}")
        self.job_id = job_id
        self.current = current
        self.wanted = wanted


class StoreAway(JobsError):
    """Raised when the store does not answer in time, or not at all."""


class StoreFull(JobsError):
    """Raised when the store has no room for what was to be accepted.

    `needed_bytes` and `free_bytes` are estimates, None where the store itself refused without saying.
    """

    def __init__(self, needed_bytes: int | None = None, free_bytes: int | None = None) -> None:
        super().__init__("the store has no room")
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes
