"""The accounting of rows, as Jepsen's queue checker does it: nothing lost, nothing unexpected, nothing twice."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.chaos.submissions import LINEAR, LONG_IN_DYING, POISON, TOLERANCE

NOT_PROCESSED = "not_processed"


class Outcome(NamedTuple):
    """What came out for one row: its name (None when the result does not tell), a prediction or an error's code."""

    key: str | None
    value: float | str


@dataclass
class Account:
    """Rows by what became of them; the lists hold rows' names, `wrong` says what was to come and what came."""

    attempted: int = 0
    accepted: int = 0
    ok: int = 0
    recovered: int = 0  # of submissions that nobody knew of whether they had been accepted
    not_processed: int = 0
    deleted: int = 0
    lost: list = field(default_factory=list)
    unexpected: list = field(default_factory=list)
    duplicated: list = field(default_factory=list)
    shifted: list = field(default_factory=list)
    wrong: list = field(default_factory=list)


def take_account(evidence):
    """What became of every row that was ever submitted."""
    account = Account()
    for number, submission in evidence.submissions.items():
        account.attempted += submission.rows
        _submission(account, evidence, number, submission)
    for job in evidence.strange_jobs:
        account.unexpected += [outcome.key or f"a row of {job}" for outcome in evidence.outcomes[job]]
    return account


def _submission(account, evidence, number, submission):
    jobs = evidence.jobs_of(number)
    accepted = number in evidence.accepted
    if accepted:
        account.accepted += submission.rows
    if evidence.was_deleted(number):
        account.deleted += submission.rows
        return
    if not jobs:
        account.lost += submission.keys() if accepted else []
        return
    first, *others = jobs
    for job in others:
        account.duplicated += [outcome.key or submission.key(row) for row, outcome in enumerate(evidence.outcomes[job])]
    if not evidence.may_have_job(number):
        account.unexpected += [outcome.key or submission.key(0) for outcome in evidence.outcomes[first]]
        return
    if not accepted:
        account.recovered += submission.rows
    _compare(account, evidence, submission, first)


def _compare(account, evidence, submission, job):
    """One job's outcomes with what was submitted: the same rows in the same places, with the right values."""
    outcomes, wanted = evidence.outcomes[job], submission.keys()
    found = [
        wanted[place] if each.key is None and place < len(wanted) else each.key for place, each in enumerate(outcomes)
    ]
    if found != wanted:
        _misplaced(account, wanted, found)
        return
    was_canceled = evidence.status(job) == "canceled"
    expected = evidence.expected(submission, evidence.version(job))
    allowed = allowed_error(submission, expected)
    for key, right, (_, value) in zip(wanted, expected, outcomes, strict=True):
        if was_canceled and value == NOT_PROCESSED:
            account.not_processed += 1
        elif is_right(right, value, allowed) or is_excused(evidence, job, right, value):
            account.ok += 1
        else:
            account.wrong.append(f"{key}: {right!r} expected, {value!r} came")


def _misplaced(account, wanted, found):
    counts, known = Counter(found), set(wanted)
    lost = [key for key in wanted if key not in counts]
    unexpected = [str(key) for key in counts if key not in known]
    duplicated = [key for key in wanted if counts[key] > 1]
    account.lost += lost
    account.unexpected += unexpected
    account.duplicated += duplicated
    if not (lost or unexpected or duplicated):
        account.shifted += [key for key, other in zip(wanted, found, strict=True) if key != other]


def allowed_error(submission, expected):
    """By how much a prediction may be off."""
    return TOLERANCE * largest(expected) if submission.model == LINEAR else 0.0


def is_right(right, value, allowed):
    """Whether an outcome is the expected one: an error's code, or a number that is at most `allowed` off."""
    if isinstance(right, str) or isinstance(value, str):
        return right == value
    return abs(right - value) <= allowed


def is_excused(evidence, job, right, value):
    """Whether a row that is slow in dying was killed by a fault on top of it: nobody can tell whose doing that was."""
    slow = {POISON[model] for model in LONG_IN_DYING}
    return right in slow and value == POISON["exits"] and evidence.was_hit(job)


def largest(expected):
    """The largest magnitude among the predictions."""
    return max((abs(value) for value in expected if not isinstance(value, str)), default=0.0)
