"""A small HTTP client for tests: plain http.client, so that nothing is hidden."""

import contextlib
import http.client
import json
import socket
import urllib.parse
from dataclasses import dataclass

from tests.waiting import wait_until


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        assert self.headers["Content-Type"] == "application/problem+json", (self.status, self.body[:300])
        return self.json["code"]


class Client:
    def __init__(self, url):
        self.host = urllib.parse.urlsplit(url).netloc

    def ask(self, method, path, body=None, headers=None, timeout=60):
        connection = http.client.HTTPConnection(self.host, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def raw(self, request, more=False):
        """Sends these very bytes and reads the answer; with `more` as if the request had not ended yet."""
        with self.connected() as connection:
            connection.sendall(request)
            if not more:
                connection.shutdown(socket.SHUT_WR)
            return answer(connection)

    @contextlib.contextmanager
    def connected(self):
        """A connection to send bytes on; see `answer`."""
        host, _, port = self.host.partition(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            yield connection

    def get(self, path, **headers):
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def send(self, body, query="", type="text/csv", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", f"/jobs{query}", body, {"Content-Type": type, **headers})

    def submit(self, body, query="", type="text/csv", **headers):
        """Sends a body that has to be accepted; returns the job's path."""
        answer = self.send(body, query, type, **headers)
        assert answer.status == 202, answer.body
        return answer.headers["Location"]

    def done(self, body, query="", type="text/csv", **headers):
        """Sends a body that has to be accepted; returns the job's path once it has ended."""
        path = self.submit(body, query, type, **headers)
        self.finished(path)
        return path

    def predict(self, value, query="", **headers):
        return self.send_json({"input": value}, f"/predict{query}", **headers)

    def send_json(self, document, path="/jobs", **headers):
        """Posts a document; bytes go as they are."""
        body = document if isinstance(document, bytes) else json.dumps(document)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", path, body, {"Content-Type": "application/json", **headers})

    def job(self, path):
        answer = self.get(path)
        assert answer.status == 200, answer.body
        return answer.json

    def listed(self, query=""):
        """The paths of the jobs that are listed, newest first."""
        return [job["links"]["self"] for job in self.get(f"/jobs{query}").json["jobs"]]

    def finished(self, path, seconds=60):
        """The job once it has ended."""
        wait_until(lambda: self.job(path)["ended_at"], seconds, f"{path} has not ended")
        return self.job(path)

    def results(self, path, query="", accept="text/csv"):
        answer = self.get(f"{path}/results{query}", Accept=accept)
        assert answer.status == 200, answer.body
        return answer.body

    def rows(self, path, query=""):
        """The results as NDJSON, read."""
        return [json.loads(line) for line in self.results(path, query, "application/x-ndjson").splitlines()]


def answer(connection):
    """The answer that comes on a connection."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return Answer(response.status, response.headers, response.read())
