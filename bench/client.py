"""A client that costs little: sends a file, waits for the job, writes the results to a file.

`python -m bench.client URL TABLE OUTPUT --model NAME --keep all` prints as JSON how long that took. It imports nothing
but the standard library, and the kernel moves the file.
"""

import argparse
import http.client
import json
import time
import urllib.parse
from pathlib import Path
from typing import IO, Any

PIECE_BYTES = 256 * 1024
PACES_PER_SECOND = 100


class Refused(Exception):
    """Raised when the server answers with another status than the one that was hoped for."""


class Client:
    """One kept-alive connection."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=300)
        self._buffer = memoryview(bytearray(PIECE_BYTES))

    def connect(self) -> None:
        """Connects now rather than with the first request."""
        self._connection.connect()

    def submit(self, table: Path, query: str, bytes_per_second: float | None = None) -> dict[str, Any]:
        """Sends a CSV, at a pace if one is given; the job that was accepted."""
        self._connection.putrequest("POST", f"/jobs?{query}")
        self._connection.putheader("Content-Type", "text/csv")
        self._connection.putheader("Content-Length", str(table.stat().st_size))
        self._connection.endheaders()
        with table.open("rb") as file:
            if bytes_per_second is None:
                self._connection.sock.sendfile(file)
            else:
                self._send_slowly(file, bytes_per_second)
        return self._json(http.client.ACCEPTED)

    def get(self, path: str) -> dict[str, Any]:
        self._connection.request("GET", path)
        return self._json(http.client.OK)

    def post(self, path: str, body: object) -> dict[str, Any]:
        self._connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        return self._json(http.client.OK)

    def delete(self, path: str) -> None:
        self._connection.request("DELETE", path)
        self._connection.getresponse().read()

    def ended(self, path: str) -> dict[str, Any]:
        """The job once it has ended; raises Refused unless it succeeded."""
        job = self.get(f"{path}?wait=25")
        while job["ended_at"] is None:
            job = self.get(f"{path}?wait=25")
        if job["status"] != "succeeded":
            raise Refused(str(job))
        return job

    def download(self, path: str, output: Path, bytes_per_second: float | None = None) -> None:
        """Writes what is at `path` to a file, at a pace if one is given."""
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        if answer.status != http.client.OK:
            raise Refused(f"{path}: {answer.status} {answer.read()!r}")
        started, done = time.monotonic(), 0
        with output.open("wb", buffering=0) as file:
            while count := answer.readinto(self._buffer):
                file.write(self._buffer[:count])
                done += count
                if bytes_per_second is not None:
                    time.sleep(max(started + done / bytes_per_second - time.monotonic(), 0))

    def close(self) -> None:
        self._connection.close()

    def _send_slowly(self, file: IO[bytes], bytes_per_second: float) -> None:
        started, done = time.monotonic(), 0
        while piece := file.read(round(bytes_per_second / PACES_PER_SECOND)):
            self._connection.sock.sendall(piece)
            done += len(piece)
            time.sleep(max(started + done / bytes_per_second - time.monotonic(), 0))

    def _json(self, wanted: int) -> dict[str, Any]:
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != wanted:
            raise Refused(f"{answer.status} {body!r}")
        found: dict[str, Any] = json.loads(body)
        return found


def main() -> None:
    """One batch from the first byte sent to the last result byte on disk; the job is deleted afterwards."""
    asked = _arguments()
    client = Client(asked.url)
    client.connect()
    started = time.perf_counter()
    job = client.submit(asked.table, f"model={asked.model}&keep={asked.keep}")
    sent = time.perf_counter()
    job = client.ended(job["links"]["self"])
    done = time.perf_counter()
    client.download(job["links"]["results"], asked.output, asked.download_bytes_per_second)
    ended = time.perf_counter()
    client.delete(job["links"]["self"])
    phases = {"upload": sent - started, "work": done - sent, "download": ended - done}
    print(json.dumps({"wall": ended - started, "rows": job["progress"]["rows_ok"], **phases}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.client", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("table", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--keep", default="all")
    parser.add_argument("--download-bytes-per-second", type=float)
    return parser.parse_args()


if __name__ == "__main__":
    main()
