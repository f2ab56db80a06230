"""The job as we keep it: frozen, read from the store, never changed in place."""

import dataclasses
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import exp

from jobs.codec.layout import Layout
from jobs.pieces import joined
from jobs.status import ENDED, Status

KEY_DIGITS = 12  # of a model's digest are in its key
PACE_SECONDS = 5  # jobs/lua/shared/room.lua has the same


# The revision of a single prediction is its status' rank and how many attempts there were.
_RANKS = {status: 1 if status is Status.QUEUED else 2 if status is Status.RUNNING else 3 for status in Status}


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """The fixed state of a model that a job was accepted for."""

    name: str
    version: str
    sha256: str

    @property
    def key(self) -> str:
        """Names exactly this state of the model: the same text as `models.catalog.Manifest.key`."""
        return f"{self.name}@{self.version}:{self.sha256[:KEY_DIGITS]}"

    @property
    def label(self) -> str:
        """What clients are told of it."""
        return f"{self.name}@{self.version}"

    @classmethod
    def of(cls, key: str, sha256: str) -> "ModelVersion":
        """The one with this key."""
        name, _, version = key.rpartition(":")[0].partition("@")
        return cls(name, version, sha256)


@dataclass(frozen=True, slots=True)
class Job:
    """One accepted request. Moments are milliseconds since the epoch, by the store's clock."""

    id: str
    kind: str  # "single" | "batch"
    tenant: str
    form: str  # what it was sent as: "csv" | "ndjson" | "json"
    status: Status
    model: ModelVersion
    created_at: int
    started_at: int | None
    ended_at: int | None
    expires_at: int | None
    rows_received: int
    rows_total: int | None
    rows_done: int
    rows_ok: int
    rows_failed: int
    revision: int  # grows with every change of its status, its rows or its attempts
    rows_copied: int = 0  # done in the job that it retries
    rows_left_alone: int = 0  # that it will never do, since only failed rows are retried
    chunks_received: int = 0
    chunks_done: int = 0
    prefix: int = 0  # so many chunks from the first are done without a gap
    csv_bytes: int = 0  # what the finished chunks are as CSV, without the header
    has_surplus: bool = False  # some failed record has more cells than the header
    pace: float = 0.0  # rows per second, a sum that fades with PACE_SECONDS, as it was at `paced_at`
    paced_at: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    error_column: str | None = None  # single: the feature that is to blame
    input: str | None = None  # single: what was sent, as JSON by feature name
    result: str | None = None  # single: {"prediction": …, "probabilities": …} as JSON
    layout: Layout | None = None  # batch
    attempts: int = 0  # how many there were; the store keeps the last ones
    retry_of: str | None = None  # the id of the job whose rows it retries

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in ENDED

    def rows_per_second(self, now: float) -> float | None:
        """How fast rows are done: over the last seconds while it runs, over all of its time once it has ended.

        `now` in milliseconds; it may be a little off. None while nothing is done.
        """
        done = self.rows_done - self.rows_copied
        if self.started_at is None or not done:
            return None
        if self.ended_at is not None or self.paced_at is None:
            return done * 1000 / max((self.ended_at or now) - self.started_at, 1)
        seen = max(now - self.started_at, 1) / 1000
        faded = self.pace * exp(-max(now - self.paced_at, 0) / 1000 / PACE_SECONDS)
        return faded / (1 - exp(-seen / PACE_SECONDS))

    @property
    def rows_unreached(self) -> int:
        """Received rows that have no outcome (yet)."""
        return self.rows_received - self.rows_done

    @property
    def rows_to_do(self) -> int:
        """Received rows that workers have still to do."""
        return self.rows_unreached - self.rows_left_alone


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a chunk, or at a single prediction, that did not end well. Moments are milliseconds, as a job's.

    `reason` is `worker_lost`, `crashed`, `out_of_memory`, `timeout` or `shutdown`; the last one is not `counted`.
    """

    chunk: int | None  # None: a single prediction
    worker: str
    started_at: int
    ended_at: int
    reason: str
    counted: bool


def read_attempt(text: str | bytes) -> Attempt:
    """The attempt that note_attempt in jobs/lua/shared/leases.lua wrote, whatever else it wrote there."""
    found = json.loads(text)
    return Attempt(**{field.name: found[field.name] for field in dataclasses.fields(Attempt)})


def read_record(job_id: str, fields: Mapping[str, str], single_ttl_seconds: int) -> Job:
    """The job whose hash holds `fields`."""
    if fields.get("kind") != "batch":
        return _read_single(job_id, fields, single_ttl_seconds)
    layout = fields["layout"]
    return Job(
        id=job_id,
        kind="batch",
        tenant=fields["tenant"],
        form=fields["form"],
        status=Status(fields["status"]),
        model=ModelVersion.of(fields["model_key"], fields["sha256"]),
        created_at=int(fields["created_at"]),
        started_at=_number(fields, "started_at"),
        ended_at=_number(fields, "ended_at"),
        expires_at=_number(fields, "expires_at"),
        rows_received=_count(fields, "rows_received"),
        rows_total=_number(fields, "rows_total"),
        rows_done=_count(fields, "rows_ok") + _count(fields, "rows_failed"),
        rows_ok=_count(fields, "rows_ok"),
        rows_failed=_count(fields, "rows_failed"),
        rows_copied=_count(fields, "rows_copied"),
        rows_left_alone=_count(fields, "rows_left_alone"),
        chunks_received=_count(fields, "chunks_received"),
        chunks_done=_count(fields, "chunks_done"),
        prefix=_count(fields, "prefix"),
        csv_bytes=_count(fields, "csv_bytes"),
        has_surplus=fields.get("surplus") == "1",
        pace=float(fields.get("pace") or 0),
        paced_at=_number(fields, "paced_at"),
        error_code=fields.get("error_code"),
        error_message=fields.get("error_message"),
        revision=_count(fields, "revision"),
        layout=Layout.from_json(layout),
        attempts=_count(fields, "attempts"),
        retry_of=fields.get("retry_of"),
    )


def _read_single(job_id: str, fields: Mapping[str, str], ttl_seconds: int) -> Job:
    """A single prediction: what follows from other fields is not kept, since there may be very many of them."""
    status, ended_at = Status(fields["status"]), _number(fields, "ended_at")
    rows_ok, rows_failed = int(status is Status.SUCCEEDED), _count(fields, "rows_failed")
    expires_at = _number(fields, "expires_at")
    if expires_at is None and ended_at is not None:
        expires_at = ended_at + ttl_seconds * 1000
    return Job(
        id=job_id,
        kind="single",
        tenant=fields["tenant"],
        form="json",
        status=status,
        model=ModelVersion.of(fields["model_key"], unpacked_sha256(fields["model_key"], fields["digest"])),
        created_at=int(fields["created_at"]),
        started_at=_number(fields, "started_at"),
        ended_at=ended_at,
        expires_at=expires_at,
        rows_received=1,
        rows_total=1,
        rows_done=rows_ok + rows_failed,
        rows_ok=rows_ok,
        rows_failed=rows_failed,
        error_code=fields.get("error_code"),
        error_message=fields.get("error_message"),
        error_column=fields.get("error_column"),
        revision=_RANKS[status] + _count(fields, "revision"),
        input=joined(fields, "input"),
        result=joined(fields, "result"),
        attempts=_count(fields, "attempts"),
        retry_of=fields.get("retry_of"),
    )


@lru_cache(maxsize=1024)
def packed_sha256(sha256: str) -> str:
    """What a model's key does not say of its digest, as the record of a single prediction keeps it."""
    return b64encode(bytes.fromhex(sha256[KEY_DIGITS:])).decode()


def unpacked_sha256(model_key: str, packed: str) -> str:
    """The whole digest again."""
    return model_key.rpartition(":")[2] + b64decode(packed).hex()


def new_single(job_id: str, tenant: str, model: ModelVersion, created_at: int, input_json: str) -> Job:
    """A single prediction that was accepted just now, without reading it."""
    return Job(
        id=job_id,
        kind="single",
        tenant=tenant,
        form="json",
        status=Status.QUEUED,
        model=model,
        created_at=created_at,
        started_at=None,
        ended_at=None,
        expires_at=None,
        rows_received=1,
        rows_total=1,
        rows_done=0,
        rows_ok=0,
        rows_failed=0,
        revision=_RANKS[Status.QUEUED],
        input=input_json,
    )


def changed(job: Job, fields: Mapping[str, str]) -> Job:
    """A single prediction after it has ended: these fields of its record have changed."""
    status = Status(fields["status"])
    rows_ok, rows_failed = int(status is Status.SUCCEEDED), _count(fields, "rows_failed")
    return dataclasses.replace(
        job,
        status=status,
        revision=_RANKS[status],
        started_at=_number(fields, "started_at"),
        ended_at=_number(fields, "ended_at"),
        expires_at=_number(fields, "expires_at"),
        rows_ok=rows_ok,
        rows_failed=rows_failed,
        rows_done=rows_ok + rows_failed,
        result=joined(fields, "result"),
        error_code=fields.get("error_code"),
        error_message=fields.get("error_message"),
        error_column=fields.get("error_column"),
    )


def _number(fields: Mapping[str, str], name: str) -> int | None:
    value = fields.get(name)
    return int(value) if value else None


def _count(fields: Mapping[str, str], name: str) -> int:
    return int(fields.get(name) or 0)
