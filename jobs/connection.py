"""Clients of the store, one for each role, with explicit time-outs and retries (design, rule 6)."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Any

import redis
from redis._parsers import Encoder
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, HiredisRespSerializer, PythonRespSerializer
from redis.exceptions import ConnectionError, TimeoutError
from redis.retry import Retry

# The smallest plan of a hosted store has 20 connections: two web processes and two workers have to fit. Submissions
# share one, so a few are enough.
WEB_CONNECTIONS = 3
NEWS_CONNECTIONS = 1
READ_BYTES = 256 * 1024  # answers carry chunks; the library's 64 KiB make reading one take twice as long
UNCOPIED_FROM_BYTES = 6000  # the library's own limit
_ENCODER = Encoder("utf-8", "strict", decode_responses=False)  # type: ignore[no-untyped-call] # the library leaves it so
WORKER_CONNECTIONS = 1  # its one thread uses one at a time
TICKET_CONNECTIONS = 2  # RQ watches one key while it asks for another
# A request, and a worker that has to stop, ask nothing more after so long: what single calls may take adds up.
PATIENCE_SECONDS = 1.5
PROMPT_SECONDS = 0.5


class Patience(threading.local):
    """How long the present thread waits for a slow store; without end until it says `begin`."""

    _limited = False
    _waited = 0.0
    _ends_at = inf

    def begin(self) -> None:
        """From here on it waits for one answer that does not come, or for some in a row that are slow."""
        self._limited, self._waited = True, 0.0

    def end_in(self, seconds: float) -> None:
        """After so long nothing more is asked at all, however slow each answer is."""
        self._ends_at = monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether nothing more should be asked of the store."""
        return (self._limited and self._waited >= PATIENCE_SECONDS) or monotonic() >= self._ends_at

    def note(self, seconds: float, answered: bool) -> None:
        """A call took so long. A store that is prompt again has all the patience again."""
        if seconds >= PROMPT_SECONDS:
            self._waited += seconds if answered else PATIENCE_SECONDS
        elif answered:
            self._waited = 0.0


patience = Patience()


def web_client(url: str, tls_verify: bool = True) -> redis.Redis:
    """For a web process: gives up early, so that a request is answered within three seconds whatever the store does.

    One retry after a broken connection (an idle one that the store closed): everything the web process calls may
    be repeated without changing anything. A time-out is not retried; `patience` is for requests that ask several times.
    """
    return _client(
        url,
        tls_verify,
        connections=WEB_CONNECTIONS,
        free_seconds=0.7,
        answer_seconds=1.0,
        retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
    )


def worker_client(url: str, tls_verify: bool = True) -> redis.Redis:
    """For a worker's records and leases: patient, but never so long that a lease would lapse unnoticed.

    No retries: taking a lease twice would leave the first one lying, and what may be repeated, the worker repeats.
    """
    return _client(
        url,
        tls_verify,
        connections=WORKER_CONNECTIONS,
        free_seconds=1.0,
        answer_seconds=3.0,
        retry=Retry(NoBackoff(), 0),
    )


def ticket_client(url: str, tls_verify: bool = True) -> redis.Redis:
    """For RQ inside a worker: its blocking pop lasts two seconds."""
    pool = redis.ConnectionPool.from_url(
        url,
        socket_timeout=3.0,
        socket_connect_timeout=1.0,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=30,
        **_tls(url, tls_verify),
    )
    pool.connection_class = _impatient(pool.connection_class)
    return redis.Redis(connection_pool=pool)


def news_client(url: str, tls_verify: bool = True) -> redis.Redis:
    """For the one subscription of a web process; it notices itself when the connection is dead."""
    return _client(
        url, tls_verify, connections=NEWS_CONNECTIONS, free_seconds=1.0, answer_seconds=3.0, retry=Retry(NoBackoff(), 0)
    )


class Impatient(AbstractConnection):
    """What RQ's connections do beside: when the worker's patience is over they ask nothing, and raise TimeoutError.

    RQ says farewell in many calls, and some of them connect anew below the pool: a worker that has to stop would wait
    for each of them while the store is away. An answer that comes is not counted: RQ's pop waits on purpose.
    """

    def connect_check_health(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as the library has it
        """Connects, or counts the time it took in vain."""
        with _counted():
            super().connect_check_health(*arguments, **options)

    def send_packed_command(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        """Sends, or counts the time it took in vain."""
        with _counted():
            super().send_packed_command(*arguments, **options)  # type: ignore[no-untyped-call]

    def read_response(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        """Reads an answer, or counts the time it took in vain."""
        with _counted():
            return super().read_response(*arguments, **options)


@contextmanager
def _counted() -> Iterator[None]:
    if patience.is_over:
        raise TimeoutError("the store has been too slow to wait for it any longer")
    began = monotonic()
    try:
        yield
    except (ConnectionError, TimeoutError):
        patience.note(monotonic() - began, answered=False)
        raise


def _impatient(library_class: type[AbstractConnection]) -> type[AbstractConnection]:
    return type(library_class.__name__, (Impatient, library_class), {})


def _client(
    url: str, tls_verify: bool, *, connections: int, free_seconds: float, answer_seconds: float, retry: Retry
) -> redis.Redis:
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=free_seconds,  # the wait for a free connection
        socket_timeout=answer_seconds,
        socket_connect_timeout=1.0,
        socket_keepalive=True,
        socket_read_size=READ_BYTES,
        command_packer=_Packer(),
        retry=retry,
        **_tls(url, tls_verify),
    )
    return redis.Redis(connection_pool=pool)


class _Packer(HiredisRespSerializer):
    """Packs commands: what is small in C, and chunks in Python, since hiredis copies them several times."""

    def __init__(self) -> None:
        self._large = PythonRespSerializer(UNCOPIED_FROM_BYTES, _ENCODER.encode)

    def pack(self, *arguments: Any) -> Any:  # noqa: ANN401 - as the library has it
        """The command as the store reads it, in pieces."""
        if any(len(argument) > UNCOPIED_FROM_BYTES for argument in arguments if isinstance(argument, bytes)):
            return self._large.pack(*arguments)  # type: ignore[no-untyped-call] # the library leaves it so
        return super().pack(*arguments)


def _tls(url: str, tls_verify: bool) -> dict[str, object]:
    """Hosted stores often have self-signed certificates: Heroku's does."""
    if url.startswith("rediss://") and not tls_verify:
        return {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False}
    return {}
