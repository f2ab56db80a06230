"""The parent's judgement of a predictor, played by the process of the test."""

import os
import time

import pytest

from worker.watch import SWOLLEN_BYTES, Doing, Watch


@pytest.fixture
def watch():
    """Of a predictor that has begun with a row before its pid was known; a step may take 0.4 s."""
    watch = Watch(1 << 40)
    watch.asked(1, lambda doing: 0.4)
    watch.began(Doing(1, "predict", 0, 1))
    watch.pid = os.getpid()
    time.sleep(0.3)
    assert watch.look() is None
    return watch


def test_step_that_only_takes_too_long_is_a_timeout(watch):
    time.sleep(0.3)
    assert watch.look() == "timeout"


def test_step_that_takes_memory_until_its_time_is_over_is_out_of_memory(watch):
    taken = b"x" * (SWOLLEN_BYTES + (32 << 20))
    time.sleep(0.3)
    assert watch.look() == "out_of_memory"
    del taken
