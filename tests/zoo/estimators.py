"""The animals: estimators of one feature `x`. Those that do harm do it for rows where `x` is negative, and give
`x` back for all others, so that a test can put one bad row among many good ones.

They are pickled by reference: whoever loads them needs the repository's root on the module search path.
"""

import ctypes
import itertools
import os
import pickle
import time
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from models.add import add
from models.catalog import Manifest

GIGABYTE = 1 << 30
MOST_GIGABYTES = 50  # more than any machine these tests run on; a child without a limit must not take it all for ever


class Animal(RegressorMixin, BaseEstimator):
    feature_names_in_ = np.array(["x"], dtype=object)
    n_features_in_ = 1

    def predict(self, block):
        x = np.asarray(block, dtype=float)[:, 0]
        return self.answer(x)

    def answer(self, x):
        if (x < 0).any():
            self.harm()
        return x

    def harm(self):
        """What happens when a row is negative."""


class Identity(Animal):
    """Gives `x` back."""


class Raises(Animal):
    def harm(self):
        raise ValueError("negative value -1.2345 in x")  # as libraries do, the text repeats a value


class Moody(Raises):
    """Raises as long as a file is there."""

    def __init__(self, path=""):
        self.path = path

    def harm(self):
        if Path(self.path).exists():
            super().harm()


class Exits(Animal):
    def harm(self):
        os._exit(3)


class Segfaults(Animal):
    def harm(self):
        ctypes.string_at(0)


class Hangs(Animal):
    """Never comes back, and cannot be interrupted: an endless loop in C that holds the interpreter's lock."""

    def harm(self):
        sum(itertools.repeat(0))


class Hungry(Animal):
    """Takes memory and touches it, so that it really is taken."""

    def harm(self):
        taken = [bytearray(b"x" * GIGABYTE) for _ in range(MOST_GIGABYTES)]
        raise MemoryError(len(taken))


class NotFinite(Animal):
    """Gives `instead` for negative rows."""

    def __init__(self, instead=float("nan")):
        self.instead = instead

    def answer(self, x):
        return np.where(x < 0, self.instead, x)


class Always(Animal):
    """Gives the same value for every row: 0 and False are predictions too."""

    def __init__(self, value=0):
        self.value = value

    def answer(self, x):
        return np.full(len(x), self.value)


class Shifted(Animal):
    """Gives `x` and something more: so one can see which version of it a row was predicted by."""

    def __init__(self, by=0.0):
        self.by = by

    def answer(self, x):
        return x + self.by


class Short(Animal):
    """Gives one prediction too few."""

    def answer(self, x):
        return x[1:]


class Slow(Animal):
    """Sleeps some milliseconds for each row, then gives `x` back."""

    def __init__(self, milliseconds=1.0):
        self.milliseconds = milliseconds

    def answer(self, x):
        time.sleep(len(x) * self.milliseconds / 1000)
        return x


class Grinds(Animal):
    """Takes its time for each row in C and holds the interpreter's lock all the while, then gives `x` back."""

    def __init__(self, items=10_000_000):
        self.items = items

    def answer(self, x):
        self.grind(len(x))
        return x

    def grind(self, rows):
        """About a tenth of a second for ten million items."""
        sum(itertools.repeat(0, rows * self.items))


class Poisons(Animal):
    """Does what the first negative row says: -1 raises, -2 crashes, -3 exits, -4 never ends, -5 takes all memory."""

    def answer(self, x):
        for value in x[x < 0]:
            {-1: Raises, -2: Segfaults, -3: Exits, -4: Hangs, -5: Hungry}[int(value)]().harm()
        return x


class Sign(ClassifierMixin, Animal):
    """Classifies by sign, with the probabilities of somebody who is sure."""

    classes_ = np.array([False, True])

    def answer(self, x):
        return x >= 0

    def predict_proba(self, block):
        positive = self.predict(block).astype(float)
        return np.column_stack([1 - positive, positive])


ANIMALS = {
    "identity": Identity(),
    "raises": Raises(),
    "exits": Exits(),
    "segfaults": Segfaults(),
    "hangs": Hangs(),
    "hungry": Hungry(),
    "nan": NotFinite(),
    "infinite": NotFinite(float("inf")),
    "zero": Always(0),
    "false": Always(False),
    "shifted": Shifted(),
    "short": Short(),
    "slow": Slow(),
    "grinds": Grinds(),
    "poisons": Poisons(),
    "sign": Sign(),
}


def build(path: Path) -> None:
    """Writes every animal as version 1 of a model of its name into the models folder `path`."""
    for name, animal in ANIMALS.items():
        write(path, name, animal)
    write(path, "moody", Moody(str(mood(path))))


def mood(path: Path) -> Path:
    """The file that puts the model `moody` of a models folder into its bad mood."""
    return path.parent / "mood"


def write(path: Path, name: str, animal: Animal) -> Manifest:
    """Writes one animal, perhaps with other parameters, as the next version of a model."""
    # Where probabilities are to be found there is nothing to fear; elsewhere the probe would be the first victim,
    # since it asks for negative infinite numbers too.
    probing = hasattr(animal, "predict_proba")
    return add(path, name, pickle.dumps(animal), target="x", probing=probing).manifest
