"""After the faults: everything comes to its end, and then all that there is to know is collected."""

import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from tests.chaos import watch
from tests.chaos.evidence import csv_outcomes, ndjson_outcomes
from tests.chaos.http_log import Unanswered
from tests.chaos.rows import Outcome
from tests.chaos.submissions import LINEAR, key_of

PAGE = 100
EXPIRED = 20  # jobs of each kind that are asked for when their results are over
TRIES = 20
SWEPT_SECONDS = 6.0  # within which everything has been swept twice


class NotAnswered(Exception):
    """Raised when what there is cannot be asked for any more."""


class SavedOutcomes(Mapping):
    """The outcomes of jobs whose results lie in a folder, read anew each time: together they would fill the memory."""

    def __init__(self, folder):
        self._folder = Path(folder)
        self._singles = {}

    def save(self, job, results, form):
        """Keeps the results of a batch, as "csv" or "ndjson"."""
        (self._folder / f"{job}.{form}").write_bytes(results)

    def keep(self, job, outcome):
        """Keeps the one outcome of a single prediction."""
        self._singles[job] = [outcome]

    def __getitem__(self, job):
        if job in self._singles:
            return self._singles[job]
        for form, read in (("csv", csv_outcomes), ("ndjson", ndjson_outcomes)):
            file = self._folder / f"{job}.{form}"
            if file.exists():
                return read(file.read_text())
        return []  # its results could not be had: its rows are lost

    def __iter__(self):
        yield from self._singles
        yield from (file.stem for file in self._folder.iterdir())

    def __len__(self):
        return sum(1 for _ in self)


class Collector:
    """Asks for every job and all results once nothing is wrong any more."""

    def __init__(self, http, journal, folder):
        self._http = http
        self._journal = journal
        self.outcomes = SavedOutcomes(folder)
        self.jobs = {}

    def collect(self, accepted, batches):
        """Fills `jobs` and `outcomes`. `accepted`: number → ids. `batches`: number → form of the batches."""
        self.jobs = {job["id"]: job for job in self._listed()}
        numbers = {job: number for number, jobs in accepted.items() for job in jobs}
        for job, number in numbers.items():
            if job not in self.jobs:
                self.jobs[job] = self._looked_for(job, number)
        for job, record in self.jobs.items():
            if record:
                self._collect_outcomes(job, record, batches.get(numbers.get(job)))

    def ask_for_expired(self):
        """Asks for some jobs whose results are over: it is still known that they were there."""
        for kind in ("single", "batch"):
            jobs = [job for job, record in self.jobs.items() if record and record["kind"] == kind]
            for job in jobs[:EXPIRED]:
                answer = self._ask(f"/jobs/{job}")
                self._journal.note("expired", job=job, what=kind, status=answer.status, code=answer.code)

    def _collect_outcomes(self, job, record, form):
        # The linear model's prediction does not tell which row it is of.
        if record["kind"] == "single" and record["result"] and record["model"]["name"] != LINEAR:
            prediction = record["result"]["prediction"]
            self.outcomes.keep(job, Outcome(key_of(prediction), prediction))
            return
        # What nobody knows is asked for in the form that tells the input.
        form = "csv" if form in ("csv", "gzip", "chunked") else "ndjson"
        accept = "text/csv" if form == "csv" else "application/x-ndjson"
        answer = self._ask(f"/jobs/{job}/results", {"Accept": accept})
        if answer.status == 200:
            self.outcomes.save(job, answer.body, form)
            self._journal.note("final", job=job, sha256=sha256(answer.body).hexdigest())
        else:
            self.outcomes.save(job, b"prediction,error\n", "csv")
            self._journal.note("broken", what=f"the results of {job} answer {answer.status} {answer.code}")

    def _listed(self):
        cursor = ""
        while cursor is not None:
            query = f"&cursor={cursor}" if cursor else ""
            page = self._ask(f"/jobs?limit={PAGE}{query}").json
            yield from page["jobs"]
            cursor = page["next_cursor"]

    def _looked_for(self, job, number):
        """A job that is not listed: its JSON all the same, or None when it is gone."""
        answer = self._ask(f"/jobs/{job}")
        if answer.status == 200:
            self._journal.note("unlisted", number=number, job=job)
            return answer.json
        self._journal.note("gone", number=number, job=job, code=answer.code)
        return None

    def _ask(self, path, headers=None):
        for _ in range(TRIES):
            try:
                answer = self._http.ask("GET", path, headers=headers)
            except Unanswered:
                answer = None
            if answer is not None and answer.status != 503:
                return answer
            time.sleep(0.5)
        raise NotAnswered(f"{path} is not answered though all faults are over")


def examine_store(cluster, journal, collector, ages, patience):
    """Has the time of all results pass, then that of everything, and notes what is left in the store.

    RQ clears up after dead workers about once a minute; `patience` is for how many seconds that is waited for.
    """
    until = time.monotonic() + patience
    with cluster.client() as client:
        while (strays := watch.strays(client, settled=patience > 0)) and time.monotonic() < until:
            time.sleep(1)
        results_seconds, memories_seconds = ages
        watch.age(client, results_seconds + 60)
        keys = _leftovers(client, watch.WITHOUT_RESULTS)
        collector.ask_for_expired()
        watch.age(client, memories_seconds + 60)
        keys += _leftovers(client, watch.WITHOUT_MEMORIES)
        journal.note("left", keys=keys, strays=strays)


def _leftovers(client, remaining):
    """What is left besides these: some of it goes with the next sweep."""
    until = time.monotonic() + SWEPT_SECONDS
    while (keys := watch.leftovers(client, remaining)) and time.monotonic() < until:
        time.sleep(0.2)
    return keys


def search_logs(cluster, journal, canaries):
    """Notes every log file in which something stands that was planted."""
    for file in sorted(cluster.logs.iterdir()):
        text = file.read_bytes()
        for name, canary in canaries.items():
            if canary.encode() in text:
                journal.note("leak", where=f"{file.name}: {name}")
