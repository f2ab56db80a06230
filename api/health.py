"""Whether the process lives, whether it can take work, and how much work there is."""

from flask import Blueprint, Response

from api.answers import json_answer
from api.context import current
from api.problems import AWAY_SECONDS, Problem

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def alive() -> Response:
    """The process answers."""
    return json_answer({"status": "ok"})


@blueprint.get("/readyz")
def ready() -> Response:
    """It can take work: the store answers, and there is something to predict with."""
    current().store.ping()
    if not current().catalog.names:
        detail = "No model is known here. Add one with python -m models add, then restart."
        raise Problem(503, "no_models", detail, headers={"Retry-After": str(AWAY_SECONDS)})
    return json_answer({"status": "ready"})


@blueprint.get("/queue")
def backlog() -> Response:
    """What is accepted and not ended, and who works on it."""
    state = current().store.queue_state()
    oldest = None if state.oldest_created_at is None else max(state.now - state.oldest_created_at, 0) / 1000
    workers = {"busy": state.workers_busy, "idle": state.workers_idle}
    return json_answer(
        {
            "jobs": state.jobs,
            "rows": state.rows,
            "seconds_of_work": state.seconds,
            "oldest_age_seconds": oldest,
            "workers": workers,
        }
    )
