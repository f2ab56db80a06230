"""What a predictor may take of the memory that there is."""

import os

import pytest

from worker.memory import LEAST_BYTES, data_allowance, limit_of, resident_bytes, there_is

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
GIB = 1 << 30


def system(folder, groups, limits):
    """A root folder with these lines in /proc/self/cgroup and these files below /sys/fs/cgroup."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(groups)
    for name, text in limits.items():
        file = folder / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return folder


@pytest.mark.parametrize(
    ("groups", "limits"),
    [
        ("0::/\n", {"memory.max": GIB}),
        ("0::/system.slice/worker.service\n", {"system.slice/worker.service/memory.max": GIB}),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": GIB}),
        ("0::/of/the/host\n", {"memory.max": GIB}),
        ("3:cpu,cpuacct:/\n9:memory:/docker/1\n0::/\n", {"memory/docker/1/memory.limit_in_bytes": GIB}),
        ("9:memory:/docker/1\n", {"memory/memory.limit_in_bytes": GIB}),
    ],
)
def test_limit_of_the_container_counts_wherever_it_stands(tmp_path, groups, limits):
    assert there_is(system(tmp_path, groups, limits)) == GIB
    assert limit_of(0, tmp_path) == GIB * 3 // 4


@pytest.mark.parametrize(
    ("groups", "limits"),
    [
        ("0::/\n", {"memory.max": "max"}),
        ("9:memory:/\n", {"memory/memory.limit_in_bytes": 9223372036854771712}),
        ("0::/elsewhere\n", {}),
        ("", {}),
    ],
)
def test_without_a_limit_of_the_container_the_machine_counts(tmp_path, groups, limits):
    assert there_is(system(tmp_path, groups, limits)) == MACHINE


def test_machine_without_control_groups_counts_alone(tmp_path):
    assert there_is(tmp_path) == MACHINE


def test_wanted_limit_is_taken_as_it_is(tmp_path):
    assert limit_of(300_000_000, tmp_path) == 300_000_000


def test_share_of_a_tiny_container_is_still_enough_to_begin_with(tmp_path):
    assert limit_of(0, system(tmp_path, "0::/\n", {"memory.max": 100_000_000})) == LEAST_BYTES


def test_what_a_process_has_resident_is_known_while_it_is_there():
    assert resident_bytes(os.getpid()) > 1_000_000
    assert resident_bytes(2**22 + 1) == 0  # above the largest pid


def test_data_may_grow_by_what_the_limit_leaves():
    assert data_allowance(4 * GIB) - data_allowance(3 * GIB) == pytest.approx(GIB, abs=50_000_000)
