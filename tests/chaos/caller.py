"""A client: submits, follows and downloads, writes down what it does before it does it, and what came of it."""

import functools
import gzip
import random
import time
from hashlib import sha256

from tests.chaos.http_log import ANSWER_SECONDS, ROOM_SECONDS, Unanswered
from tests.chaos.listener import Listener, counts
from tests.chaos.submissions import body, media_type

WAIT_SECONDS = 2
REFUSALS = {400, 404, 406, 409, 410}  # of a download, for good
ANSWERED_IN_PLACE = {200, 422}  # with the prediction, or with what the model made of the row
SHORTEST_PAUSE = 0.2
LONGEST_PAUSE = 2.0  # whatever a Retry-After says: a run has an end
GONE = 410
# After these the same may come through later, and nothing of the attempt is left.
TAKEN_BACK = {
    "storage_full",
    "idempotency_key_in_use",
    "upload_failed",
    "body_too_slow",
    "rate_limited",
    "too_many_jobs",
}


class Caller:
    """Does what a submission asks for. `canary` stands in every row, `key_canary` in every Idempotency-Key."""

    def __init__(self, http, journal, *, canary, key_canary, until):
        self._http = http
        self._journal = journal
        self._canary = canary
        self._key_canary = key_canary
        self._until = until  # after this moment nothing is tried again

    def carry_out(self, submission):
        """One submission from the first attempt to its last byte."""
        sent = body(submission, self._canary)
        self._note("submission", submission, sha256=sha256(sent).hexdigest(), rows=submission.rows)
        if submission.behaviour == "abandon":
            self._abandon(submission, sent)
            return
        job = self.submit(submission, sent)
        if job is None:
            return
        if submission.behaviour == "repeat" and submission.idempotent:
            self._repeat(submission, sent, job)
        if self.follow(submission, job) and submission.kind == "batch":
            self._download(submission, job)

    # Submitting

    def submit(self, submission, sent):
        """The job that was accepted; None when nothing was, or nobody knows."""
        attempt = 0
        while True:
            attempt += 1
            self._note("attempt", submission, attempt=attempt)
            answer = self._attempt(submission, sent)
            if answer is None and submission.idempotent:
                pause = SHORTEST_PAUSE
            elif answer is None:
                self._note("unknown", submission)
                return None
            elif answer.job_id:
                response = answer.json.get("response", answer.code) if answer.status in ANSWERED_IN_PLACE else None
                self._note("accepted", submission, job=answer.job_id, replayed=_replayed(answer), response=response)
                return answer.job_id
            elif not self._may_try_again(submission, answer):
                return None
            else:
                pause = answer.retry_after or SHORTEST_PAUSE
            if time.time() > self._until:
                self._note("given_up", submission)
                return None
            time.sleep(min(max(pause, SHORTEST_PAUSE), LONGEST_PAUSE) * random.uniform(1, 1.5))

    def _attempt(self, submission, sent):
        """The answer to one attempt; None when it says nothing about whether there is a job."""
        headers = {"Content-Type": media_type(submission), **self._key(submission)}
        if submission.form == "gzip":
            headers["Content-Encoding"] = "gzip"
        # A plain prediction on a connection that stays open takes the fast lane.
        keep = submission.kind == "predict" and not headers.keys() - {"Content-Type"}
        if submission.kind == "predict" and not keep:
            headers["Prefer"] = f"wait={WAIT_SECONDS}"
        allowed = {"batch": ROOM_SECONDS, "predict": WAIT_SECONDS, "single": 0}[submission.kind] + ANSWER_SECONDS
        chunked = submission.form == "chunked"
        try:
            answer = self._http.ask(
                "POST", submission.path(), sent, headers, chunked=chunked, keep=keep, allowed=allowed
            )
        except Unanswered:
            return None
        self._note("answer", submission, status=answer.status, code=answer.code, job=answer.job_id)
        return None if answer.status == 503 and not answer.job_id else answer

    def _may_try_again(self, submission, answer):
        """Whether the same may come through later; what is refused for good is written down."""
        if answer.code in TAKEN_BACK:
            self._note("taken_back", submission, code=answer.code)
            return True
        self._note("refused", submission, status=answer.status, code=answer.code)
        return False

    def _key(self, submission):
        return {"Idempotency-Key": f"{self._key_canary}-{submission.number}"} if submission.idempotent else {}

    def _repeat(self, submission, sent, job):
        """Sends again what was accepted: the same key has to give the same job."""
        answer = self._attempt(submission, sent)
        if answer is not None:
            self._note(
                "repeated", submission, job=answer.job_id, first=job, status=answer.status, replayed=_replayed(answer)
            )

    def _abandon(self, submission, sent):
        """Goes away in the middle of the body."""
        self._note("attempt", submission, attempt=1)
        headers = {"Content-Type": media_type(submission), "Content-Length": len(sent) + 1}
        if submission.form == "gzip":
            headers["Content-Encoding"] = "gzip"
        try:
            with self._http.begin("POST", submission.path(), headers) as connection:
                connection.sendall(sent[: int(len(sent) * submission.after)])
                time.sleep(submission.after)
        except OSError:
            pass  # the server went away first: nobody is the wiser
        self._note("abandoned", submission)

    # Following

    def follow(self, submission, job):
        """Looks at a job, or listens, until it has ended; False when it is gone."""
        if submission.behaviour == "listen":
            return Listener(self._http, functools.partial(self._note, submission=submission), job).follow(self._until)
        began, seen = time.time(), None
        while time.time() < self._until:
            seen = self._look(submission, job, seen)
            if seen and (seen.status == GONE or seen.json["ended_at"]):
                return seen.status != GONE
            if submission.behaviour in ("cancel", "delete") and time.time() > began + submission.after:
                self._end(submission, job)
            time.sleep(random.uniform(0.05, 0.4))
        self._note("unended", submission, job=job)
        return False

    def _look(self, submission, job, before):
        """The job as it is, as `before` if nothing has changed since; None when nothing can be said now."""
        wait = random.choice([0, 0, 1] if submission.kind == "batch" else [0, 1, WAIT_SECONDS])
        path, headers = f"/jobs/{job}", {"If-None-Match": before.headers["ETag"]} if before else {}
        if wait and random.random() < 0.5:
            headers["Prefer"] = f"wait={wait}"
        elif wait:
            path += f"?wait={wait}"
        try:
            answer = self._http.ask("GET", path, headers=headers, allowed=wait + ANSWER_SECONDS)
        except Unanswered:
            return None
        if before and answer.status == 304:
            return before
        if answer.status == 200:
            seen = answer.json
            self._note("seen", submission, job=job, status=seen["status"], **counts(seen["progress"]))
            return answer
        if answer.status == GONE:
            self._note("gone", submission, job=job, code=answer.code)
            return answer
        if answer.status != 503:
            self._note("refused", submission, status=answer.status, code=answer.code, job=job)
        return None

    def _end(self, submission, job):
        """Cancels or deletes; what the answer is, is known to nobody if it gets lost."""
        self._note("ending", submission, job=job, how=submission.behaviour)
        how = ("POST", f"/jobs/{job}/cancel") if submission.behaviour == "cancel" else ("DELETE", f"/jobs/{job}")
        try:
            answer = self._http.ask(*how)
        except Unanswered:
            return
        self._note("ended", submission, job=job, how=submission.behaviour, status=answer.status, code=answer.code)

    # Downloading

    def _download(self, submission, job):
        """The results as soon as they are there; a client that is cut off comes back for the rest."""
        if submission.behaviour == "cut" and submission.form in ("csv", "gzip", "chunked"):
            found = self._resumed(submission, job)
        else:
            found = self.results(submission, job)
        if found is not None:
            self._note("downloaded", submission, job=job, sha256=sha256(found).hexdigest(), bytes=len(found))

    def results(self, submission, job):
        """The results in the form that it was sent in; None when they could not be had."""
        headers = {"Accept": "application/x-ndjson" if submission.form in ("ndjson", "json") else "text/csv"}
        while time.time() < self._until:
            try:
                answer = self._http.ask("GET", f"/jobs/{job}/results", headers=headers)
            except Unanswered:
                answer = None
            if answer and answer.status == 200:
                return _plain(answer)
            if answer and answer.status != 503:
                self._note("refused", submission, status=answer.status, code=answer.code, job=job)
                return None
            time.sleep(SHORTEST_PAUSE)
        return None

    def _resumed(self, submission, job):
        """Reads a piece, goes away, and asks for the rest with Range until there is none."""
        found, tag, tries = b"", None, 0
        while time.time() < self._until:
            tries += 1
            headers = {"Accept": "text/csv"}
            if tag:
                headers |= {"Range": f"bytes={len(found)}-", "If-Range": tag}
            piece = self._http.piece(f"/jobs/{job}/results", headers, most=1000 * tries if tries < 4 else None)
            if piece.status == (206 if tag else 200):
                found, tag = found + piece.body, piece.tag
            elif tag and piece.status == 200:
                self._note("changed", submission, job=job)  # If-Range says that it is another result now
                return None
            elif piece.status in REFUSALS:
                self._note("refused", submission, status=piece.status, code="", job=job)
                return None
            if piece.is_whole or (tag and piece.status == 416):
                self._note("resumed", submission, job=job, tries=tries)
                return found
            time.sleep(SHORTEST_PAUSE)
        return None

    def _note(self, kind, submission, **facts):
        self._journal.note(kind, number=submission.number, **facts)


def _replayed(answer):
    return answer.headers.get("Idempotency-Replayed") == "true"


def _plain(answer):
    return gzip.decompress(answer.body) if answer.headers.get("Content-Encoding") == "gzip" else answer.body
