"""When which fault happens: drawn from a seed, so that a run can be repeated."""

import random
from dataclasses import dataclass

# How often each class comes, relative to the others. tests/chaos/faults.py has what each of them does.
LONG = {
    "worker_killed": 4,
    "parent_killed": 3,
    "predictor_killed": 4,
    "worker_terminated": 4,
    "worker_frozen": 2,
    "workers_replaced": 1,
    "model_renewed": 1,
    "web_process_killed": 3,
    "web_killed": 2,
    "web_frozen": 1,
    "store_killed": 2,
    "store_stalled": 2,
    "store_refusing": 2,
    "store_full": 2,
    "store_crowded": 2,
    "connections_cut": 3,
    "replies_dropped": 4,
    "requests_dropped": 3,
    "ticket_lost": 3,
    "ticket_repeated": 3,
    "ticket_late": 2,
    "worker_failpoints": 4,
    "web_failpoints": 3,
    "worker_replies_lost": 3,
    "web_replies_lost": 2,
}
# What is over soon, so that the short form is.
SHORT = {
    "worker_killed": 2,
    "parent_killed": 1,
    "predictor_killed": 2,
    "worker_terminated": 2,
    "web_process_killed": 1,
    "store_killed": 1,
    "connections_cut": 1,
    "replies_dropped": 2,
    "requests_dropped": 1,
    "ticket_lost": 1,
    "ticket_repeated": 1,
    "worker_failpoints": 2,
    "worker_replies_lost": 2,
    "web_replies_lost": 1,
}


@dataclass(frozen=True)
class Planned:
    """One fault: when it begins, in seconds from the start, and the seed of everything that is random about it."""

    after: float
    name: str
    seed: str


def schedule(seed, seconds, mix, pause):
    """The faults of a run of so many seconds, `pause` seconds apart on average: each class once, then by weight."""
    chance = random.Random(f"schedule {seed}")
    names = sorted(mix)
    first = chance.sample(names, len(names))
    planned, after = [], 1.0
    while after < seconds:
        name = first.pop() if first else chance.choices(names, [mix[name] for name in names])[0]
        planned.append(Planned(after, name, f"{seed} {len(planned)} {name}"))
        after += chance.uniform(0.2, 1.8) * pause
    return planned
