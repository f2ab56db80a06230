"""The store that bin/serve and the tests start: who may use it."""

import pytest
import redis


def test_store_answers_only_to_its_password(store_url):
    password, _, place = store_url.removeprefix("redis://:").partition("@")
    with redis.Redis.from_url(store_url) as known:
        assert known.ping()
    for wrong in ("", f":{password[:-1]}@"):
        with redis.Redis.from_url(f"redis://{wrong}{place}") as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
