"""What every view works with: built once by `create_app`, read by `current()`."""

import logging
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from flask import current_app

from api.given_back import GivenBack
from api.seats import Seats
from jobs.errors import StoreAway, StoreFull
from jobs.news import News
from jobs.store import Store
from jobs.tickets import Ticket, TicketQueue
from models.catalog import Catalog
from settings import Settings

EXTENSION = "queuecast"
ANONYMOUS = "public"  # the tenant of everyone who shows no key

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True)
class Api:
    """The objects of one web process."""

    settings: Settings
    catalog: Catalog
    store: Store
    tickets: TicketQueue
    news: News
    seats: Seats
    given_back: GivenBack = field(default_factory=GivenBack)


def current() -> Api:
    """The objects of the app that handles the current request."""
    return cast(Api, current_app.extensions[EXTENSION])


def tenant() -> str:
    """Who the current request's jobs belong to."""
    return ANONYMOUS


def put_tickets(api: Api, tickets: Iterable[Ticket]) -> None:
    """Puts the tickets of work that is stored already; one that gets lost is replaced by the sweep."""
    try:
        api.tickets.put(tickets)
    except (StoreAway, StoreFull):
        log.warning("a ticket could not be put; the sweep will replace it")


def request_id(sent: str) -> str:
    """The id of a request: the one that came with it, if that is fit to be one, else a new one."""
    return sent if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(16)
