"""Doing something seldom, however often it is asked for."""

import math

from jobs.seldom import MOST_NAMES, Seldom
from tests.waiting import wait_until


def test_name_is_due_once_and_again_when_its_seconds_are_over():
    seldom = Seldom(0.2)
    assert [seldom.is_due(name) for name in ("a", "a", "b", "a")] == [True, False, True, False]
    wait_until(lambda: seldom.is_due("a"), 5, "it is not due again")


def test_names_that_are_due_again_are_forgotten():
    seldom = Seldom(0)
    for number in range(3 * MOST_NAMES):
        assert seldom.is_due(str(number))
    assert len(seldom._noted) <= MOST_NAMES


def test_names_that_are_not_due_are_remembered_however_many_there_are():
    seldom = Seldom(math.inf)
    assert all(seldom.is_due(str(number)) for number in range(2 * MOST_NAMES))
    assert not any(seldom.is_due(str(number)) for number in range(2 * MOST_NAMES))
