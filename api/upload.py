"""A batch on its way into the store: chunk by chunk while its body arrives, accepted only at the end."""

import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from api.context import Api, put_tickets, tenant
from api.idempotency import current_key
from api.problems import Problem
from jobs.codec.chunk import compress
from jobs.codec.layout import Layout
from jobs.errors import JobsError, StoreAway, StoreFull, UploadRefused
from jobs.inbox_intake import SmallBatch
from jobs.intake import Appended, Upload
from jobs.record import Job, ModelVersion
from jobs.splitter import Chunk

SIGN_SECONDS = 2.5  # how often a slow upload shows that it goes on: a quarter of UPLOAD_SILENCE_MS in jobs/lua
TRICKLE_SECONDS = 1.0  # rows that wait so long for a full chunk go without: their results need not wait either

CHUNK_SECONDS = 0.1  # of a worker's time: so long a single prediction or another job may have to wait
FEWEST_ROWS = 16
UNMEASURED_ROWS = 1024  # a model may be slow: then nobody else takes a chunk over for as long as it takes
ROOM_SECONDS = 20.0  # how long an upload waits for room in the store before it is refused
ROOM_STEPS_SECONDS = (0.05, 1.0)  # the first pause before it asks again, and the longest: each time it sends a chunk
FAILED_SECONDS = 60  # a model that cannot be loaded needs a person
BACKLOG_BYTES = 6 * 1024 * 1024  # of input that may wait before the reader slows down
CATCH_UP_SECONDS = 0.02  # after each chunk that finds too many waiting: two workers take about one in that time
PATIENCE_SECONDS = 2.0  # how much slower an upload gets by that, all in all
PREDICTION_BYTES = 10  # a float of 17 digits, compressed


class Source(Protocol):
    """Where the chunks come from."""

    def take(self, max_rows: int, max_bytes: int, flush: bool = False) -> Chunk | None:
        """The next chunk, if one is full; with `flush` whatever is there; None otherwise."""


class Uploader:
    """Sends chunks to the store. A context that is left by an error takes the batch back.

    `find_layout` answers None until enough was read to know the layout; nothing is sent before.
    """

    def __init__(
        self,
        api: Api,
        form: str,
        model: ModelVersion,
        source: Source,
        find_layout: Callable[[], Layout | None],
        *,
        body_bytes: int | None = None,
    ) -> None:
        """`body_bytes` is how long the body is, as it is stored; None when nobody knows."""
        self._api = api
        self._form = form
        self._model = model
        self._source = source
        self._find_layout = find_layout
        self._layout: Layout | None = None
        self._upload: Upload | None = None
        self._chunks = 0
        self._rows = 0
        self._body_bytes = body_bytes
        self._patience = PATIENCE_SECONDS
        self._rows_wanted = min(api.settings.first_chunk_rows, api.settings.chunk_rows)
        self._sent_at = self._touched_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Refused means that there is nothing to take back; a store that is away finds the passed deadline by itself.
        if self._upload and error is not None and not isinstance(error, UploadRefused | StoreAway):
            with contextlib.suppress(JobsError):
                self._api.store.intake.take_back(self._upload)

    def send(self, flush: bool = False) -> None:
        """Sends every chunk that is full; with `flush` all that is there. Raises LayoutError like `check_layout`."""
        layout = self.check_layout()
        if layout is None:
            return
        while chunk := self._source.take(self._rows_wanted, self._api.settings.chunk_bytes, flush):
            self._append(chunk, layout)

    def check_layout(self) -> Layout | None:
        """The layout, if enough is there to know it; raises LayoutError when it does not fit the model."""
        self._layout = self._layout or self._find_layout()
        return self._layout

    def keep_up(self) -> None:
        """Keeps a slow upload going: sends rows that have waited long enough, and moves the deadline."""
        now = time.monotonic()
        if now - self._sent_at >= TRICKLE_SECONDS:
            self._sent_at = now
            self.send(flush=True)
        sign_seconds = min(SIGN_SECONDS, self._api.settings.upload_deadline_seconds / 4)
        if self._upload and now - self._touched_at >= sign_seconds:
            self._renew(self._upload)
            self._touched_at = now

    def close(self) -> Job:
        """Accepts the batch: the whole body has been sent."""
        self.send(flush=True)
        if self._upload is None:
            raise Problem(400, "no_rows", "There is no row in the body. Send at least one.")
        try:
            return self._api.store.intake.close(self._upload, self._chunks, current_key().fingerprint)
        except UploadRefused as error:
            raise self._why(error) from None

    def _append(self, chunk: Chunk, layout: Layout) -> None:
        self._rows += chunk.rows
        most = self._api.settings.max_rows
        if self._rows > most:
            raise Problem(413, "too_many_rows", f"A batch takes up to {most} rows. Send several smaller ones.")
        if self._upload is None:
            self._upload = self._open(chunk, layout)
        # Workers that keep up take a chunk at once: it is not worth compressing. What has to wait is.
        blob = chunk.data if self._patience > 0 else compress(chunk.data)
        appended = self._append_when_there_is_room(self._upload, blob, chunk.rows)
        put_tickets(self._api, appended.tickets)
        self._chunks += 1
        self._rows_wanted = self._next_rows(appended.rows_per_second)
        self._let_workers_catch_up(appended.backlog_bytes)
        self._sent_at = self._touched_at = time.monotonic()

    def _open(self, first: Chunk, layout: Layout) -> Upload:
        """Reserves what the results will take, judged by the first chunk."""
        row_bytes = result_row_bytes(layout, first, len(compress(first.data)))
        expected = int(self._body_bytes / (len(first.data) / first.rows)) if self._body_bytes else 0
        facts = (tenant(), self._form, self._model, layout)
        key = current_key().digest
        return self._api.store.intake.open_batch(*facts, row_bytes=row_bytes, expected_rows=expected, key=key)

    def _append_when_there_is_room(self, upload: Upload, blob: bytes, rows: int) -> Appended:
        """Waits for workers to make room; raises StoreFull when they do not for ROOM_SECONDS."""
        until, (pause, longest) = time.monotonic() + ROOM_SECONDS, ROOM_STEPS_SECONDS
        while True:
            try:
                return self._api.store.intake.append(upload, self._chunks, blob, rows)
            except UploadRefused as error:
                raise self._why(error) from None
            except StoreFull:
                if time.monotonic() >= until:
                    raise
            time.sleep(max(min(pause, until - time.monotonic()), 0.0))
            pause = min(2 * pause, longest)
            self._renew(upload)

    def _renew(self, upload: Upload) -> None:
        try:
            self._api.store.intake.renew_upload(upload)
        except UploadRefused as error:
            raise self._why(error) from None

    def _why(self, refused: UploadRefused) -> UploadRefused | Problem:
        """A job that failed while its body arrived is taken back, and its error is the answer."""
        if refused.reason != "job_failed":
            return refused
        job = self._api.store.find(refused.job_id, tenant())
        code, message = job.error_code or "job_failed", job.error_message or "The job has failed."
        return Problem(503, code, message, headers={"Retry-After": str(FAILED_SECONDS)})

    def _next_rows(self, rows_per_second: float | None) -> int:
        """How many rows the next chunk has: about CHUNK_SECONDS of work, by the measured speed of the model.

        While nobody has measured, chunks grow from a small first one, so that workers begin at once.
        """
        if rows_per_second is None:
            return min(self._rows_wanted * 2, UNMEASURED_ROWS, self._api.settings.chunk_rows)
        return min(max(int(rows_per_second * CHUNK_SECONDS), FEWEST_ROWS), self._api.settings.chunk_rows)

    def _let_workers_catch_up(self, backlog_bytes: int) -> None:
        """A client that is faster than the workers would only fill the store; but its patience is not without end."""
        if backlog_bytes > BACKLOG_BYTES and self._patience > 0:
            self._patience -= CATCH_UP_SECONDS
            time.sleep(CATCH_UP_SECONDS)


def accept_small(api: Api, model: ModelVersion, layout: Layout, chunk: Chunk) -> Job | None:
    """Accepts JSON inputs that are wholly here, as one chunk, in one step; None when they are too much for one."""
    batch = SmallBatch(
        chunk=chunk.data,
        rows=chunk.rows,
        row_bytes=result_row_bytes(layout, chunk, len(compress(chunk.data))),
        most_seconds=CHUNK_SECONDS,
        unmeasured_rows=api.settings.first_chunk_rows,
    )
    key = current_key()
    bound = {"key": key.digest, "fingerprint": key.fingerprint}
    accepted = api.store.intake.accept_batch(tenant(), model, layout, batch, **bound)
    if accepted is None:
        return None
    job, tickets = accepted
    put_tickets(api, tickets)
    return job


def result_row_bytes(layout: Layout, first: Chunk, blob_bytes: int) -> float:
    """What a row of results takes in the store, judged by a first chunk and its compressed size."""
    input_bytes = blob_bytes / first.rows
    kept = input_bytes * len(layout.keep) / len(layout.columns)
    if layout.format == "json":  # the input itself stays too
        kept += input_bytes if layout.keep else 0
    probabilities = len(layout.outputs) - 2
    return 1.05 * kept + PREDICTION_BYTES * (1 + probabilities)
