"""Animals that take memory, each in a way of its own. Like the others they give `x` back where it is not negative."""

import mmap
import time

import numpy as np
import pyarrow as pa

from tests.zoo.estimators import GIGABYTE, Animal

MEBIBYTE = 1 << 20


class Hoards(Animal):
    """Asks for much in one go, and touches nothing of it."""

    def __init__(self, gigabytes=2):
        self.gigabytes = gigabytes

    def harm(self):
        bytearray(self.gigabytes * GIGABYTE)


class Spreads(Animal):
    """Takes, in a second or two, memory that is shared, which no limit of the process's own data counts."""

    def __init__(self, gigabytes=2):
        self.gigabytes = gigabytes

    def harm(self):
        taken = []
        for _ in range(self.gigabytes * GIGABYTE // (8 * MEBIBYTE)):
            taken.append(mmap.mmap(-1, 8 * MEBIBYTE))
            taken[-1].write(b"x" * (8 * MEBIBYTE))
            time.sleep(0.005)


class Swells(Animal):
    """Takes some memory, and then goes on for ever."""

    def __init__(self, mebibytes=800):
        self.mebibytes = mebibytes

    def harm(self):
        taken = np.ones(self.mebibytes * MEBIBYTE, dtype=np.uint8)
        while taken.any():
            pass


class Leaks(Animal):
    """Keeps some megabytes with every call."""

    kept: list = []  # noqa: RUF012 - of the process, as leaks are

    def __init__(self, mebibytes=40):
        self.mebibytes = mebibytes

    def answer(self, x):
        self.kept.append(np.ones(self.mebibytes * MEBIBYTE, dtype=np.uint8))
        return x


class Keeps(Animal):
    """Keeps 100 MB for every negative row, and wants far more than there is for -50 and below."""

    kept: list = []  # noqa: RUF012 - of the process, as leaks are

    def answer(self, x):
        if x.min() <= -50:
            bytearray(50 * GIGABYTE)
        if x.min() < 0:
            self.kept.append(np.ones(100 * MEBIBYTE, dtype=np.uint8))
        return x


class Roomy(Animal):
    """Uses Arrow, as many libraries do, and then 800 MB."""

    def answer(self, x):
        return x * pa.array([1.0])[0].as_py() * np.ones(800 * MEBIBYTE, dtype=np.uint8)[0]


class Heavy(Animal):
    """Takes so much memory as soon as it is loaded."""

    def __init__(self, mebibytes=250):
        self.mebibytes = mebibytes

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.kept = np.ones(self.mebibytes * MEBIBYTE, dtype=np.uint8)


class Roomless(Heavy):
    """Takes memory when it is loaded, and wants far more than there is for negative rows."""

    def answer(self, x):
        if (x < 0).any():
            bytearray(50 * GIGABYTE)
        return x


class Draws(Animal):
    """Gives a random number of numpy's old generator."""

    def answer(self, x):
        return np.random.random(len(x))
