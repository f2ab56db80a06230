"""The store comes back empty: what it held is lost, everybody is told so, and everything else goes on."""

import time
from dataclasses import replace

from tests.chaos import journal as journals
from tests.chaos import report
from tests.chaos.caller import Caller
from tests.chaos.cluster import Cluster
from tests.chaos.http_log import Http, Unanswered
from tests.chaos.run import models_in
from tests.chaos.submissions import Submission, body
from tests.waiting import wait_until

CANARY = "row"
AWAY_SECONDS = 3.0
FORGET_SECONDS = 30.0  # within which every old id has to be known as lost
OLD = (
    Submission(1, "batch", "identity", 5_000, "csv"),
    Submission(2, "batch", "slow", 20_000, "csv"),
    Submission(3, "single", "identity"),
    Submission(4, "batch", "identity", 20, "json"),
)


class Run:
    """One run in a folder of its own; the seed and the form make no difference to it."""

    def __init__(self, folder, seed, form, say):
        self._folder = folder
        self._seed = seed
        self._workers = form.workers
        self._say = say
        self._journal = journals.Journal(folder / "harness.jsonl")

    def carry_out(self):
        """The report."""
        began = time.monotonic()
        models_path = models_in(self._folder)
        cluster = Cluster(self._folder, models_path, self._journal, workers=self._workers, seed=self._seed)
        with cluster:
            http = Http(cluster.port, self._journal, [cluster.password])
            until = time.time() + 300
            caller = Caller(http, self._journal, canary=CANARY, key_canary="key", until=until)
            violations = list(self._violations(cluster, http, caller))
        checks = {"empty_store": {"holds": not violations, "violations": len(violations), "examples": violations}}
        seconds = round(time.monotonic() - began, 1)
        return {
            "holds": not violations,
            "seed": self._seed,
            "seconds": seconds,
            "checks": checks,
            "versions": report.versions(),
        }

    def _violations(self, cluster, http, caller):
        old = [caller.submit(submission, body(submission, CANARY)) for submission in OLD]
        wait_until(lambda: http.ask("GET", f"/jobs/{old[0]}").json["ended_at"], 30, "nothing has ended")
        workers = [worker.pid for worker in cluster.workers]
        self._say("the store loses everything")
        cluster.kill_store()
        cluster.empty_store()
        time.sleep(AWAY_SECONDS)
        cluster.start_store()
        yield from self._lost(http, old)
        for submission in OLD:
            again = replace(submission, number=submission.number + 100)
            job = caller.submit(again, body(again, CANARY))
            if job is None or not caller.follow(again, job):
                yield f"{again} does not come to its end in the empty store"
        listed = {job["id"] for job in http.ask("GET", "/jobs").json["jobs"]}
        if listed & set(old) or len(listed) != len(OLD):
            yield f"GET /jobs lists {listed}"
        yield from (f"worker {pid} has gone" for pid in set(workers) - {worker.pid for worker in cluster.workers})

    def _lost(self, http, old):
        """What is not answered with 410 `job_lost` in time."""
        until = time.monotonic() + FORGET_SECONDS
        for job in old:
            code = self._code(http, job)
            while code != "410 job_lost" and time.monotonic() < until:
                time.sleep(0.2)
                code = self._code(http, job)
            if code != "410 job_lost":
                yield f"{job} answers {code}"

    def _code(self, http, job):
        try:
            answer = http.ask("GET", f"/jobs/{job}")
        except Unanswered:
            return "nothing"
        return f"{answer.status} {answer.code}"
