"""What is submitted: drawn from the seed, each row with a key of its own and the outcome that it has to have."""

import gzip
import json
import random
from dataclasses import dataclass, field, replace

import pandas as pd

from models.catalog import Catalog
from models.loading import estimator_in, unpickle
from tests.zoo.estimators import Shifted, write

# Numbers of submissions stay below this, and rows of one too: so `x` names the row, and is exact as a float.
MOST = 1_000_000
# What a poisoned row gets, by the model.
POISON = {
    "raises": "model_error",
    "exits": "worker_crashed",
    "segfaults": "worker_crashed",
    "hangs": "timeout",
    "hungry": "out_of_memory",
    "nan": "not_finite",
}
SMALL = 300  # most rows of a small batch
# It takes seconds to be sure of these: with many of them a run would do little else.
LONG_IN_DYING = {"hangs", "hungry"}
NO_NUMBER = "invalid_number"
LINEAR = "housing"
# New versions of this one come while batches run; each gives a little more.
RENEWED = "shifted"
SHIFT = 0.25
# A linear model's last bit depends on the block that a row was predicted in.
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Submission:
    """One thing to submit. `bad` has the rows that fail, by position, and with which code."""

    number: int
    kind: str  # "batch", "single" (POST /jobs) or "predict"
    model: str
    rows: int = 1
    form: str = "json"  # "csv", "gzip", "chunked", "ndjson" or "json"
    keep: str = "all"
    bad: dict = field(default_factory=dict)
    idempotent: bool = True
    # What the client does: "abandon", "cancel", "delete", "repeat", "cut", "listen" (to events), or nothing special.
    behaviour: str = ""
    after: float = 0.0  # the moment of it: seconds, or the share of the body for "abandon"

    def key(self, row):
        """Names one row among all of the run."""
        return f"{self.number}-{row}"

    def keys(self):
        """The names of all rows, in order."""
        return [self.key(row) for row in range(self.rows)]

    def x(self, row):
        """The value that goes into the model, as text."""
        if self.model == LINEAR:
            return NO_NUMBER if row in self.bad else f"{3 + (self.number * 7919 + row) % 50000 / 10000}"
        x = self.number * MOST + row + 1
        if row in self.bad:
            return NO_NUMBER if self.bad[row] == NO_NUMBER else f"-{x}"
        return str(x)

    def feature(self):
        """The name of the model's feature."""
        return "RM" if self.model == LINEAR else "x"

    def path(self):
        """Where it is submitted."""
        route = "/predict" if self.kind == "predict" else "/jobs"
        kept = f"&keep={self.keep}" if self.kind == "batch" else ""
        return f"{route}?model={self.model}{kept}"


def key_of(prediction):
    """The name of the row whose `x` the identity model gave back."""
    number, row = divmod(round(prediction) - 1, MOST)
    return f"{number}-{row}"


def media_type(submission):
    """The Content-Type of its body."""
    forms = {"json": "application/json", "ndjson": "application/x-ndjson"}
    return forms.get(submission.form, "text/csv")


def body(submission, canary):
    """The bytes to send."""
    objects = (
        {"id": submission.key(row), submission.feature(): submission.x(row), "note": canary}
        for row in range(submission.rows)
    )
    if submission.kind != "batch":
        return json.dumps({"input": next(objects)}).encode()
    if submission.form == "json":
        return json.dumps({"inputs": list(objects)}).encode()
    if submission.form == "ndjson":
        return "".join(json.dumps(each) + "\n" for each in objects).encode()
    lines = "".join(f"{each['id']},{each[submission.feature()]},{canary}\n" for each in objects)
    text = f"id,{submission.feature()},note\n{lines}".encode()
    return gzip.compress(text, 1) if submission.form == "gzip" else text


class Draw:
    """Draws submissions from a seed. `models` are those of the zoo that may be used, `rows` scales the sizes."""

    def __init__(self, seed, models, *, rows=1.0, idempotent=0.9):
        self._seed = seed
        self._poisons = [model for model in POISON if model in models]
        self._rows = rows
        self._idempotent = idempotent

    def warming(self, first):
        """What a run begins with, before there are faults: numbers from `first` on."""
        models = ["identity", "identity", "slow", LINEAR, *self._poisons]
        for number, model in enumerate(models, first):
            yield Submission(number, "batch", model, 30_000 if model == "identity" else 100, "csv")

    def batch(self, number):
        """The batch of this number."""
        chance = random.Random(f"batch {self._seed} {number}")
        makers = [self._identity, self._slow, self._linear, self._renewed, self._poisoned, self._small]
        make = chance.choices(makers, [4, 4, 2, 2, 3, 5])[0]
        submission = make(number, chance)
        behaviours = ["", "abandon", "cancel", "delete", "repeat", "cut", "listen"]
        behaviour = chance.choices(behaviours, [7, 1, 1, 1, 2, 3, 4])[0]
        after = chance.random() if behaviour == "abandon" else chance.uniform(0, 2)
        idempotent = chance.random() < self._idempotent
        return replace(submission, behaviour=behaviour, after=after, idempotent=idempotent)

    def single(self, number):
        """The single prediction of this number."""
        chance = random.Random(f"single {self._seed} {number}")
        kind = chance.choice(["single", "predict"])
        # Half of what asks at /predict is plain, as what takes the fast lane.
        idempotent = chance.random() < self._idempotent * (0.5 if kind == "predict" else 1)
        behaviour = chance.choices(["", "repeat", "listen", "cancel", "delete"], [14, 2, 3, 1, 1])[0]
        facts = {"idempotent": idempotent, "behaviour": behaviour}
        if self._poisons and chance.random() < 0.2:
            model = self._poison(chance)
            # Half of them do no harm: they are the neighbours of those that do.
            return Submission(number, kind, model, bad=chance.choice([{0: POISON[model]}, {}]), **facts)
        return Submission(number, kind, chance.choice(["identity", "identity", LINEAR]), **facts)

    def _size(self, chance, least, most):
        """Many small ones, few large ones."""
        return max(least, int(self._rows * least * (most / least) ** chance.random()))

    def _identity(self, number, chance):
        form = chance.choice(["csv", "csv", "gzip", "chunked", "ndjson", "json"])
        rows = self._size(chance, 10, 1_000 if form == "json" else 50_000)
        keep = chance.choice(["all", "all", "none", "id"])
        bad = {} if keep == "none" else self._some(chance, rows, [NO_NUMBER], chance.choice([0, 0, 3]))
        return Submission(number, "batch", "identity", rows, form, keep, bad)

    def _slow(self, number, chance):
        return Submission(number, "batch", "slow", self._size(chance, 500, 15_000), "csv")

    def _linear(self, number, chance):
        form, keep = chance.choice(["csv", "gzip", "ndjson"]), chance.choice(["all", "id"])
        rows = self._size(chance, 100, 20_000)
        return Submission(number, "batch", LINEAR, rows, form, keep, self._some(chance, rows, [NO_NUMBER], 2))

    def _renewed(self, number, chance):
        return Submission(
            number, "batch", RENEWED, self._size(chance, 100, 50_000), "csv", chance.choice(["all", "id"])
        )

    def _poisoned(self, number, chance):
        if not self._poisons:
            return self._identity(number, chance)
        model = self._poison(chance)
        form = chance.choice(["csv", "chunked", "json"])
        rows = SMALL if form == "json" else self._size(chance, 50, 5_000)
        bad = self._some(chance, rows, [POISON[model]], 1 if model in LONG_IN_DYING else chance.randint(1, 3))
        return Submission(number, "batch", model, rows, form, "all", bad)

    def _small(self, number, chance):
        """One that is accepted in one step, where its model is not slow."""
        rows, model = int(SMALL ** chance.random()), chance.choice(["identity", "slow", LINEAR, RENEWED])
        bad = self._some(chance, rows, [NO_NUMBER], chance.choice([0, 0, 2]))
        return Submission(number, "batch", model, rows, "json", chance.choice(["all", "id"]), bad)

    def _poison(self, chance):
        return chance.choices(self._poisons, [1 if model in LONG_IN_DYING else 4 for model in self._poisons])[0]

    def _some(self, chance, rows, codes, count):
        return {row: chance.choice(codes) for row in chance.sample(range(rows), min(count, rows))}


def shift(version):
    """What a version of the renewed model adds."""
    return (int(version) - 1) * SHIFT


def renew(models_path):
    """Writes the next version of the renewed model."""
    versions = [int(folder.name) for folder in (models_path / RENEWED).iterdir() if folder.name.isdigit()]
    write(models_path, RENEWED, Shifted(shift(max(versions) + 1)))


class Local:
    """What the models give here, without any queue: predictions by model for values of `x`."""

    def __init__(self, models_path):
        catalog = Catalog.read(models_path, LINEAR)
        manifest = catalog.find(LINEAR)
        self._linear = estimator_in(unpickle((catalog.directory(manifest) / manifest.artifact).read_bytes()))

    def outcomes(self, submission, version):
        """For each row what it has to come to with this version: a prediction, or the code of its error."""
        texts = [submission.x(row) for row in range(submission.rows)]
        if submission.model != LINEAR:
            by = shift(version) if submission.model == RENEWED else 0.0
            return [
                submission.bad[row] if row in submission.bad else float(text) + by for row, text in enumerate(texts)
            ]
        good = [row for row in range(submission.rows) if row not in submission.bad]
        values = (
            self._linear.predict(pd.DataFrame({submission.feature(): [float(texts[row]) for row in good]}))
            if good
            else []
        )
        found = dict(zip(good, map(float, values), strict=True))
        return [submission.bad[row] if row in submission.bad else found[row] for row in range(submission.rows)]
