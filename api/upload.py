"""A batch on its way into the store: chunk by chunk while its body arrives, accepted only at the end."""

import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from api.context import Api, put_tickets, tenant
from api.problems import Problem
from jobs.codec.chunk import compress
from jobs.codec.layout import Layout
from jobs.errors import JobsError, StoreAway, UploadRefused
from jobs.record import Job, ModelVersion
from jobs.splitter import Chunk
from jobs.store import Upload

TRICKLE_SECONDS = 1.0  # rows that wait so long for a full chunk go without: their results need not wait either


class Source(Protocol):
    """Where the chunks come from."""

    def take(self, max_rows: int, max_bytes: int, flush: bool = False) -> Chunk | None:
        """The next chunk, if one is full; with `flush` whatever is there; None otherwise."""


class Uploader:
    """Sends chunks to the store. A context that is left by an error takes the batch back.

    `find_layout` answers None until enough was read to know the layout; nothing is sent before.
    """

    def __init__(
        self, api: Api, form: str, model: ModelVersion, source: Source, find_layout: Callable[[], Layout | None]
    ) -> None:
        self._api = api
        self._form = form
        self._model = model
        self._source = source
        self._find_layout = find_layout
        self._layout: Layout | None = None
        self._upload: Upload | None = None
        self._chunks = 0
        self._rows = 0
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
                self._api.store.take_back(self._upload)

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
        if self._upload and now - self._touched_at >= self._api.settings.upload_deadline_seconds / 4:
            self._api.store.renew_upload(self._upload)
            self._touched_at = now

    def close(self) -> Job:
        """Accepts the batch: the whole body has been sent."""
        self.send(flush=True)
        if self._upload is None:
            raise Problem(400, "no_rows", "There is no row in the body. Send at least one.")
        return self._api.store.close(self._upload, self._chunks)

    def _append(self, chunk: Chunk, layout: Layout) -> None:
        self._rows += chunk.rows
        most = self._api.settings.max_rows
        if self._rows > most:
            raise Problem(413, "too_many_rows", f"A batch takes up to {most} rows. Send several smaller ones.")
        if self._upload is None:
            self._upload = self._api.store.open_batch(tenant(), self._form, self._model, layout)
        tickets = self._api.store.append(self._upload, self._chunks, compress(chunk.data), chunk.rows)
        put_tickets(self._api, tickets)
        self._chunks += 1
        # The first chunks are small, so that workers begin at once; later ones are large, as they cost less.
        self._rows_wanted = min(self._rows_wanted * 2, self._api.settings.chunk_rows)
        self._sent_at = self._touched_at = time.monotonic()
