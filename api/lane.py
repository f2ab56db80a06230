"""The fast lane: single predictions on connections that stay open, which need neither Flask nor a thread each.

A plain `POST /predict` is accepted here together with all others that have come meanwhile, and answered as soon as the
news says that it has succeeded. Whatever else there is to a request, or comes of it, goes the ordinary way: the lane
gives the request back, with its job if it has been accepted, and the app answers it as it answers everybody. So one
place knows how errors, preferences, keys and long waits are answered.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any

from api.answers import told
from api.context import ANONYMOUS, Api, put_tickets, request_id
from api.given_back import Returned
from api.single import checked_input, version_of
from jobs.codec.json_text import InvalidJson, Number, dumps, loads
from jobs.combined import MOST_AT_ONCE
from jobs.connection import patience
from jobs.errors import StoreAway, StoreFull
from jobs.inbox_intake import NewSingle
from jobs.news import LOOK_SECONDS, Change
from jobs.pieces import joined
from jobs.record import Job
from jobs.status import Status

MOST_BODY_BYTES = 16 * 1024  # a row is shorter; reading much JSON would hold up all the others
_FIELDS = {"input", "model"}


@dataclass(frozen=True, slots=True)
class Plain:
    """A plain request: its body, and where they came with it `?model=` and X-Request-Id, else empty."""

    body: bytes
    model: str
    sent_id: str


class LaneRequest:
    """One request in the lane, and what has come of it."""

    __slots__ = ("_lane", "arrived_at", "came_of", "is_for_app", "origin", "plain", "single")

    def __init__(self, lane: "Lane", plain: Plain, origin: Any) -> None:  # noqa: ANN401 - the server's own
        self._lane = lane
        self.plain = plain
        self.origin = origin
        self.arrived_at = monotonic()
        self.single: NewSingle | None = None
        self.came_of: Job | Exception | None = None
        self.is_for_app = False  # as soon as it is accepted

    def returned(self) -> Returned:
        """What the app has to know of it."""
        return Returned(self.came_of, monotonic() - self.arrived_at, has_seat=True)

    def tell(self, change: Change) -> None:
        """Called by the news: its job has changed."""
        self._lane.hear(self, change)


class Lane:
    """The lane of one web process. Its thread begins with the first request."""

    def __init__(
        self,
        api: Api,
        answer: Callable[[LaneRequest, Mapping[str, str], bytes], None],
        give_back: Callable[[LaneRequest], None],
    ) -> None:
        """For each request that is taken one of the two is called once, by any thread.

        `answer` with the headers and the body of a 200, `give_back` when the app has to see to it; it has a seat then.
        """
        self._api = api
        self._answer = answer
        self._give_back = give_back
        self._longest = min(LOOK_SECONDS, api.settings.predict_wait_seconds)
        self._inside: dict[LaneRequest, None] = {}
        self._arrived: SimpleQueue[Sequence[LaneRequest]] = SimpleQueue()
        self._thread: Thread | None = None
        self.most_body_bytes = min(MOST_BODY_BYTES, api.settings.max_json_body_bytes)

    @property
    def is_open(self) -> bool:
        """Whether anybody may wait, and the news can be relied on."""
        news = self._api.news
        return news.is_live and not news.is_closing and self._longest > 0

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits here."""
        return not self._inside

    def enter(self, plain: Plain, origin: Any) -> LaneRequest | None:  # noqa: ANN401 - the server's own
        """A request, to be handed to `take` with others; None when there is no seat.

        `origin` is for the server to know it by.
        """
        if not self._api.seats.take():
            return None
        request = LaneRequest(self, plain, origin)
        self._inside[request] = None
        return request

    def take(self, requests: Sequence[LaneRequest]) -> None:
        """Sees to requests that have come at the same moment."""
        if self._has_thread():
            self._arrived.put(requests)
        else:
            self._give_all_back(requests)

    def give_late_back(self) -> None:
        """Called several times a second: in the lane nobody waits longer than a lost message may cost."""
        late = monotonic() - self._longest
        self._give_all_back([each for each in list(self._inside) if each.came_of and each.arrived_at < late])

    def hear(self, request: LaneRequest, change: Change) -> None:
        """The job of a request has changed; maybe before the store has said that it is accepted."""
        single, fields = request.single, change.fields
        if single and fields and fields["status"] == Status.SUCCEEDED:
            with suppress(InvalidJson):  # a result that cannot be read is for the app
                self._succeed(request, single, fields)
                return
        request.is_for_app = True
        if request.came_of:
            self._give_all_back([request])

    def _succeed(self, request: LaneRequest, single: NewSingle, changed: Mapping[str, str]) -> None:
        body = dumps(told(joined(changed, "result") or "{}")).encode() + b"\n"
        if self._leave(request):
            self._api.seats.leave()
            headers = {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                "Cache-Control": "no-store",
                "X-Job-Id": single.job_id,
                "X-Model": single.model.label,
                "X-Request-Id": request_id(request.plain.sent_id),
            }
            self._answer(request, headers, body)

    def _has_thread(self) -> bool:
        if self._thread is None or not self._thread.is_alive():
            thread = Thread(target=self._work, name="lane", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system allows no more threads at this moment
                return False
            self._thread = thread
        return True

    def _work(self) -> None:
        while True:
            requests = list(self._arrived.get())
            while not self._arrived.empty():
                requests += self._arrived.get()
            self._see_to(requests)

    def _see_to(self, requests: Sequence[LaneRequest]) -> None:
        patience.begin()
        try:
            for start in range(0, len(requests), MOST_AT_ONCE):
                self._accept(requests[start : start + MOST_AT_ONCE])
        except Exception as error:  # whatever it is, each of them is answered, and the app says what it is
            # Also those of the next slices: a store that is away is not waited for with each of them.
            for request in [request for request in requests if request in self._inside]:
                request.came_of = request.came_of or _error_of_its_own(error)
            self._give_all_back(requests)

    def _accept(self, requests: Sequence[LaneRequest]) -> None:
        readable = [request for request in requests if self._read(request)]
        singles = [request.single for request in readable if request.single]
        if not singles:
            return
        answers = self._api.store.intake.accept_singles(singles)
        for request, single, answer in zip(readable, singles, answers, strict=True):
            self._accepted(request, single, answer)

    def _read(self, request: LaneRequest) -> bool:
        """Makes the request's input a new single prediction; gives it back when that cannot be done."""
        try:
            request.single = self._new_single(request.plain)
        except Exception:  # the app meets it again, and answers it
            self._give_all_back([request])
            return False
        self._api.news.join(request.single.job_id, request)
        return True

    def _new_single(self, plain: Plain) -> NewSingle:
        document = loads(plain.body)
        if not isinstance(document, dict) or not document.keys() <= _FIELDS:
            raise ValueError("this is for the app")
        named = document.get("model")
        if named is not None and (not isinstance(named, str) or isinstance(named, Number)):
            raise ValueError("this is for the app")
        manifest = self._api.catalog.find(plain.model or named or None)
        return self._api.store.intake.new_single(ANONYMOUS, version_of(manifest), checked_input(document, manifest))

    def _accepted(self, request: LaneRequest, single: NewSingle, answer: bytes | BaseException) -> None:
        try:
            accepted = self._api.store.intake.accepted(single, answer)
        except StoreFull:
            accepted = None
        except Exception as error:  # of this one alone
            request.came_of = error
            self._give_all_back([request])
            return
        if accepted is None:  # it is not: the app tries again
            self._give_all_back([request])
            return
        request.came_of, tickets = accepted
        if tickets:
            put_tickets(self._api, tickets)
        if request.is_for_app or self._api.news.is_closing:
            self._give_all_back([request])

    def _give_all_back(self, requests: Sequence[LaneRequest]) -> None:
        for request in requests:
            if self._leave(request):
                self._give_back(request)

    def _leave(self, request: LaneRequest) -> bool:
        """True for one of those who ask, whatever other threads do: who sees to the request from here on."""
        if self._inside.pop(request, self) is self:
            return False
        if request.single:
            self._api.news.leave(request.single.job_id, request)
        return True


def _error_of_its_own(error: Exception) -> Exception:
    """What one request raises: many threads that raise the same error would all add to its traceback."""
    own = (
        StoreAway(str(error)) if isinstance(error, StoreAway) else RuntimeError(f"the lane met {type(error).__name__}")
    )
    own.__cause__ = error
    return own
