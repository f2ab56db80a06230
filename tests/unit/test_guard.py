"""The parent's judgement of a predictor, played by the process of the test."""

import os
import time

import pytest

from worker.guard import SWOLLEN_BYTES, Doing, Guard


@pytest.fixture
def guard():
    """Of a predictor that has begun with a row before its pid was known; a step may take 0.4 s."""
    guard = Guard(1 << 40)
    guard.asked(1, lambda doing: 0.4)
    guard.began(Doing(1, "predict", 0, 1))
    guard.pid = os.getpid()
    time.sleep(0.3)
    assert guard.look() is None
    return guard


def test_step_that_only_takes_too_long_is_a_timeout(guard):
    time.sleep(0.3)
    assert guard.look() == "timeout"


def test_step_that_takes_memory_until_its_time_is_over_is_out_of_memory(guard):
    taken = b"x" * (SWOLLEN_BYTES + (32 << 20))
    time.sleep(0.3)
    assert guard.look() == "out_of_memory"
    del taken
