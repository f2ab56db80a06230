"""Waiting for a condition instead of for a time."""

import time


def wait_until(condition, seconds, message):
    """The first true value that `condition()` gives; fails with `message` when `seconds` have passed without one."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} seconds: {message}")
        time.sleep(0.02)
    return value
