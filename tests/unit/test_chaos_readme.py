"""tests/chaos/README.md names tests and faults: all of them are there."""

import ast
import re
from itertools import pairwise

import pytest
from process import ROOT

from tests.chaos import faults, schedule
from tests.chaos.checker import CHECKS

README = (ROOT / "tests" / "chaos" / "README.md").read_text(encoding="utf-8")
SCENARIOS = {"empty_store"}  # a run of its own


def rows(heading):
    """The cells of each row of the table below a heading."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def functions_of(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


COVERED = rows("Which fault is covered by what")


@pytest.mark.parametrize(("fault", "cover"), COVERED, ids=[fault for fault, _ in COVERED])
def test_named_tests_and_faults_are_there(fault, cover):
    named = re.findall(r"`([^`]+)`", cover)
    assert named or cover == "every run"
    for name in named:
        path, _, test = name.partition("::")
        if test:
            assert test in functions_of(path), name
        else:
            assert name in faults.FAULTS or name in SCENARIOS or (ROOT / "tests" / "chaos" / name).exists(), name


def test_every_fault_is_scheduled_and_named():
    named = set(re.findall(r"`(\w+)`", " ".join(cover for _, cover in COVERED)))
    assert set(faults.FAULTS) == set(schedule.LONG) == named - SCENARIOS
    assert set(schedule.SHORT) <= set(schedule.LONG)
    assert set(faults.STORE_FAULTS) <= set(faults.FAULTS)


def test_every_check_is_described():
    assert [name.strip("`") for name, _ in rows("What is checked")] == [check.__name__ for check in CHECKS]


def test_schedule_is_the_same_for_the_same_seed_and_has_every_class_in_time():
    planned = schedule.schedule(7, 180, schedule.LONG, pause=4)
    assert planned == schedule.schedule(7, 180, schedule.LONG, pause=4)
    assert planned != schedule.schedule(8, 180, schedule.LONG, pause=4)
    assert {each.name for each in planned} == set(schedule.LONG)
    assert all(before.after < after.after < 180 for before, after in pairwise(planned))
