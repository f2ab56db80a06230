"""The nine invariants of a chaos run, and four more: each a function from the evidence to what violates it."""

import signal
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise

from jobs.status import ENDED, TRANSITIONS, Status
from tests.chaos.gaps import gaps, outages
from tests.chaos.rows import NOT_PROCESSED, allowed_error, is_excused, is_right

WEB_RECOVERY_SECONDS = 10.0  # from the death of a web process until another surely answers
KILLERS = frozenset({"exits", "segfaults", "hangs", "hungry"})


@dataclass(frozen=True)
class Limits:
    """What is allowed."""

    gap_seconds: float = 15.0
    lease_seconds: float = 15.0  # of a worker that is dead
    exit_seconds: float = 10.0  # after SIGTERM
    attempts: int = 3  # counted ones, of a chunk without a row that kills
    attempts_of_search: int = 40  # more of them for each row that kills
    connections: int = 20  # what the smallest hosted store has: for two web processes and two workers
    more_bytes: int = 64 << 20  # of a process, or of the store


def rows(evidence):
    """1: lost = unexpected = duplicated = 0, each row in its place and with its right outcome."""
    account = evidence.account
    for name in ("lost", "unexpected", "duplicated", "shifted"):
        yield from (f"{name}: {key}" for key in getattr(account, name))
    yield from (f"wrong: {text}" for text in account.wrong)
    for event in evidence.of("accepted"):
        if event["response"] is None:
            continue
        submission, said = evidence.submissions[event["number"]], event["response"]
        expected = evidence.expected(submission, "1")
        allowed = allowed_error(submission, expected)
        if not is_right(expected[0], said, allowed) and not is_excused(evidence, event["job"], expected[0], said):
            yield f"wrong: {event['number']}-0: {expected[0]!r} expected, {said!r} answered"


def submissions(evidence):
    """2: a submission is wholly there or wholly absent; with its key there is exactly one job."""
    for number, jobs in evidence.accepted.items():
        if len(jobs) > 1:
            yield f"submission {number} was told of {len(jobs)} jobs: {', '.join(sorted(jobs))}"
    for number in evidence.submissions:
        jobs = evidence.jobs_of(number)
        if len(jobs) > 1:
            yield f"submission {number} has {len(jobs)} jobs: {', '.join(jobs)}"
        if jobs and not evidence.may_have_job(number):
            yield f"submission {number} was never accepted and has the job {jobs[0]}"
    for event in evidence.of("unlisted"):
        yield f"{event['job']} of submission {event['number']} is there, and GET /jobs does not list it"
    for event in evidence.of("repeated"):
        if event["status"] in (200, 202) and (event["job"] != event["first"] or not event["replayed"]):
            yield f"submission {event['number']} was sent again: {event}"


def counters(evidence):
    """3: counters add up and never fall, statuses follow the table, one end."""
    for job, record in evidence.jobs.items():
        if record:
            yield from _counts(job, record, evidence.outcomes[job])
    for job, seen in _sequences(evidence).items():
        yield from _sequence(job, seen)


def _counts(job, record, outcomes):
    progress = record["progress"]
    values = [outcome.value for outcome in outcomes]
    unreached = values.count(NOT_PROCESSED)
    failed = sum(isinstance(value, str) for value in values) - unreached
    counted = (progress["rows_total"], progress["rows_ok"], progress["rows_failed"])
    found = (len(values), len(values) - failed - unreached, failed)
    if record["status"] not in ENDED:
        yield f"{job} is {record['status']} after everything was drained"
    elif counted != found:
        yield f"{job} counts (total, ok, failed) {counted}, its results have {found}"


def _sequences(evidence):
    """Id of each job → what was seen of it, in order: (status, rows done)."""
    seen = defaultdict(list)
    for event in evidence.of("seen"):
        seen[event["job"]].append((event["status"], event["rows_done"]))
    for job, record in evidence.jobs.items():
        if record:
            seen[job].append((record["status"], record["progress"]["rows_done"]))
    return seen


def _sequence(job, seen):
    for (before, done), (after, done_after) in pairwise(seen):
        if after != before and after not in reachable(before):
            yield f"{job} went from {before} to {after}"
        if done_after < done:
            yield f"{job} had {done} rows done, then {done_after}"
    if seen and seen[0][0] == Status.RECEIVING:
        yield f"{seen[0]} of {job} was seen after it had been accepted"


def reachable(status):
    """The statuses that a job may come to from here, over any others."""
    found, ahead = set(), [Status(status)]
    while ahead:
        onward = TRANSITIONS[ahead.pop()] - found
        found |= onward
        ahead += onward
    return found


def attempts(evidence):
    """4: attempts of a chunk stay within the limit; shutdowns count none."""
    for number, submission in evidence.submissions.items():
        for job in evidence.jobs_of(number):
            listed = evidence.jobs[job].get("attempts")
            if listed is None:
                yield f"{job} does not say what was attempted"
                continue
            yield from _attempts(job, listed, _most_attempts(evidence.limits, submission))


def _most_attempts(limits, submission):
    if submission.model not in KILLERS:
        return limits.attempts
    # A single prediction that does no harm dies with those beside it that do, until it is apart from them.
    killers = len(submission.bad) if submission.kind == "batch" else 1
    return limits.attempts + killers * limits.attempts_of_search


def _attempts(job, listed, most):
    counted = Counter(each["chunk"] for each in listed if each["counted"])
    for chunk, count in counted.items():
        if count > most:
            yield f"chunk {chunk} of {job} had {count} counted attempts, {most} are allowed"
    for each in listed:
        if each["counted"] != (each["reason"] != "shutdown"):
            yield f"{job} has the attempt {each}"


def recovery(evidence):
    """5: from a death to the next start of its chunk it is never longer than the limit."""
    for gap in gaps(evidence.events):
        if gap.seconds > evidence.limits.gap_seconds:
            yield f"{gap.chunk} was left alone for {gap.seconds} s"


def keys(evidence):
    """6: every key has an expiry or a reason for none; at the end only the documented ones are left. Jobs are known."""
    yield from sorted({f"{event['key']} has no expiry" for event in evidence.of("unexpiring")})
    for event in evidence.of("left"):
        yield from (f"left over: {key}" for key in event["keys"])
        yield from event["strays"]
    for event in evidence.of("expired"):
        # Only the keys are made to age, not the store's clock: by its id a single prediction cannot have expired yet.
        codes = ("job_expired", "job_lost") if event["what"] == "single" else ("job_expired",)
        if event["status"] != 410 or event["code"] not in codes:
            yield f"{event['what']} {event['job']}, whose results are over, is {event['status']} {event['code']}"


def resources(evidence):
    """7: no lease of a dead worker grows old; connections and memory return to where they were."""
    gone = {event["pid"]: event["at"] for event in evidence.of("death", "exit")[::-1]}
    away = outages(evidence.events)
    for event in evidence.of("held"):
        back = [min(end, event["at"]) for begin, end in away if begin <= event["at"]]
        since = max([gone.get(event["pid"], event["at"]), *back])
        if event["at"] - since > evidence.limits.lease_seconds:
            yield f"{event['member']} was held for {event['at'] - since:.1f} s by a worker that was dead"
    measured = {event["when"]: event for event in evidence.of("resources")}
    yield from _grown(measured["before"], measured["after"], evidence.limits)


def _grown(before, after, limits):
    if after["connections"] > max(before["connections"], limits.connections):
        yield f"{after['connections']} connections, {before['connections']} before"
    for name in ("store_bytes", "web_bytes", "worker_bytes", "predictor_bytes"):
        if after[name] > before[name] + limits.more_bytes:
            yield f"{name}: {after[name] >> 20} MiB, {before[name] >> 20} MiB before"


def answers(evidence):
    """8: answers in time, no 5xx but 503 and 507, each with Retry-After; every error a problem document."""
    web_faults = _web_faults(evidence)
    for event in evidence.of("http"):
        what = f"{event['method']} {event['route']} answered {event['status']} {event['code']}".rstrip()
        if event["seconds"] > event["allowed"] and not _within(event, web_faults):
            yield f"{what} after {event['seconds']} s, {event['allowed']} are allowed"
        if event["status"] >= 500 and (event["status"] not in (503, 507) or event["retry_after"] is None):
            yield f"{what}, Retry-After: {event['retry_after']}"
        if event["status"] >= 400 and not event["code"]:
            yield f"{what} without a code"
        if event["code"] == "internal_error":
            yield f"{what}: something that nobody had foreseen"
    # A download that has begun is cut when the store goes away: nothing else can be said any more.
    excuses = {"GET /jobs/<id>/results": _store_faults(evidence)}
    for event in evidence.of("silence"):
        what = f"{event['method']} {event['route']}"
        if not _within(event, [*web_faults, *excuses.get(what, [])]):
            yield f"{what} got no answer in {event['seconds']} s: {event['error']}"
    for event in evidence.of("refused"):
        facts = {name: value for name, value in event.items() if name != "at"}
        yield f"the client was turned away without a reason: {facts}"


def _store_faults(evidence):
    """The times during which a question to the store may have failed, however short."""
    faults = [event for event in evidence.of("fault") if event["outage"] or event["name"] == "web_replies_lost"]
    return [(event["began"], event["at"] + 1) for event in faults]


def _web_faults(evidence):
    """The times during which a web process was dead or frozen, and while another took its place."""
    found, stopped = [], {}
    for event in evidence.of("death", "stopped", "continued"):
        if event["kind"] == "death" and event["what"].startswith("web"):
            # One that was frozen when it was killed answered nobody since then.
            found.append((stopped.get(event["pid"], event["at"] - 0.5), event["at"] + WEB_RECOVERY_SECONDS))
        elif event["kind"] == "stopped":
            stopped[event["pid"]] = event["at"]
        elif event["kind"] == "continued" and event.get("web"):
            found.append((stopped.pop(event["pid"]), event["at"] + WEB_RECOVERY_SECONDS))
    return found


def _within(event, times):
    return any(begin <= event["at"] and event["began"] <= end for begin, end in times)


def canaries(evidence):
    """9: nothing that was planted stands in a log line, an error body or a key of the store."""
    yield from (f"{event['method']} {event['route']} repeats one" for event in evidence.of("http") if event["leaks"])
    yield from (f"one stands in {event['where']}" for event in evidence.of("leak"))


def downloads(evidence):
    """Two downloads of a result are the same bytes, also when one was broken off and resumed."""
    last = {event["job"]: event["sha256"] for event in evidence.of("final")}
    for event in evidence.of("downloaded"):
        if last.get(event["job"], event["sha256"]) != event["sha256"]:
            yield f"the results of {event['job']} are not the bytes that they were"
    for event in evidence.of("changed"):
        yield f"the ETag of {event['job']} changed during a download"


def events(evidence):
    """Who follows a job by its events is told of its end as it is, and from then on nothing more."""
    for event in evidence.of("told"):
        record = evidence.jobs.get(event["job"])
        if record and _end(event, event) != _end(record, record["progress"]):
            yield f"{event['job']} was told to be {_end(event, event)} and is {_end(record, record['progress'])}"
    # While the store is away nobody can say that there is nothing more, and a browser would not come back after a 503.
    excuses = _store_faults(evidence)
    for event in evidence.of("told_again"):
        if event["status"] != 204 and not _within(event, excuses):
            yield f"who knew of the end of {event['job']} was answered {event['status']}"


def _end(record, progress):
    return record["status"], *(progress[name] for name in ("rows_total", "rows_ok", "rows_failed"))


def processes(evidence):
    """No process ends but by a fault; on SIGTERM it ends in time, with exit code 0."""
    for event in evidence.of("exit"):
        if not event["wanted"]:
            yield f"{event['name']} ({event['pid']}) ended by itself with {event['code']}"
    began = {event["pid"] for event in evidence.of("announced")}
    hit = defaultdict(list)
    for event in evidence.of("death", "stopped"):
        hit[event["pid"]].append(event["at"])
    began = {event["pid"]: event["at"] for event in evidence.of("announced")[::-1]}
    for event in evidence.of("terminated"):
        if event["code"] == -signal.SIGTERM and began.get(event["pid"], event["at"]) >= event["at"]:
            continue  # it was still starting: there was nothing yet that could be lost, and nobody to listen
        if any(at > event["at"] - event["seconds"] - 60 for at in hit[event["pid"]]):
            continue  # another fault has hit it too
        if event["code"] == -signal.SIGTERM and event["pid"] not in began:
            continue  # it had only just been started
        if event["seconds"] > evidence.limits.exit_seconds or event["code"] != 0:
            yield f"SIGTERM, {event['times']} times: exit {event['code']} after {event['seconds']:.1f} s"


def drained(evidence):
    """After the faults everything comes to its end in time, and the harness did all that it was to do."""
    for event in evidence.of("unended", "given_up"):
        yield f"submission {event['number']}: {event['kind']}"
    yield from (event["what"] for event in evidence.of("broken"))


CHECKS = (
    rows,
    submissions,
    counters,
    attempts,
    recovery,
    keys,
    resources,
    answers,
    canaries,
    downloads,
    events,
    processes,
    drained,
)


def check(evidence):
    """Every check by its name: whether it holds, what it says, and what violates it."""
    return {
        function.__name__: {"says": function.__doc__.strip(), **_verdict(list(function(evidence)))}
        for function in CHECKS
    }


def _verdict(violations):
    return {"holds": not violations, "violations": len(violations), "examples": violations[:20]}
