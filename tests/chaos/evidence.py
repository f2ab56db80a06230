"""Everything that is known after a run: what the client wrote down, what the jobs say, what the results hold."""

import csv
import io
import json
from collections import defaultdict
from functools import cached_property

from tests.chaos.rows import Outcome, take_account
from tests.chaos.submissions import key_of


class Evidence:
    """What the checker judges.

    `submissions`: by number. `events`: the journals, in order. `jobs`: id → the job's JSON at the end, or None when it
    is gone. `outcomes`: id → a list of Outcome, for every job that is there. `expected`: a function that gives the
    right outcomes of a submission, in order, by a version of its model. `limits`: a Limits of tests.chaos.checker.
    """

    def __init__(self, *, submissions, events, jobs, outcomes, expected, limits):
        self.submissions = submissions
        self.events = events
        self.jobs = jobs
        self.outcomes = outcomes
        self.expected = expected
        self.limits = limits

    def of(self, *kinds):
        """The events of some kinds, in order."""
        return [event for event in self.events if event["kind"] in kinds]

    @cached_property
    def account(self):
        """What became of every row."""
        return take_account(self)

    @cached_property
    def accepted(self):
        """Number → the ids of the jobs that the client was told of."""
        found = defaultdict(set)
        for event in self.of("accepted"):
            found[event["number"]].add(event["job"])
        return found

    @cached_property
    def _uncertain(self):
        return {event["number"] for event in self.of("unknown", "given_up")}

    def may_have_job(self, number):
        """Whether it is right that there is a job of this submission."""
        return number in self.accepted or number in self._uncertain

    @cached_property
    def _numbers(self):
        """Id of each job that is there → the number of its submission, by what the client knows, else by its rows."""
        known = {job: number for number, jobs in self.accepted.items() for job in jobs}
        return {job: known.get(job, self._number_by_rows(job)) for job, record in self.jobs.items() if record}

    def _number_by_rows(self, job):
        keys = [outcome.key for outcome in self.outcomes[job] if outcome.key]
        number = int(keys[0].partition("-")[0]) if keys else None
        return number if number in self.submissions else None

    @cached_property
    def _jobs_by_number(self):
        found = defaultdict(list)
        for job, number in self._numbers.items():
            found[number].append(job)
        return found

    def jobs_of(self, number):
        """The jobs that are there of a submission: one at most, if all is well."""
        return self._jobs_by_number.get(number, [])

    @property
    def strange_jobs(self):
        """Jobs of which nobody knows who submitted them."""
        return self.jobs_of(None)

    def status(self, job):
        """A job's last status."""
        return self.jobs[job]["status"]

    @cached_property
    def _hit(self):
        """Ids of jobs on which a worker was that lost a process to a fault, or ended."""
        losers = {event["pid"] for event in self.of("child_death", "death", "exit")}
        return {event["job"] for event in self.of("leased") if event["pid"] in losers}

    def was_hit(self, job):
        """Whether a fault may have killed what was working on a job."""
        return job in self._hit

    def version(self, job):
        """The version of its model that a job was accepted with."""
        return self.jobs[job]["model"]["version"]

    @cached_property
    def _deleted(self):
        return {event["number"] for event in self.of("ending") if event["how"] == "delete"}

    def was_deleted(self, number):
        """Whether its owner deleted it: asked for it, and it is gone for that reason."""
        reasons = {event["code"] for event in self.of("gone") if event["number"] == number}
        return number in self._deleted and not self.jobs_of(number) and reasons == {"job_deleted"}


def csv_outcomes(text):
    """The outcomes of CSV results."""
    rows = csv.DictReader(io.StringIO(text))
    return [_outcome(row.get("id"), row["prediction"], row["error"].partition(":")[0]) for row in rows]


def ndjson_outcomes(text):
    """The outcomes of NDJSON results."""
    rows = (json.loads(line) for line in text.splitlines())
    return [
        _outcome(row.get("input", {}).get("id"), row["prediction"], (row["error"] or {}).get("code", ""))
        for row in rows
    ]


def _outcome(key, prediction, code):
    if code or prediction in ("", None):
        return Outcome(key, code or "nothing")
    return Outcome(key or key_of(float(prediction)), float(prediction))
