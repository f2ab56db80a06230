"""The web application: where its objects are built and its routes are put together."""

import logging
from functools import partial

from flask import Flask, Response, g, request

from api import capacity, events, health, jobs, models, predict, problems, results, retry, submit
from api.closing import Closing
from api.context import EXTENSION, Api, current, request_id
from api.given_back import NEW
from api.seats import Seats
from jobs.connection import NEWS_CONNECTIONS, WEB_CONNECTIONS, news_client, patience, web_client
from jobs.news import News
from jobs.scripts import Limits
from jobs.store import Store
from jobs.tickets import TicketQueue
from models.catalog import Catalog
from settings import Settings, load

log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> Flask:
    """The application for these settings, or for those of the environment; connects to nothing yet."""
    settings = settings or load()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    app = Flask(__name__, static_folder=None)
    client = web_client(settings.redis_url, settings.redis_tls_verify)
    app.extensions[EXTENSION] = Api(
        settings=settings,
        catalog=Catalog.read(settings.models_path, settings.default_model),
        store=Store(client, Limits.of(settings)),
        tickets=TicketQueue(client),
        news=News(partial(news_client, settings.redis_url, settings.redis_tls_verify)),
        seats=Seats(min(settings.max_waiting, capacity.seats(capacity.threads(settings)))),
    )
    for routes in (submit, jobs, events, retry, results, predict, models, health):
        app.register_blueprint(routes.blueprint)
    problems.register(app)
    app.before_request(_take_up)
    app.before_request(_take_request_id)
    app.after_request(_give_request_id)
    app.teardown_request(_leave_seat)
    log.info("this process takes up to %d connections to the store", WEB_CONNECTIONS + NEWS_CONNECTIONS)
    app.wsgi_app = Closing(app.wsgi_app, settings)  # type: ignore[method-assign] # Flask's own way to wrap an app
    return app


def _take_up() -> None:
    patience.begin()
    g.returned = current().given_back.take(request.environ)


def _leave_seat(_: BaseException | None) -> None:
    if g.get("returned", NEW).has_seat:
        current().seats.leave()


def _take_request_id() -> None:
    g.request_id = request_id(request.headers.get("X-Request-Id", ""))


def _give_request_id(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
    return response
