"""Looks into the store while the run goes on, past the proxy: keys, leases, connections, memory."""

import threading
import time

import redis

from tests.chaos.cluster import TICKETS, descendants, is_running, resident_bytes

PERIOD_SECONDS = 0.5
# The head of jobs/store.py says of these that they never go, or that they are gone when nothing is in them.
LASTING = frozenset(
    f"qc:{name}"
    for name in ("generation", "batches", "singles", "receiving", "leases", "inboxes", "promised", "workers")
)
# What may still be there when all results are over, and when everything is.
WITHOUT_MEMORIES = ("qc:generation", "qc:swept", "qc:turn", "qc:worker", "qc:served:")
WITHOUT_RESULTS = (*WITHOUT_MEMORIES, "qc:rate:", "qc:jobs:", "qc:tombstone:", "qc:idempotency:")
INTERMEDIATE = f"{TICKETS}:intermediate"
LATEST_DROP_SECONDS = 600
LIVING = (b"qc:worker", b"qc:served:")


class Watch:
    """Samples the store twice a second in a thread of its own; `canaries` must stand in no key."""

    def __init__(self, cluster, journal, canaries):
        self._cluster = cluster
        self._journal = journal
        self._canaries = [canary.encode() for canary in canaries]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples = 0

    def start(self):
        """Begins to look."""
        self._thread.start()

    def stop(self):
        """Looks no more."""
        self._stop.set()
        self._thread.join()

    def _run(self):
        with self._cluster.client() as client:
            while not self._stop.wait(PERIOD_SECONDS):
                try:
                    self._look(client)
                    self.samples += 1
                except redis.RedisError:
                    continue  # the store is away just now

    def _look(self, client):
        for name in unexpiring(client):
            self._journal.note("unexpiring", key=name)
        for name in client.scan_iter(count=1000):
            if any(canary in name for canary in self._canaries):
                self._journal.note("leak", where="a key of the store")
        for member, worker in held(client):
            pid = int(worker.split("-")[-2])
            if not is_running(pid):
                self._journal.note("held", member=member, pid=pid)


def unexpiring(client):
    """Keys of ours that would stay for ever and should not."""
    names = list(client.scan_iter("qc:*", count=1000))
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.pttl(name)
        lives = pipeline.execute()
    return [
        name.decode() for name, life in zip(names, lives, strict=True) if life == -1 and name.decode() not in LASTING
    ]


def held(client):
    """What is leased at this moment, as "id index", and by which worker."""
    members = [member.decode() for member in client.zrange("qc:leases", 0, -1)]
    with client.pipeline(transaction=False) as pipeline:
        for job, index in (member.split() for member in members):
            if index == "s":
                pipeline.hget(f"qc:job:{job}", "lease")
            else:
                pipeline.hget(f"qc:job:{job}:leases", index)
        leases = pipeline.execute()
    found = [(member, (lease or b"").decode().split()) for member, lease in zip(members, leases, strict=True)]
    return [(member, lease[1]) for member, lease in found if len(lease) > 1]


def resources(cluster):
    """Connections to the store and memory of every process, at a quiet moment."""
    with cluster.client() as client:
        memory, clients = client.info("memory"), client.info("clients")
    return {
        "connections": clients["connected_clients"],
        "store_bytes": memory["used_memory"],
        "web_bytes": max(map(resident_bytes, descendants(cluster.web.pid)), default=0),
        "worker_bytes": max(resident_bytes(worker.pid) for worker in cluster.workers),
        "predictor_bytes": max(
            (resident_bytes(pid) for worker in cluster.workers for pid in descendants(worker.pid)), default=0
        ),
    }


def age(client, seconds):
    """Has so much time pass for our keys, but for those of live workers: what would expire by then goes."""
    for name in list(client.scan_iter("qc:*", count=1000)):
        life = client.pttl(name)
        if name.startswith(LIVING) or life < 0:
            continue
        if life <= seconds * 1000:
            client.delete(name)
        else:
            client.pexpire(name, life - int(seconds * 1000))


def leftovers(client, remaining):
    """Our keys that begin with none of these."""
    return sorted(
        name.decode() for name in client.scan_iter("qc:*", count=1000) if not name.decode().startswith(remaining)
    )


def strays(client, settled):
    """Members of RQ's lists, sets and registries without a hash, and tickets in no list that do not expire.

    Not `settled`: RQ has not had the minute or two after which it looks through what was popped and never begun.
    """
    found, referred = [], set()
    for name in (key.decode() for key in client.scan_iter("rq:*", count=1000)):
        goes = client.pttl(name) > 0 or (name == INTERMEDIATE and not settled)
        for member, drop_at in _members(client, name):
            named = _hash_of(name, member)
            referred.add(named)
            if not goes and not drop_at and not client.exists(named):
                found.append(f"{name} names {named}, which is not there")
    tickets = {name.decode() for name in client.scan_iter("rq:job:*", count=1000)}
    forgotten = [name for name in tickets - referred if client.pttl(name) == -1]
    return sorted([*found, *(f"{name} is in no list and does not expire" for name in forgotten)])


def _members(client, name):
    """The members of one of RQ's keys, each with the moment in the near future when RQ drops it, or None.

    That moment is in a registry's score, by the clock of whoever put it there: in these runs it may be 300 s late.
    """
    kind = client.type(name)
    if kind == b"zset":
        now = client.time()[0]
        dated = client.zrange(name, 0, -1, withscores=True)
        return [(member.decode(), at if now < at < now + LATEST_DROP_SECONDS else None) for member, at in dated]
    if kind == b"list":
        return [(member.decode(), None) for member in client.lrange(name, 0, -1)]
    if kind == b"set" and name.startswith("rq:workers"):
        return [(member.decode(), None) for member in client.smembers(name)]
    return []


def _hash_of(name, member):
    """The hash that a member of one of RQ's keys is for."""
    if name.startswith("rq:workers"):
        return member
    if name.startswith("rq:executions:"):
        return f"rq:execution:{name.removeprefix('rq:executions:')}:{member}"
    return f"rq:job:{member.partition(':')[0]}"


def quiet(cluster, seconds):
    """Waits until no ticket waits and nothing is leased; True when that came in time."""
    until = time.monotonic() + seconds
    with cluster.client() as client:
        while time.monotonic() < until:
            if not client.exists(TICKETS, "qc:leases", "qc:batches", "qc:singles"):
                return True
            time.sleep(0.2)
    return False
