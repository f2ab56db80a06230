"""The faults: each a function of the cluster and its own source of randomness; it returns when the fault is over."""

import contextlib
import os
import random
import signal
import threading
import time
from dataclasses import dataclass

import redis

from tests.chaos import failpoints
from tests.chaos.cluster import TICKETS, descendants
from tests.chaos.submissions import renew

# A ticket is in RQ's list of ids and has a hash of its own; who loses one loses both.
LOSE_TICKET = """
local id = redis.call('LINDEX', KEYS[1], ARGV[1])
if id then
  redis.call('LREM', KEYS[1], 0, id)
  redis.call('DEL', 'rq:job:' .. id)
end
return id
"""
ONE_RELEASE = threading.Lock()
FAULTS = {}
# Only one of these at a time: each ends by making the store and the way to it as they should be.
STORE_FAULTS = set()


@dataclass(frozen=True)
class Scene:
    """What a fault acts on. `longest` is for how many seconds one may last at most."""

    cluster: object
    chance: random.Random
    longest: float

    def worker(self):
        """One of the workers."""
        return self.chance.choice(self.cluster.workers)

    def lasts(self, shortest, longest):
        """So many seconds, more often few than many."""
        return min(shortest + (longest - shortest) * self.chance.random() ** 2, self.longest)


def fault(function):
    """Makes a function known as a fault under its name."""
    FAULTS[function.__name__] = function
    return function


def store_fault(function):
    """Makes it known as one that keeps others from the store."""
    STORE_FAULTS.add(function.__name__)
    return fault(function)


class Runner:
    """Carries out a schedule in threads of its own, and makes sure that every fault ends."""

    def __init__(self, cluster, journal, longest):
        self._cluster = cluster
        self._journal = journal
        self._longest = longest
        self._one_store_fault = threading.Lock()
        self._threads = []

    def run(self, planned):
        """Begins each fault at its moment; returns when the last one is over and everything is as it should be."""
        began = time.monotonic()
        for each in planned:
            time.sleep(max(0, began + each.after - time.monotonic()))
            thread = threading.Thread(target=self._carry_out, args=(each,), daemon=True)
            thread.start()
            self._threads.append(thread)
        for thread in self._threads:
            thread.join()

    def _carry_out(self, each):
        guard = self._one_store_fault if each.name in STORE_FAULTS else contextlib.nullcontext()
        with guard:
            began = time.time()
            scene = Scene(self._cluster, random.Random(each.seed), self._longest)
            # Noted at the beginning too: who reads the journal of a run that broke off wants to know what was going on.
            self._journal.note("fault_begins", name=each.name, planned=each.after)
            try:
                facts = FAULTS[each.name](scene)
            except (redis.RedisError, OSError) as error:
                # The store is away because of another fault, or the process died just before it could be hit.
                facts = {"missed": type(error).__name__}
            outage = each.name in STORE_FAULTS
            self._journal.note("fault", name=each.name, began=began, outage=outage, **(facts or {}))


# Workers


@fault
def worker_killed(scene):
    """`kill -9` of a worker with all its processes."""
    scene.cluster.kill(scene.worker())


@fault
def parent_killed(scene):
    """`kill -9` of a worker's parent alone."""
    scene.cluster.kill(scene.worker(), group=False)


@fault
def predictor_killed(scene):
    """`kill -9` of one of the processes that a worker's parent has started."""
    worker = scene.worker()
    started = descendants(worker.pid)
    if not started:
        return {"missed": "no child"}
    place = scene.chance.randrange(len(started))
    scene.cluster.kill_child(worker, started[place])
    return {"place": place}


@fault
def worker_terminated(scene):
    """SIGTERM to all processes of a worker, once, twice or thrice."""
    times = scene.chance.randint(1, 3)
    scene.cluster.terminate(scene.worker(), times, pause=scene.chance.choice([0.01, 0.1, 0.5]))
    return {"times": times}


@fault
def worker_frozen(scene):
    """SIGSTOP of a worker with all its processes, SIGCONT some time later."""
    worker, seconds = scene.worker(), scene.lasts(15, 60)
    _frozen(scene, worker.pid, worker.signal_group, seconds)
    return {"seconds": seconds}


def _frozen(scene, pid, send, seconds, web=False):
    scene.cluster.journal.note("stopped", pid=pid, web=web)
    send(signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        send(signal.SIGCONT)
        scene.cluster.journal.note("continued", pid=pid, web=web)


@fault
def workers_replaced(scene):
    """All workers end one after another, each when the one before has been replaced."""
    for place in range(len(scene.cluster.workers)):
        worker = scene.cluster.workers[place]
        scene.cluster.terminate(worker)
        until = time.monotonic() + 15
        while time.monotonic() < until and not _is_there(scene.cluster, place, worker):
            time.sleep(0.1)


def _is_there(cluster, place, before):
    worker = cluster.workers[place]
    with contextlib.suppress(redis.RedisError):
        return worker is not before and any(f"-{worker.pid}-" in name.decode() for name in cluster.announced())
    return False


@fault
def model_renewed(scene):
    """A new version of a model comes: web processes and workers are started anew with it, in any order."""
    with ONE_RELEASE:
        renew(scene.cluster.models_path)
        steps = [("worker", place) for place in range(len(scene.cluster.workers))]
        steps += [("web", pid) for pid in descendants(scene.cluster.web.pid)]
        for what, which in scene.chance.sample(steps, len(steps)):
            if what == "worker":
                scene.cluster.terminate(scene.cluster.workers[which])
            else:
                # gunicorn lets its process finish what it is at, and starts another, as it does when one was killed.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(which, signal.SIGTERM)
            time.sleep(scene.chance.uniform(0.5, 3))


@fault
def worker_failpoints(scene):
    """For some seconds workers kill themselves before or after any of their steps."""
    return _armed(scene, "worker", "die", [0.003, 0.01, 0.03])


@fault
def web_failpoints(scene):
    """The same for web processes."""
    return _armed(scene, "web", "die", [0.003, 0.01])


@fault
def worker_replies_lost(scene):
    """For some seconds any request of a worker to the store, or the answer, may be lost."""
    return _armed(scene, "worker", "lose", [0.05, 0.1, 0.2])


@fault
def web_replies_lost(scene):
    """The same for web processes."""
    return _armed(scene, "web", "lose", [0.01, 0.05, 0.2])


def _armed(scene, role, what, probabilities):
    seconds, probability = scene.lasts(4, 12), scene.chance.choice(probabilities)
    failpoints.arm(scene.cluster.traces, role, what, probability)
    try:
        time.sleep(seconds)
    finally:
        failpoints.disarm(scene.cluster.traces, role, what)
    return {"probability": probability, "seconds": seconds}


# Web


@fault
def web_process_killed(scene):
    """`kill -9` of one of gunicorn's processes; gunicorn starts another."""
    processes = descendants(scene.cluster.web.pid)
    if not processes:
        return {"missed": "no process"}
    pid = scene.chance.choice(processes)
    scene.cluster.journal.note("death", pid=pid, what="web process killed")
    os.kill(pid, signal.SIGKILL)
    return None


@fault
def web_killed(scene):
    """`kill -9` of gunicorn itself."""
    scene.cluster.kill(scene.cluster.web, group=False)


@fault
def web_frozen(scene):
    """SIGSTOP of one of gunicorn's processes for longer than an upload may be silent."""
    processes = descendants(scene.cluster.web.pid)
    if not processes:
        return {"missed": "no process"}
    pid, seconds = scene.chance.choice(processes), scene.lasts(12, 25)
    _frozen(scene, pid, lambda number: os.kill(pid, number), seconds, web=True)
    return {"seconds": seconds}


# The store, and the way to it


@store_fault
def store_killed(scene):
    """`kill -9` of the store, which comes back with what it had written."""
    away = scene.lasts(1, 15)
    scene.cluster.kill_store()
    time.sleep(away)
    scene.cluster.start_store()
    return {"seconds": away}


@store_fault
def store_stalled(scene):
    """Nothing comes through in either direction for a while."""
    seconds = scene.chance.choice([3, 3, 10, 30])
    return _on_the_way(scene, scene.cluster.proxy.stall, min(seconds, scene.longest))


@store_fault
def store_refusing(scene):
    """Connections are reset and new ones refused for a while."""
    return _on_the_way(scene, scene.cluster.proxy.refuse, scene.lasts(2, 10))


def _on_the_way(scene, begin, seconds):
    begin()
    try:
        time.sleep(seconds)
    finally:
        scene.cluster.proxy.resume()
    return {"seconds": seconds}


@store_fault
def store_full(scene):
    """The store may hold less than it does, for a while."""
    with scene.cluster.client() as client:
        used = client.info("memory")["used_memory"]
        return _configured(scene, client, "maxmemory", int(used * scene.chance.uniform(0.7, 0.99)), 0)


@store_fault
def store_crowded(scene):
    """The store takes hardly any connections, and those that there were are cut."""
    with scene.cluster.client() as client:
        usual = int(client.config_get("maxclients")["maxclients"])
        few = scene.chance.randint(2, 6)
        return _configured(scene, client, "maxclients", few, usual, then=scene.cluster.proxy.cut)


def _configured(scene, client, name, value, usual, *, then=lambda: None):
    seconds = scene.lasts(3, 10)
    client.config_set(name, value)
    try:
        then()
        time.sleep(seconds)
    finally:
        client.config_set(name, usual)
    return {"seconds": seconds, name: value}


@store_fault
def connections_cut(scene):
    """Every connection to the store is reset."""
    scene.cluster.proxy.cut()


@store_fault
def replies_dropped(scene):
    """Some commands run and their answers never come."""
    return _dropping(scene, scene.cluster.proxy.drop_replies)


@store_fault
def requests_dropped(scene):
    """Some commands never reach the store."""
    return _dropping(scene, scene.cluster.proxy.drop_requests)


def _dropping(scene, drop):
    count = scene.chance.randint(1, 5)
    drop(count)
    until = time.monotonic() + 3
    while scene.cluster.proxy.undropped and time.monotonic() < until:
        time.sleep(0.05)
    drop(0)
    return {"count": count}


# Tickets


@fault
def ticket_lost(scene):
    """A ticket that waits is gone."""
    with scene.cluster.client() as client:
        script = client.register_script(LOSE_TICKET)
        lost = _with_a_ticket(scene, client, lambda place, _: script(keys=[TICKETS], args=[place]))
    return {} if lost else {"missed": "no ticket"}


@fault
def ticket_repeated(scene):
    """A ticket that waits is delivered twice, or ten times more, at either end of the queue."""
    times = scene.chance.choice([1, 1, 10])

    def repeat(_, ticket):
        push = scene.chance.choice([client.lpush, client.rpush])
        return push(TICKETS, *[ticket] * times)

    with scene.cluster.client() as client:
        done = _with_a_ticket(scene, client, repeat)
    return {"times": times} if done else {"missed": "no ticket"}


@fault
def ticket_late(scene):
    """A ticket that was delivered long ago comes again."""
    with scene.cluster.client() as client:
        copied = _with_a_ticket(scene, client, lambda _, ticket: (ticket, client.hgetall(b"rq:job:" + ticket)))
        if not copied or not copied[1]:
            return {"missed": "no ticket"}
        ticket, fields = copied
        time.sleep(scene.lasts(3, 15))
        with client.pipeline() as pipeline:
            pipeline.hset(b"rq:job:" + ticket, mapping=fields)
            pipeline.lpush(TICKETS, ticket)
            pipeline.execute()
    return {}


def _with_a_ticket(scene, client, act):
    """What `act` makes of the place and id of a ticket that waits, as soon as there is one; None without any."""
    until = time.monotonic() + 3
    while time.monotonic() < until:
        waiting = client.lrange(TICKETS, 0, -1)
        if waiting:
            place = scene.chance.randrange(len(waiting))
            return act(place, waiting[place])
        time.sleep(0.02)
    return None
