"""Following a job over server-sent events, with plain http.client; the format is read as the HTML standard says."""

import http.client
import json
from dataclasses import dataclass

OF_THE_STREAM = "retry"  # the name of a block that is no event but has only `retry`
COMMENT = "comment"


@dataclass
class Event:
    """One block of a stream: an event, `retry` or a comment."""

    name: str
    id: str | None = None
    text: str = ""

    @property
    def json(self):
        return json.loads(self.text)


class Stream:
    """A connection that follows a job; use as a context manager, iterate over what comes."""

    def __init__(self, client, path, last_id=None, method="GET", timeout=30):
        self._connection = http.client.HTTPConnection(client.host, timeout=timeout)
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        self._connection.request(method, f"{path}/events", headers={"Accept": "text/event-stream", **headers})
        self._answer = self._connection.getresponse()
        self.status, self.headers = self._answer.status, self._answer.headers

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Closes the connection, as a client that has gone."""
        self._answer.close()
        self._connection.close()

    def read(self):
        """What comes up to the end, as bytes."""
        return self._answer.read()

    def __iter__(self):
        lines = []
        while line := self._answer.readline():
            if line != b"\n":
                lines.append(line.decode().rstrip("\n"))
            elif lines:
                yield _event(lines)
                lines = []

    def until(self, name, seen=()):
        """What comes up to the first event of this name, which is the last; behind what was seen before."""
        seen = list(seen)
        for event in self:
            seen.append(event)
            if event.name == name:
                return seen
        raise AssertionError(f"the stream ended without {name}: {seen}")


def _event(lines):
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    if "data" in fields:
        return Event(fields["event"][0], fields.get("id", [None])[0], "\n".join(fields["data"]))
    name = OF_THE_STREAM if OF_THE_STREAM in fields else COMMENT
    return Event(name, None, fields.get(name, [""])[0])
