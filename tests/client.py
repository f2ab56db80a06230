"""A small HTTP client for tests: plain http.client, so that nothing is hidden."""

import http.client
import json
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

    def job(self, path):
        answer = self.get(path)
        assert answer.status == 200, answer.body
        return answer.json

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
