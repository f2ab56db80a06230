"""Workers whose clocks are wrong: only the store's clock decides anything."""

from datetime import datetime

import pytest
import redis
from process import ROOT

from tests.client import Client
from tests.waiting import wait_until

# Python imports a module of this name by itself when it starts. The predictor is not told the variable.
SHIFTED = """
import datetime
import os
import time

AHEAD = float(os.environ.get("CLOCK_AHEAD", 0))
if AHEAD:
    right_time, right_datetime = time.time, datetime.datetime

    class Shifted(right_datetime):
        @classmethod
        def now(cls, tz=None):
            return right_datetime.now(tz) + datetime.timedelta(seconds=AHEAD)

        @classmethod
        def utcnow(cls):
            return right_datetime.utcnow() + datetime.timedelta(seconds=AHEAD)

    time.time = lambda: right_time() + AHEAD
    datetime.datetime = Shifted
"""
DAY = 24 * 3600


@pytest.mark.parametrize("ahead", [300, -300])
def test_worker_whose_clock_is_wrong_runs_nothing_twice_and_expires_nothing(stack, tmp_path, ahead):
    (tmp_path / "sitecustomize.py").write_text(SHIFTED)
    own = stack(workers=1, LEASE_SECONDS=4, SWEEP_SECONDS=0.5)
    client, rows = Client(own.url), 6_000
    path = client.submit(b"x\n" + b"".join(b"%d\n" % number for number in range(rows)), "?model=slow")
    wait_until(lambda: client.job(path)["progress"]["rows_done"] > 0, 20, "nothing was done")
    # It begins by looking through what RQ keeps of the other's tickets, with its own idea of the time.
    wrong = own.start_worker(CLOCK_AHEAD=str(ahead), PYTHONPATH=f"{ROOT}:{tmp_path}")
    line = wait_until(lambda: wrong.log.is_file() and wrong.log.read_text(), 10, "it says nothing").splitlines()[0]
    off = datetime.fromisoformat(line.partition(",")[0]) - datetime.now()
    assert abs(off.total_seconds() - ahead) < 30
    singles = [client.predict(value, "?model=identity") for value in range(50)]
    job = client.finished(path)
    assert (job["status"], job["progress"]["rows_ok"], job["attempts"]) == ("succeeded", rows, [])
    assert [row["prediction"] for row in client.rows(path)] == list(range(rows))
    assert [single.json for single in singles] == [{"response": float(value)} for value in range(50)]
    with redis.Redis.from_url(own.redis_url) as store:
        assert DAY - 60 < store.ttl(f"qc:job:{job['id']}") <= DAY
        worker_names = {name.decode() for name in store.zrange("qc:workers", 0, -1)}
        assert len(worker_names) == 2
    wait_until(lambda: client.get("/queue").json["workers"] == {"busy": 0, "idle": 2}, 10, "a worker is missing")
    for worker in own.workers:
        assert worker.is_alive
        assert b"taken over" not in worker.log.read_bytes()
