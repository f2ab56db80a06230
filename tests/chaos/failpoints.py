"""Failpoints: a process that kills itself, or loses a request or reply, right before or after one of its own steps.

It also leaves a trace of its leases.

The product has none of this. `python -m tests.chaos.worker` and `tests.chaos.web` import it, wrap the methods that
speak to the store or to the predictor, and run it as it is. Without CHAOS_FAILPOINTS they do nothing at all.

CHAOS_FAILPOINTS is a JSON object: `folder`, where the traces go; `role`, "worker" or "web"; `seed`, for the choice of
the moment; `skew`, by how many seconds this process's clock is off. The files `<folder>/armed-<role>-die` and
`<folder>/armed-<role>-lose` hold the probability of that at one of the points. While they are not there, nothing
happens.
"""

import functools
import inspect
import json
import os
import random
import signal
from pathlib import Path

from tests.chaos.journal import Journal

VARIABLE = "CHAOS_FAILPOINTS"


def environment(folder, role, seed, skew=0):
    """The variable that has a process started with failpoints."""
    return {VARIABLE: json.dumps({"folder": str(folder), "role": role, "seed": seed, "skew": skew})}


def arm(folder, role, what, probability):
    """Lets processes of a role "die" at their failpoints, or "lose" what they ask of the store or what it answers."""
    whole = Path(folder) / f".armed-{role}-{what}"
    whole.write_text(str(probability))
    whole.replace(Path(folder) / f"armed-{role}-{what}")


def disarm(folder, role, what):
    """From now on nothing of that happens to this role by itself."""
    (Path(folder) / f"armed-{role}-{what}").unlink(missing_ok=True)


def install():
    """Sets the failpoints of this process, if the environment asks for them."""
    asked = os.environ.get(VARIABLE)
    if asked:
        wanted = json.loads(asked)
        if wanted["skew"]:
            from tests.chaos import skew

            skew.install(wanted["skew"])
        Failpoints(Path(wanted["folder"]), wanted["role"], wanted["seed"]).install()


class Failpoints:
    """The failpoints of one process."""

    def __init__(self, folder, role, seed):
        self._role = role
        self._folder = folder
        self._seed = seed
        self._pid = None

    def install(self):
        """Wraps every step of the product that may be the last one of a process."""
        from jobs.intake import Intake
        from jobs.leases import Leases
        from jobs.store import Store
        from jobs.tickets import TicketQueue
        from worker.child import Child

        watched = {
            Leases: public(Leases),
            Store: public(Store),
            Intake: public(Intake),
            TicketQueue: ["put"],
            Child: ["send", "wait"],
        }
        for owner, names in watched.items():
            for name in names:
                setattr(owner, name, self.wrapped(owner.__name__, name, getattr(owner, name)))

    def wrapped(self, owner, name, step):
        """The step with a failpoint before and one after it, and a trace of what it took or handed in."""

        @functools.wraps(step)
        def stepping(*arguments, **named):
            self._may_fail(f"before {owner}.{name}")
            answer = step(*arguments, **named)
            trace = TRACES.get(name) if owner == "Leases" else None
            if trace:
                for facts in trace(answer, *arguments[1:], **named):
                    self._journal.note(pid=os.getpid(), **facts)
            self._may_fail(f"after {owner}.{name}")
            return answer

        return stepping

    def _may_fail(self, point):
        if self._happens("die"):
            self._journal.note("death", pid=os.getpid(), what=f"{self._role} at a failpoint", point=point)
            os.kill(os.getpid(), signal.SIGKILL)
        if "Child." not in point and self._happens("lose"):
            from jobs.errors import StoreAway

            self._journal.note("lost", pid=os.getpid(), point=point)
            raise StoreAway("a failpoint")

    def _happens(self, what):
        try:
            probability = float((self._folder / f"armed-{self._role}-{what}").read_text())
        except FileNotFoundError:
            return False
        return self._chance.random() < probability

    @property
    def _journal(self):
        self._begin()
        return self._own_journal

    @property
    def _chance(self):
        self._begin()
        return self._own_chance

    def _begin(self):
        """A forked process has a journal and chances of its own."""
        if self._pid != os.getpid():
            self._own_chance = random.Random(f"{self._seed} {self._role}")
            self._own_journal = Journal(self._folder / f"{self._role}-{os.getpid()}.jsonl")
            self._pid = os.getpid()  # last: another thread may ask at this moment


def public(owner):
    """The names of a class's public methods, inherited ones too: Leases has some of its own in another file."""
    return [name for name, _ in inspect.getmembers(owner, inspect.isfunction) if not name.startswith("_")]


def _leased(answer, *_, **__):
    if answer:
        lease = answer.lease
        yield {"kind": "leased", "job": lease.job_id, "chunk": lease.index, "token": lease.token}


def _leased_singles(answer, *_, **__):
    for lease in answer.leases if answer else ():
        yield {"kind": "leased", "job": lease.job_id, "chunk": lease.index, "token": lease.token}


def _committed(answer, lease, *_, **__):
    yield {"kind": "released", "token": lease.token, "job": lease.job_id, "chunk": lease.index, "stored": answer}


def _given_back(answer, leases, *_, **__):
    for lease in leases:
        yield {"kind": "released", "token": lease.token, "job": lease.job_id, "chunk": lease.index}


def _committed_singles(answer, token, results, *_, **__):
    for job in results:
        yield {"kind": "released", "token": token, "job": job, "chunk": "s"}


def _announced(answer, worker, state, *_, **__):
    yield {"kind": "announced", "worker": worker, "state": state}


TRACES = {
    "lease": _leased,
    "lease_singles": _leased_singles,
    "commit": _committed,
    "commit_singles": _committed_singles,
    "give_back": _given_back,
    "announce": _announced,
}
