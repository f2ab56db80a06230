"""What a real browser makes of our streams; only where there is one."""

import pytest

from tests.browser import chromium, follow

PROGRAM = chromium.found()


@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium on this machine (Debian: apt-get install chromium)")
def test_eventsource_follows_a_batch_through_restarts_of_the_web_process(tmp_path):
    seen = follow.followed(tmp_path, PROGRAM, 40_000)
    assert seen["wrong"] == []
    assert seen["status"] == "succeeded"
