"""What every worker does about every two seconds, whatever else it does: says that it lives, and sweeps."""

import logging
from time import monotonic

from jobs.errors import StoreAway, StoreFull
from jobs.leases import Leases
from jobs.tickets import TicketQueue
from worker.served import Served

log = logging.getLogger(__name__)

ANNOUNCE_SECONDS = 2.0


class Rounds:
    """The periodic duties of one worker. `turn` is called often and does what is due."""

    def __init__(self, leases: Leases, tickets: TicketQueue, name: str, served: Served, sweep_seconds: float) -> None:
        self._leases = leases
        self._tickets = tickets
        self._name = name
        self._served = served
        self._sweep_seconds = sweep_seconds
        self._announce_at = 0.0
        self._sweep_at = 0.0
        self._state = "idle"

    def become(self, state: str) -> None:
        """Announces a change of state ("idle", "busy" or "gone") at the next turn, "gone" at once."""
        if state != self._state:
            self._state = state
            self._announce_at = 0.0
        if state == "gone":
            self.turn()

    def turn(self) -> None:
        """Does what is due. A store that is away is no reason to stop: the next turn tries again."""
        now = monotonic()
        try:
            if now >= self._announce_at:
                self._announce_at = now + ANNOUNCE_SECONDS
                self._leases.announce(self._name, self._state, self._served.keys)
            if now >= self._sweep_at and self._state != "gone":
                self._sweep_at = now + self._sweep_seconds
                self._tickets.put(self._leases.sweep(self._sweep_seconds))
        except (StoreAway, StoreFull) as error:
            log.warning("could not announce or sweep: %s", error)
