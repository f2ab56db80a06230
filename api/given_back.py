"""What the fast lane knows of requests that it has given back, until the app takes them up."""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from jobs.record import Job

if TYPE_CHECKING:
    from socket import socket

    from _typeshed.wsgi import WSGIEnvironment


@dataclass(frozen=True, slots=True)
class Returned:
    """A request that has been in the lane for `waited_seconds`, and has a seat there.

    `came_of` is its job, the error that it met, or None where it has not been accepted. Nearly all requests are `NEW`.
    """

    came_of: Job | Exception | None = None
    waited_seconds: float = 0.0
    has_seat: bool = False


NEW = Returned()


class GivenBack:
    """The requests that were given back, by their connections."""

    def __init__(self) -> None:
        self._returned: WeakKeyDictionary[socket, Returned] = WeakKeyDictionary()

    def put(self, connection: "socket", returned: Returned) -> None:
        """The next request that the app gets on this connection is this one."""
        self._returned[connection] = returned

    def take(self, environ: "WSGIEnvironment") -> Returned:
        """What is known of the present request: of nearly all nothing."""
        connection = environ.get("gunicorn.socket")
        return self._returned.pop(connection, NEW) if connection is not None and self._returned else NEW
