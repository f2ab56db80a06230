"""What tests share: a real store, the models, and stacks of real processes."""

import shutil
import signal

import pytest
import redis
from local_store import LocalStore
from process import ROOT
from reaper import Reaper
from stack import Stack


@pytest.fixture(scope="session")
def store_url(tmp_path_factory):
    """The URL of a Valkey that all tests of the session use; stacks have their own."""
    directory = tmp_path_factory.mktemp("store")
    reaper = Reaper()
    store = LocalStore(directory / "store", reaper, log=directory / "store.log")
    yield store.url
    store.process.signal(signal.SIGTERM)
    store.process.end(5)
    reaper.close()


@pytest.fixture
def redis_client(store_url):
    """A client of the session's store, which is empty."""
    with redis.Redis.from_url(store_url) as client:
        client.flushdb()
        yield client


@pytest.fixture(scope="session")
def models_path(tmp_path_factory):
    """A models folder with the shipped models and the zoo."""
    from tests.zoo.estimators import build

    path = tmp_path_factory.mktemp("models") / "artifacts"
    shutil.copytree(ROOT / "models" / "artifacts", path)
    build(path)
    return path


@pytest.fixture(scope="session")
def _new_stack(tmp_path_factory, models_path):
    def new_stack(workers=2, **environment):
        settings = {
            "MODELS_PATH": str(models_path),
            # Unpickling the zoo needs the package `tests`.
            "PYTHONPATH": str(ROOT),
            **{name: str(value) for name, value in environment.items()},
        }
        return Stack(tmp_path_factory.mktemp("stack"), workers=workers, environment=settings)

    return new_stack


@pytest.fixture
def stack(_new_stack):
    """Starts stacks that end with the test: `stack(workers=2, **environment)`."""
    started = []

    def start(workers=2, **environment):
        started.append(_new_stack(workers, **environment).start())
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture(scope="session")
def shared_stack(_new_stack):
    """A stack of two workers for tests that kill nothing and change no settings."""
    stack = _new_stack().start()
    yield stack
    stack.stop()
