"""`python -m worker`: puts one worker together from the settings and runs it until it is told to stop."""

import ctypes
import logging
import os
import secrets
import signal
import socket
import sys

import settings
from jobs.connection import TICKET_CONNECTIONS, WORKER_CONNECTIONS, ticket_client, worker_client
from jobs.leases import Leases
from jobs.scripts import Limits
from jobs.tickets import TicketQueue
from models.catalog import Catalog, ModelsError
from worker.child import Child, scrub
from worker.duty import Duty
from worker.parent import Parts, keep_working
from worker.rounds import Rounds
from worker.served import Served
from worker.slice import Slices

log = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4


def hide_memory() -> None:
    """Keeps other processes of the same user, such as the predictor, from reading this one's memory and secrets."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)


def main() -> None:
    """Runs one worker; returns when it was told to stop and has handed everything back."""
    chosen = settings.load()
    logging.basicConfig(level=chosen.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    hide_memory()
    catalog = Catalog.read(chosen.models_path, chosen.default_model)
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    client = worker_client(chosen.redis_url, chosen.redis_tls_verify)
    tickets = TicketQueue(client)
    leases = Leases(client, Limits.of(chosen), name)
    served = Served(catalog)
    rounds = Rounds(leases, tickets, name, served, chosen.sweep_seconds)
    duty = Duty(leases, rounds, chosen.lease_seconds)
    child = Child(chosen.models_path, scrub(settings.inherited()), chosen.predictor_memory_bytes)
    slices = Slices(
        leases=leases,
        tickets=tickets,
        child=child,
        served=served,
        duty=duty,
        slice_seconds=chosen.slice_seconds,
        max_load_attempts=chosen.max_load_attempts,
    )

    def stop(*_: object) -> None:
        duty.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    child.start()
    log.info("worker %s serves %s", name, ", ".join(served.keys))
    log.info("it takes up to %d connections to the store", WORKER_CONNECTIONS + TICKET_CONNECTIONS)
    try:
        parts = Parts(slices, rounds, duty, child)
        keep_working(lambda: ticket_client(chosen.redis_url, chosen.redis_tls_verify), name, parts)
    finally:
        child.close()
        rounds.become("gone")
        log.info("worker %s has stopped", name)
        # A further signal while the interpreter winds down must not make this look like a death.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    try:
        main()
    except (settings.BadSetting, ModelsError) as error:
        sys.exit(f"the worker cannot start: {error}")
