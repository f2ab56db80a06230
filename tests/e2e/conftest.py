"""What the tests of the HTTP contract share."""

import pytest

from tests.client import Client


@pytest.fixture(scope="session")
def client(shared_stack):
    """A client of the stack with two workers."""
    return Client(shared_stack.url)


@pytest.fixture(scope="session")
def idle_stack(_new_stack):
    """A stack without workers, with small limits: what is accepted stays queued, what has ended soon expires."""
    stack = _new_stack(
        workers=0,
        MAX_BODY_BYTES=300_000,
        MAX_ROWS=2_000,
        BODY_IDLE_SECONDS=1,
        RESULTS_TTL_SECONDS=2,
        SINGLE_TTL_SECONDS=2,
    ).start()
    yield stack
    stack.stop()


@pytest.fixture(scope="session")
def idle(idle_stack):
    """A client of the stack without workers."""
    return Client(idle_stack.url)
