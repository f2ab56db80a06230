"""How many threads, seats and connections a web process has, by its settings and by what the system allows."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from api import capacity
from settings import Settings

ROOT = Path(capacity.__file__).parent.parent
NO_LIMIT = resource.RLIM_INFINITY
MANY = 4000


@pytest.fixture
def container(tmp_path, monkeypatch):
    """Says how many processes and threads the container allows; it says nothing as long as it was not asked to."""
    file = tmp_path / "pids.max"
    monkeypatch.setattr(capacity, "PIDS_MAX", file)
    return file.write_text


@pytest.fixture(autouse=True)
def _limits_as_before():
    """The limits of this process are, after a test, what they were."""
    kinds = (resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE)
    before = [resource.getrlimit(kind) for kind in kinds]
    yield
    for kind, limits in zip(kinds, before, strict=True):
        resource.setrlimit(kind, limits)


def allow(kind, soft):
    """Lets this process have so many of a kind, unless it may not have so many."""
    _, hard = resource.getrlimit(kind)
    if hard != NO_LIMIT and (soft == NO_LIMIT or soft > hard):
        pytest.skip(f"this machine does not allow {soft}")
    resource.setrlimit(kind, (soft, hard))


def asked(threads=600, processes=2):
    return Settings(redis_url="redis://localhost", web_threads=threads, web_concurrency=processes)


def test_threads_are_those_that_were_asked_for_where_there_is_room(container):
    container("100000\n")
    allow(resource.RLIMIT_NPROC, MANY)
    assert capacity.threads(asked(600)) == 600


@pytest.mark.parametrize(("processes", "threads"), [(1, 224), (2, 112), (4, 56)])
def test_processes_share_what_the_container_allows_and_leave_some(container, processes, threads):
    allow(resource.RLIMIT_NPROC, MANY)
    container("256\n")
    assert capacity.threads(asked(600, processes)) == threads


def test_processes_share_what_the_system_allows_and_leave_some(container):
    container("100000\n")
    allow(resource.RLIMIT_NPROC, 2 * 1000 + capacity.SPARE_THREADS)
    assert capacity.threads(asked(5000)) == 1000
    assert capacity.threads(asked(999)) == 999


def test_smaller_of_both_limits_counts(container):
    container("232\n")
    allow(resource.RLIMIT_NPROC, 2 * 1000 + capacity.SPARE_THREADS)
    assert capacity.threads(asked(5000)) == 100


def test_container_without_a_limit_or_of_another_kind_limits_nothing(container):
    allow(resource.RLIMIT_NPROC, MANY)
    assert capacity.threads(asked(600)) == 600
    container("max\n")
    assert capacity.threads(asked(600)) == 600


@pytest.mark.parametrize("allowed", ["0", "32", "34"])
def test_there_are_two_threads_at_least(container, allowed):
    container(allowed)
    assert capacity.threads(asked(600)) == 2


@pytest.mark.parametrize(("threads", "seats"), [(600, 500), (12, 10), (6, 5), (5, 4), (2, 1)])
def test_a_sixth_of_the_threads_is_never_taken_by_who_waits_and_one_at_least(threads, seats):
    assert capacity.seats(threads) == seats


def test_process_may_open_the_files_that_its_connections_take():
    allow(resource.RLIMIT_NOFILE, 256)
    assert capacity.connections(200) == 1200
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == 2 * 1200 + capacity.SPARE_FILES


def test_limit_of_files_that_is_enough_stays_as_it_is():
    allow(resource.RLIMIT_NOFILE, 4000)
    assert capacity.connections(200) == 1200
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 4000


@pytest.mark.parametrize(("files", "connections"), [(900, 400), (2500, 1200), (101, 1)])
def test_connections_fit_the_files_that_the_system_does_not_let_exceed(files, connections):
    # A limit that cannot be raised cannot be given back either: this takes a process of its own.
    program = (
        "import resource; from api import capacity;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (100, {files}));"
        "print(capacity.connections(200), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == [str(connections), str(files)]
