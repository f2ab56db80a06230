"""The store that bin/serve and the tests start: who may use it, and that it keeps what it acknowledged."""

import signal

import pytest
import redis
from local_store import LocalStore
from reaper import Reaper


def test_store_answers_only_to_its_password(store_url):
    password, _, place = store_url.removeprefix("redis://:").partition("@")
    with redis.Redis.from_url(store_url) as known:
        assert known.ping()
    for wrong in ("", f":{password[:-1]}@"):
        with redis.Redis.from_url(f"redis://{wrong}{place}") as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_store_that_is_killed_and_restarted_is_where_it_was_with_all_it_had(tmp_path):
    reaper = Reaper()
    store = LocalStore(tmp_path / "store", reaper, log=tmp_path / "store.log")
    url = store.url
    with redis.Redis.from_url(url) as client:
        client.set("kept", "so")
    store.process.signal(signal.SIGKILL)
    store.process.wait(5)
    store.restart()
    assert store.url == url
    with redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"so"
    store.process.end()
    reaper.close()
