"""huey: two processes that keep the model; results are waited for in a blocking pop (`notify_result`)."""

import os
import sys
from functools import lru_cache

from huey import RedisHuey
from protocol import end, start
from singles_protocol import Model, serve_orders

SECONDS = 60
huey = RedisHuey("singles", url=os.environ["REDIS_URL"], notify_result=True)


@lru_cache
def model() -> Model:
    return Model(os.environ["MODEL"])


@huey.task(name="predict")
def predict(row: list[float]) -> float:
    return model().predict(row)


def ask(row: list[float]) -> float:
    return predict(row).get(blocking=True, timeout=SECONDS)


if __name__ == "__main__":
    os.environ["MODEL"] = sys.argv[1]
    consumer = start("huey_consumer", "singles_huey.huey", "--workers=2", "--worker-type=process", "--quiet")
    # The consumer knows its task by this name, not as one of __main__.
    import singles_huey

    serve_orders(singles_huey.ask)
    end(consumer)
