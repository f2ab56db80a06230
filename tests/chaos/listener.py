"""A client that follows a job by its events, over as many connections as it takes, and writes down what it is told."""

import http.client
import random
import time

from tests.chaos.http_log import Unanswered

PAUSE_SECONDS = 0.3  # before it connects again; browsers wait as long as the stream says
GONE = 410


class Listener:
    """Follows one job. `note` takes the kind of an event and its facts."""

    def __init__(self, http, note, job):
        self._http = http
        self._note = note
        self._job = job
        self._status = None
        self._last_id = None
        self._connections = 0
        self._is_gone = False
        self._is_told = False

    def follow(self, until):
        """True once it was told of the end; False when the job is gone, or nothing was told before `until`."""
        while time.time() < until:
            self._connect()
            if self._is_told:
                self._ask_again()
                return True
            if self._is_gone:
                return False
            time.sleep(PAUSE_SECONDS * random.uniform(1, 2))
        self._note("unended", job=self._job)
        return False

    def _connect(self):
        self._connections += 1
        try:
            with self._http.events(f"/jobs/{self._job}", self._last_id) as heard:
                if heard.status == http.client.OK:
                    self._listen(heard)
                elif heard.status == GONE:
                    self._note_gone(heard.answer.code)
                elif heard.status != http.client.SERVICE_UNAVAILABLE:
                    self._note("refused", status=heard.status, code=heard.answer.code, job=self._job)
        except Unanswered:
            return  # it comes back, with the last id that it knows

    def _listen(self, heard):
        for event in heard:
            self._last_id = event.id or self._last_id
            if event.name == "status":
                self._status = event.json["status"]
            elif event.name == "progress":
                self._note("seen", job=self._job, status=self._status, **counts(event.json))
            elif event.name == "gone":
                self._note_gone(event.json["code"])
                return
            elif event.name == "end":
                told = event.json
                facts = {"status": told["status"], "ended_at": told["ended_at"], **counts(told["progress"])}
                self._note("told", job=self._job, connections=self._connections, **facts)
                self._is_told = True
                return

    def _note_gone(self, code):
        self._note("gone", job=self._job, code=code)
        self._is_gone = True

    def _ask_again(self):
        """Who knows of the end is told nothing more."""
        began = time.time()
        try:
            with self._http.events(f"/jobs/{self._job}", self._last_id) as heard:
                self._note("told_again", job=self._job, began=began, status=heard.status)
        except Unanswered:
            return


def counts(progress):
    """What of a job's progress is written down."""
    return {name: progress[name] for name in ("rows_total", "rows_done", "rows_ok", "rows_failed")}
