"""What a worker holds at a moment, and what it does while it waits: renew leases, make rounds, listen for the end."""

import logging
import random
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import TypeVar

from jobs.connection import patience
from jobs.errors import StoreAway, StoreFull
from jobs.lease import Lease
from jobs.leases import Leases
from worker.rounds import Rounds

log = logging.getLogger(__name__)

LONGEST_RENEWAL_SECONDS = 1.0
LAST_INSISTENCE_SECONDS = 3.0  # what a worker that has to stop insists on still: hosts give it ten seconds or more
LAST_CALL_SECONDS = 4.0  # when it begins nothing with the store any more; a call may take three
LONGEST_PAUSE_SECONDS = 2.0  # between two tries while the store is away

T = TypeVar("T")


class Stopping(Exception):
    """Raised out of a wait when the worker was told to stop."""


class LeaseLost(Exception):
    """Raised out of a wait when nothing that is worked on is held any more: canceled, deleted or taken over."""


class Duty:
    """The leases that the worker holds, the ticket it holds them for, and whether it has to stop."""

    def __init__(self, leases: Leases, rounds: Rounds, lease_seconds: float) -> None:
        self.stopping = False
        self._insist_until = 0.0
        self.slot = -1
        self.ticket_id = ""
        self._leases = leases
        self._rounds = rounds
        self._held: list[Lease] = []
        self._renewal_seconds = min(LONGEST_RENEWAL_SECONDS, lease_seconds / 4)
        self._renew_at = 0.0

    def stop(self) -> None:
        """The worker has to stop; from here on it does not wait long for a store that is away."""
        if not self.stopping:
            self.stopping = True
            self._insist_until = monotonic() + LAST_INSISTENCE_SECONDS
            patience.begin()
            patience.end_in(LAST_CALL_SECONDS)

    def begin(self, ticket_id: str, slot: int = -1) -> None:
        """A ticket's slice begins; whatever was held before is not any more."""
        self.slot, self.ticket_id = slot, ticket_id
        self._held = []

    def hold(self, leases: Sequence[Lease]) -> None:
        """Renews these leases too from now on, together with what is held already, and when that is due."""
        if not self._held:
            self._renew_at = monotonic() + self._renewal_seconds
        self._held += leases

    def release(self, leases: Sequence[Lease]) -> None:
        """Renews these leases no more."""
        gone = set(leases)
        self._held = [lease for lease in self._held if lease not in gone]

    def tick(self) -> None:
        """Called all the time while the predictor works. Raises Stopping or LeaseLost."""
        if self.stopping:
            raise Stopping
        self._rounds.turn()
        if self._held and monotonic() >= self._renew_at:
            self._renew_at = monotonic() + self._renewal_seconds
            self._renew()

    def insist(self, call: Callable[[], T]) -> T | None:
        """Repeats a call that is safe to repeat until the store takes it.

        None when the worker has to stop and the store is not back within LAST_INSISTENCE_SECONDS.
        """
        pause = 0.05
        while True:
            if self.stopping and monotonic() <= self._insist_until:
                patience.begin()  # there is time still, however slow the store was
            try:
                return call()
            except (StoreAway, StoreFull) as error:
                log.warning("holding the result: %s", error)
            if self.stopping and monotonic() > self._insist_until:
                return None
            sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter: not all workers at once
            pause = min(pause * 2, 0.5 if self.stopping else LONGEST_PAUSE_SECONDS)

    def pause(self, seconds: float) -> None:
        """Waits, unless the worker has to stop."""
        if not self.stopping:
            sleep(seconds)

    def _renew(self) -> None:
        try:
            lost = self._leases.renew(self._held, self.slot, self.ticket_id)
        except (StoreAway, StoreFull) as error:
            log.warning("could not renew leases: %s", error)
            return
        if len(lost) == len(self._held):
            raise LeaseLost
