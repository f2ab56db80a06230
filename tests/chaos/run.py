"""One run: a cluster, a load and a schedule of faults; then the drain, the checker and the report."""

import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from jobs.scripts import LIFE_SECONDS
from settings import Settings
from tests.chaos import journal as journals
from tests.chaos import watch
from tests.chaos.caller import Caller
from tests.chaos.checker import Limits
from tests.chaos.cluster import Cluster
from tests.chaos.drain import Collector, NotAnswered, examine_store, search_logs
from tests.chaos.evidence import Evidence
from tests.chaos.faults import Runner
from tests.chaos.http_log import Http
from tests.chaos.load import Load
from tests.chaos.report import report
from tests.chaos.schedule import LONG, SHORT, schedule
from tests.chaos.submissions import POISON, Draw, Local
from tests.zoo.estimators import build

ROOT = Path(__file__).resolve().parents[2]
# What the settings say without being told; all of it is over then.
RESULTS_SECONDS = Settings.results_ttl_seconds
MEMORIES_SECONDS = max(Settings.tombstone_ttl_seconds, LIFE_SECONDS)


@dataclass(frozen=True)
class Form:
    """How long and how hard a run is."""

    mix: dict
    seconds: float
    pause: float  # between two faults, on average
    longest: float  # seconds of one fault
    drain: float  # seconds after which everything has to be at its end
    rows: float = 1.0
    batches: int = 8
    singles: int = 8
    workers: int = 2
    models: tuple = tuple(POISON)
    patience: float = 160.0  # for RQ's own clearing up: 77 s after a worker's death it may, and does once a minute


def short(seconds=25):
    """For the test suite."""
    return Form(
        SHORT, seconds, pause=1.5, longest=3, drain=30, rows=0.2, batches=5, singles=6, patience=0,
        models=("raises", "exits", "segfaults", "nan"),
    )  # fmt: skip


def long(minutes):
    """By hand."""
    return Form(LONG, minutes * 60, pause=4, longest=60, drain=150, workers=3)


def models_in(folder):
    """A models folder with what is shipped and the zoo."""
    path = folder / "models"
    shutil.copytree(ROOT / "models" / "artifacts", path)
    build(path)
    return path


class Run:
    """One run in a folder of its own."""

    def __init__(self, folder, seed, form, say):
        self._folder = folder
        self._seed = seed
        self._form = form
        self._say = say
        self._results = folder / "results"
        self._results.mkdir()
        self._journal = journals.Journal(folder / "harness.jsonl")
        self._canaries = {name: f"canary-{name}-{secrets.token_hex(8)}" for name in ("row", "key")}

    def carry_out(self):
        """The report."""
        began = time.monotonic()
        models_path = models_in(self._folder)
        cluster = Cluster(
            self._folder, models_path, self._journal, workers=self._form.workers, seed=self._seed, skewed=True
        )
        with cluster:
            self._canaries["password"] = cluster.password
            self._say(f"the cluster is up: {cluster.url}, everything is in {self._folder}")
            submissions, collector = self._strain(cluster)
        events = [*journals.read(self._folder), *journals.read(cluster.traces)]
        events.sort(key=lambda event: event["at"])
        expected = Local(models_path).outcomes
        evidence = Evidence(
            submissions=submissions,
            events=events,
            jobs=collector.jobs,
            outcomes=collector.outcomes,
            expected=expected,
            limits=Limits(connections=12 + 4 * self._form.workers),
        )
        return report(evidence, seed=self._seed, seconds=round(time.monotonic() - began, 1))

    def _strain(self, cluster):
        """Load and faults, then the drain; returns what was submitted and what was collected."""
        http = Http(cluster.port, self._journal, list(self._canaries.values()))
        watching = watch.Watch(cluster, self._journal, list(self._canaries.values()))
        load = self._load(http)
        load.warm_up()
        self._journal.note("resources", **{"when": "before", **watch.resources(cluster)})
        watching.start()
        load.start()
        planned = schedule(self._seed, self._form.seconds, self._form.mix, self._form.pause)
        self._say(f"{len(planned)} faults in {self._form.seconds:.0f} s: {', '.join(each.name for each in planned)}")
        Runner(cluster, self._journal, self._form.longest).run(planned)
        load.stop()
        self._say(f"the faults are over; {len(load.submissions)} submissions come to their end")
        if not load.join(self._form.drain) or not watch.quiet(cluster, 10):
            self._journal.note("broken", what="not everything came to its end in time")
        for failure in load.failures:
            self._journal.note("broken", what=failure)
        watching.stop()
        http.close()
        return load.submissions, self._collect(cluster, http, load.submissions)

    def _load(self, http):
        until = time.time() + self._form.seconds + self._form.longest + self._form.drain
        caller = Caller(
            http, self._journal, canary=self._canaries["row"], key_canary=self._canaries["key"], until=until
        )
        draw = Draw(self._seed, self._form.models, rows=self._form.rows)
        return Load(caller, draw, batches=self._form.batches, singles=self._form.singles, pause=0.1)

    def _collect(self, cluster, http, submissions):
        accepted = {}
        for event in journals.read(self._folder):
            if event["kind"] == "accepted":
                accepted.setdefault(event["number"], set()).add(event["job"])
        forms = {number: each.form for number, each in submissions.items() if each.kind == "batch"}
        self._say("collecting what there is")
        collector = Collector(http, self._journal, self._results)
        try:
            collector.collect(accepted, forms)
        except NotAnswered as error:
            self._journal.note("broken", what=str(error))
        examine_store(cluster, self._journal, collector, (RESULTS_SECONDS, MEMORIES_SECONDS), self._form.patience)
        self._journal.note("resources", **{"when": "after", **watch.resources(cluster)})
        search_logs(cluster, self._journal, self._canaries)
        return collector
