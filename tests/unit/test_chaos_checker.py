"""The checker of the chaos runs: whatever goes wrong in a made-up run, it is found."""

import pytest

from tests.chaos.checker import Limits, check
from tests.chaos.evidence import Evidence, csv_outcomes, ndjson_outcomes
from tests.chaos.gaps import gaps
from tests.chaos.report import histogram, report
from tests.chaos.rows import Outcome
from tests.chaos.submissions import Submission, key_of

RESOURCES = {"connections": 8, "store_bytes": 0, "web_bytes": 0, "worker_bytes": 0, "predictor_bytes": 0}


def record(status="succeeded", ok=3, failed=0, total=None, attempts=()):
    progress = {"rows_total": ok + failed if total is None else total, "rows_ok": ok, "rows_failed": failed}
    progress["rows_done"] = ok + failed
    model = {"name": "identity", "version": "1"}
    return {"status": status, "progress": progress, "attempts": list(attempts), "kind": "batch", "model": model}


def right(submission, version):
    return [submission.bad.get(row, float(row)) for row in range(submission.rows)]


def outcomes(number, rows=3):
    return [Outcome(f"{number}-{row}", float(row)) for row in range(rows)]


class MadeUp:
    """A run in which everything went well, to be spoilt: two accepted submissions, one of unknown answer, one job."""

    def __init__(self):
        self.submissions = {number: Submission(number, "batch", "identity", 3, "csv") for number in (1, 2, 3)}
        self.jobs = {"a": record(), "b": record(), "c": record()}
        self.outcomes = {"a": outcomes(1), "b": outcomes(2), "c": outcomes(3)}
        self.events = [
            *(self.event(at, "attempt", number=at, attempt=1) for at in (1, 2, 3)),
            self.event(4, "accepted", number=1, job="a", replayed=False, response=None),
            self.event(5, "accepted", number=2, job="b", replayed=False, response=None),
            self.event(6, "unknown", number=3),
            self.event(7, "resources", when="before", **RESOURCES),
            self.event(900, "resources", when="after", **RESOURCES),
            self.event(901, "left", keys=[], strays=[]),
        ]

    @staticmethod
    def event(at, kind, **facts):
        return {"at": at, "kind": kind, **facts}

    def add(self, at, kind, **facts):
        self.events.append(self.event(at, kind, **facts))

    def add_http(self, **changes):
        usual = {"method": "GET", "route": "/jobs/<id>", "began": 10, "status": 200, "code": "", "seconds": 0.1}
        self.add(11, "http", **{**usual, "allowed": 5, "retry_after": None, "leaks": False, **changes})

    @property
    def evidence(self):
        return Evidence(
            submissions=self.submissions,
            events=sorted(self.events, key=lambda event: event["at"]),
            jobs=self.jobs,
            outcomes=self.outcomes,
            expected=right,
            limits=Limits(),
        )

    def violated(self):
        """The names of the checks that do not hold, and all they say."""
        found = {name: each["examples"] for name, each in check(self.evidence).items() if not each["holds"]}
        return set(found), " | ".join(text for examples in found.values() for text in examples)


@pytest.fixture
def run():
    return MadeUp()


def test_run_in_which_everything_went_well_holds(run):
    assert run.violated() == (set(), "")
    account = run.evidence.account
    assert (account.attempted, account.accepted, account.ok, account.recovered) == (9, 6, 9, 3)
    assert report(run.evidence, seed=1)["holds"]


def test_lost_row_is_found(run):
    del run.outcomes["a"][1]
    run.jobs["a"] = record(ok=2)
    names, text = run.violated()
    assert names == {"rows"}
    assert text == "lost: 1-1"


def test_accepted_submission_of_which_nothing_is_there_is_lost(run):
    run.jobs["a"] = None
    run.add(20, "gone", number=1, job="a", code="job_expired")
    assert run.evidence.account.lost == ["1-0", "1-1", "1-2"]
    assert "rows" in run.violated()[0]


def test_submission_that_its_owner_deleted_is_not_lost(run):
    run.jobs["a"] = None
    run.add(19, "ending", number=1, job="a", how="delete")
    run.add(20, "gone", number=1, job="a", code="job_deleted")
    assert run.violated() == (set(), "")
    assert run.evidence.account.deleted == 3


def test_job_that_is_gone_for_another_reason_than_its_deletion_is_lost(run):
    run.jobs["a"] = None
    run.add(19, "ending", number=1, job="a", how="delete")
    run.add(20, "gone", number=1, job="a", code="job_lost")
    assert run.evidence.account.lost


def test_duplicated_row_is_found(run):
    run.outcomes["a"].append(Outcome("1-2", 2.0))
    run.jobs["a"] = record(ok=4)
    assert run.violated() == ({"rows"}, "duplicated: 1-2")


def test_second_job_of_a_submission_is_found_though_the_client_was_never_told_of_it(run):
    run.jobs["d"], run.outcomes["d"] = record(), outcomes(1)
    names, text = run.violated()
    assert names == {"rows", "submissions"}
    assert "duplicated: 1-0" in text
    assert "submission 1 has 2 jobs" in text


def test_two_jobs_for_one_key_are_found(run):
    run.add(8, "accepted", number=1, job="b2", replayed=False, response=None)
    run.jobs["b2"], run.outcomes["b2"] = record(), outcomes(1)
    assert "submission 1 was told of 2 jobs" in run.violated()[1]


def test_job_that_is_not_listed_is_found(run):
    run.add(900, "unlisted", number=1, job="a")
    assert run.violated()[0] == {"submissions"}


def test_replay_that_is_not_marked_as_one_is_found(run):
    run.add(8, "repeated", number=1, job="a", first="a", status=202, replayed=False)
    assert run.violated()[0] == {"submissions"}


def test_unexpected_row_is_found(run):
    run.outcomes["a"][1] = Outcome("2-1", 1.0)
    assert "unexpected: 2-1" in run.violated()[1]


def test_job_of_a_submission_that_was_never_accepted_is_unexpected(run):
    run.events = [event for event in run.events if event["kind"] != "unknown"]
    names, text = run.violated()
    assert names == {"rows", "submissions"}
    assert "unexpected: 3-0" in text


def test_job_that_nobody_submitted_is_unexpected(run):
    run.jobs["d"], run.outcomes["d"] = record(), [Outcome("77-0", 0.0)] * 3
    assert run.evidence.account.unexpected == ["77-0"] * 3


def test_submission_of_unknown_answer_that_is_there_in_part_is_found(run):
    run.outcomes["c"].pop()
    run.jobs["c"] = record(ok=2)
    assert run.violated() == ({"rows"}, "lost: 3-2")


def test_shifted_rows_are_found(run):
    first, second, third = run.outcomes["a"]
    run.outcomes["a"] = [second, first, third]
    assert run.violated() == ({"rows"}, "shifted: 1-0 | shifted: 1-1")


def test_value_under_another_rows_name_is_found(run):
    run.outcomes["a"][1] = Outcome("1-1", 2.0)
    assert run.violated() == ({"rows"}, "wrong: 1-1: 1.0 expected, 2.0 came")


def test_error_where_a_prediction_was_to_come_is_found(run):
    run.outcomes["a"][1] = Outcome("1-1", "worker_crashed")
    run.jobs["a"] = record(ok=2, failed=1)
    assert run.violated() == ({"rows"}, "wrong: 1-1: 1.0 expected, 'worker_crashed' came")


def test_poisoned_row_with_another_error_than_its_own_is_found(run):
    run.submissions[1] = Submission(1, "batch", "hangs", 3, "csv", bad={1: "timeout"})
    run.outcomes["a"][1] = Outcome("1-1", "timeout")
    run.jobs["a"] = record(ok=2, failed=1)
    assert run.violated() == (set(), "")
    run.outcomes["a"][1] = Outcome("1-1", "worker_crashed")
    assert run.violated()[0] == {"rows"}


def test_row_that_hangs_may_be_taken_for_one_that_crashes_only_if_its_predictor_was_killed(run):
    run.submissions[1] = Submission(1, "batch", "hangs", 3, "csv", bad={1: "timeout"})
    run.outcomes["a"][1] = Outcome("1-1", "worker_crashed")
    run.jobs["a"] = record(ok=2, failed=1)
    run.add(10, "leased", pid=1, job="a", chunk="0", token="t")
    run.add(11, "released", pid=1, job="a", chunk="0", token="t")
    assert run.violated()[0] == {"rows"}
    run.add(10.5, "child_death", pid=1, child=2)
    assert run.violated() == (set(), "")


def test_row_that_was_not_processed_is_right_only_in_a_canceled_job(run):
    run.outcomes["a"][2] = Outcome("1-2", "not_processed")
    run.jobs["a"] = record("canceled", ok=2, total=3)
    assert run.violated() == (set(), "")
    run.jobs["a"] = record("succeeded", ok=2, total=3)
    assert run.violated()[0] == {"rows"}


def test_answer_with_a_wrong_prediction_is_found(run):
    run.add(8, "accepted", number=2, job="b", replayed=True, response=7.0)
    assert run.violated() == ({"rows"}, "wrong: 2-0: 0.0 expected, 7.0 answered")


def test_answer_with_a_wrong_error_is_found(run):
    run.submissions[2] = Submission(2, "predict", "exits", bad={0: "worker_crashed"})
    run.jobs["b"], run.outcomes["b"] = record("failed", ok=0, failed=1), [Outcome("2-0", "worker_crashed")]
    run.events = [event for event in run.events if event.get("number") != 2]
    run.add(8, "accepted", number=2, job="b", replayed=False, response="worker_crashed")
    assert run.violated() == (set(), "")
    run.add(9, "accepted", number=2, job="b", replayed=True, response="model_error")
    assert run.violated()[0] == {"rows"}


def test_last_bit_of_a_linear_model_may_differ_and_no_more(run):
    run.submissions[1] = Submission(1, "batch", "housing", 3, "csv")
    run.outcomes["a"][1] = Outcome("1-1", 1.0 + 1e-12)
    assert run.violated() == (set(), "")
    run.outcomes["a"][1] = Outcome("1-1", 1.0 + 1e-11)
    assert run.violated()[0] == {"rows"}


def test_status_that_the_table_does_not_lead_to_is_found(run):
    run.add(8, "seen", job="a", status="running", rows_done=0)
    run.add(9, "seen", job="a", status="queued", rows_done=0)
    names, text = run.violated()
    assert names == {"counters"}
    assert text == "a went from running to queued"


def test_statuses_that_were_passed_between_two_looks_are_allowed(run):
    run.add(8, "seen", job="a", status="queued", rows_done=0)
    assert run.violated() == (set(), "")


def test_end_that_is_left_again_is_found(run):
    run.add(8, "seen", job="a", status="failed", rows_done=0)
    assert run.violated() == ({"counters"}, "a went from failed to succeeded")


def test_counter_that_falls_is_found(run):
    run.add(8, "seen", job="a", status="running", rows_done=2)
    run.add(9, "seen", job="a", status="running", rows_done=1)
    assert run.violated() == ({"counters"}, "a had 2 rows done, then 1")


def test_counters_that_do_not_add_up_are_found(run):
    run.jobs["a"] = record(ok=2, failed=0, total=3)
    assert run.violated()[0] == {"counters"}


def test_job_that_has_not_ended_is_found(run):
    run.jobs["a"] = record("running")
    assert run.violated() == ({"counters"}, "a is running after everything was drained")


def test_too_many_attempts_and_counted_shutdowns_are_found(run):
    crash = {"chunk": 0, "reason": "crashed", "counted": True}
    run.jobs["a"] = record(attempts=[crash] * 3)
    assert run.violated() == (set(), "")
    run.jobs["a"] = record(attempts=[crash] * 4)
    assert run.violated()[0] == {"attempts"}
    run.jobs["a"] = record(attempts=[{"chunk": 0, "reason": "shutdown", "counted": True}])
    assert run.violated()[0] == {"attempts"}


def test_single_beside_some_that_kill_may_have_been_tried_more_often(run):
    crash = {"chunk": None, "reason": "crashed", "counted": True}
    run.submissions[1] = Submission(1, "single", "exits")
    run.jobs["a"], run.outcomes["a"] = record(ok=1, attempts=[crash] * 4), outcomes(1, rows=1)
    assert run.violated() == (set(), "")
    run.submissions[1] = Submission(1, "single", "identity")
    assert run.violated()[0] == {"attempts"}


def test_job_that_is_silent_about_its_attempts_is_found(run):
    del run.jobs["a"]["attempts"]
    assert run.violated()[0] == {"attempts"}


def death(run, after):
    """A worker that dies with a chunk, which another takes `after` seconds later; a third is there all the time."""
    run.add(10, "announced", pid=3, state="idle")
    run.add(11, "leased", pid=1, job="a", chunk="0", token="t1")
    run.add(12, "death", pid=1, what="worker-1 killed")
    run.add(12 + after, "leased", pid=2, job="a", chunk="0", token="t2")


def test_chunk_that_was_left_alone_for_too_long_is_found(run):
    death(run, 14)
    assert run.violated() == (set(), "")
    death(run, 16)
    run.events = [event for event in run.events if event["at"] != 26]
    assert run.violated() == ({"recovery"}, "a 0 was left alone for 16 s")


def test_chunk_that_was_handed_in_before_the_death_was_not_left_alone(run):
    death(run, 16)
    run.add(11.5, "released", pid=1, job="a", chunk="0", token="t1")
    assert run.violated() == (set(), "")


def test_time_without_a_store_or_a_worker_does_not_count(run):
    death(run, 16)
    run.add(20, "fault", name="store_killed", began=15, outage=True)
    (gap,) = gaps(run.evidence.events)
    assert (gap.seconds, gap.disturbed) == (8, True)
    run.add(12.5, "death", pid=3, what="worker-3 killed")
    run.add(26, "announced", pid=4, state="idle")
    (gap,) = gaps(run.evidence.events)
    assert gap.seconds == 2


def test_time_in_which_all_workers_are_at_something_that_takes_long_does_not_count(run):
    death(run, 16)
    run.add(9, "continued", pid=9, web=True)
    run.add(13, "leased", pid=3, job="b", chunk="0", token="t3")
    run.add(20, "announced", pid=3, state="busy")
    run.add(23, "released", pid=3, job="b", chunk="0", token="t3")
    (gap,) = gaps(run.evidence.events)
    assert gap.seconds == 5


def test_time_until_the_loss_of_a_worker_that_was_at_something_long_does_not_count(run):
    death(run, 16)
    run.add(13, "leased", pid=3, job="b", chunk="0", token="t3")
    run.add(14, "announced", pid=3, state="busy")
    run.add(24, "death", pid=3, what="worker-3 killed")
    run.add(25, "announced", pid=4, state="idle")
    (gap,) = gaps(run.evidence.events)
    assert gap.seconds == 3


def test_key_without_expiry_and_what_is_left_over_are_found(run):
    run.add(9, "unexpiring", key="qc:job:a:rows")
    assert run.violated()[0] == {"keys"}
    run.events = [event for event in run.events if event["kind"] not in ("unexpiring", "left")]
    run.add(901, "left", keys=["qc:job:a"], strays=["rq:queue:x names y, which is not there"])
    assert run.violated() == ({"keys"}, "left over: qc:job:a | rq:queue:x names y, which is not there")


def test_job_of_which_nobody_knows_any_more_that_it_was_there_is_found(run):
    run.add(902, "expired", job="a", what="single", status=410, code="job_expired")
    assert run.violated() == (set(), "")
    run.add(902, "expired", job="b", what="batch", status=404, code="unknown_job")
    assert run.violated() == ({"keys"}, "batch b, whose results are over, is 404 unknown_job")


def test_old_lease_of_a_dead_worker_is_found(run):
    run.add(10, "announced", pid=3, state="idle")
    run.add(12, "death", pid=1, what="worker-1 killed")
    run.add(26, "held", member="a 0", pid=1)
    assert run.violated() == (set(), "")
    run.add(28, "held", member="a 0", pid=1)
    assert run.violated()[0] == {"resources"}
    run.add(40, "fault", name="store_stalled", began=20, outage=True)
    assert run.violated() == (set(), "")


@pytest.mark.parametrize("grown", [{"connections": 21}, {"web_bytes": 80 << 20}])
def test_connections_and_memory_that_do_not_return_are_found(run, grown):
    run.add(902, "resources", when="after", **RESOURCES | grown)
    assert run.violated()[0] == {"resources"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds": 5.1},
        {"status": 500, "code": "broken", "retry_after": 2},
        {"status": 503, "code": "internal_error", "retry_after": 2},
        {"status": 502, "code": "bad_gateway", "retry_after": 2},
        {"status": 503, "code": "queue_unavailable"},
        {"status": 404},
    ],
)
def test_late_or_improper_answer_is_found(run, wrong):
    run.add_http(status=503, code="queue_unavailable", retry_after=2)
    assert run.violated() == (set(), "")
    run.add_http(**wrong)
    assert run.violated()[0] == {"answers"}


def test_silence_is_found_unless_a_web_process_died(run):
    run.add(11, "silence", method="GET", route="/jobs/<id>", began=10, seconds=1, allowed=5, error="reset")
    assert run.violated()[0] == {"answers"}
    run.add(10.5, "death", pid=9, what="web process killed")
    assert run.violated() == (set(), "")


@pytest.mark.parametrize(("stopped_at", "is_excused"), [(10.5, True), (12, False)])
def test_silence_is_no_fault_of_a_web_process_that_was_killed_while_it_was_frozen(run, stopped_at, is_excused):
    run.add(11, "silence", method="GET", route="/jobs/<id>/events", began=9, seconds=2, allowed=2, error="timed out")
    run.add(stopped_at, "stopped", pid=9, web=True)
    run.add(20, "death", pid=9, what="web process killed")
    assert run.violated()[0] == (set() if is_excused else {"answers"})


def test_download_that_breaks_off_is_found_unless_the_store_was_away(run):
    run.add(11, "silence", method="GET", route="/jobs/<id>/results", began=10, seconds=1, allowed=5, error="cut")
    assert run.violated()[0] == {"answers"}
    run.add(10.5, "fault", name="web_replies_lost", began=9, outage=False)
    assert run.violated() == (set(), "")


def test_refusal_without_a_reason_is_found(run):
    run.add(9, "refused", number=1, status=404, code="unknown_job", job="a")
    assert run.violated()[0] == {"answers"}


def test_canary_is_found(run):
    run.add_http(leaks=True, status=400, code="invalid_json")
    assert run.violated()[0] == {"canaries"}
    run.add(9, "leak", where="web.log: key")
    assert "one stands in web.log: key" in run.violated()[1]


def test_results_that_change_after_the_end_are_found(run):
    run.add(20, "downloaded", number=1, job="a", sha256="1", bytes=9)
    run.add(900, "final", job="a", sha256="1")
    assert run.violated() == (set(), "")
    run.add(21, "downloaded", number=1, job="a", sha256="2", bytes=9)
    assert run.violated()[0] == {"downloads"}


def told(status="succeeded", ok=3):
    counts = {"rows_total": 3, "rows_done": 3, "rows_ok": ok, "rows_failed": 0}
    return {"number": 1, "job": "a", "connections": 1, "status": status, **counts}


@pytest.mark.parametrize("wrong", [{"status": "canceled"}, {"ok": 2}])
def test_end_that_was_told_otherwise_than_it_is_is_found(run, wrong):
    run.add(20, "told", **told())
    assert run.violated() == (set(), "")
    run.add(21, "told", **told(**wrong))
    assert run.violated()[0] == {"events"}


def test_events_for_who_knew_of_the_end_are_found(run):
    run.add(20, "told_again", number=1, job="a", began=20, status=204)
    assert run.violated() == (set(), "")
    run.add(21, "told_again", number=1, job="a", began=21, status=200)
    assert run.violated() == ({"events"}, "who knew of the end of a was answered 200")
    run.add(22, "fault", name="store_killed", began=19, outage=True)
    assert run.violated() == (set(), "")


def test_process_that_ends_by_itself_or_too_late_is_found(run):
    run.add(9, "exit", name="worker-1", pid=1, code=1, wanted=False)
    assert run.violated()[0] == {"processes"}
    run.events.pop()
    run.add(9, "terminated", pid=1, times=2, seconds=9.0, code=0)
    assert run.violated() == (set(), "")
    run.add(9, "terminated", pid=4, times=1, seconds=0.1, code=-15)
    assert run.violated() == (set(), "")
    run.add(8, "announced", pid=4, state="idle")
    assert run.violated()[0] == {"processes"}
    run.events = run.events[:-2]
    run.add(9, "terminated", pid=2, times=2, seconds=11.0, code=0)
    run.add(9, "terminated", pid=3, times=2, seconds=1.0, code=1)
    assert run.violated()[1].count("SIGTERM") == 2


def test_worker_that_ends_by_the_signal_itself_is_found_unless_it_was_still_starting(run):
    run.add(5, "announced", pid=1, worker="w", state="idle")
    run.add(9, "terminated", pid=1, times=1, seconds=0.1, code=-15)
    run.add(9, "terminated", pid=2, times=1, seconds=0.1, code=-15)
    assert run.violated()[1].count("SIGTERM") == 1


@pytest.mark.parametrize("kind", ["unended", "given_up"])
def test_what_does_not_come_to_its_end_is_found(run, kind):
    run.add(9, kind, number=1)
    assert "drained" in run.violated()[0]


def test_results_are_read_by_their_names():
    text = 'id,x,note,prediction,error\n1-0,5,n,5,\n1-1,a,n,,"invalid_number: x: no number"\n'
    assert csv_outcomes(text) == [Outcome("1-0", 5.0), Outcome("1-1", "invalid_number")]
    lines = '{"row": 1, "input": {}, "prediction": 4000008.0, "error": null}\n'
    assert ndjson_outcomes(lines) == [Outcome("4-7", 4000008.0)]
    assert key_of(float(Submission(4, "batch", "identity", 9).x(7))) == "4-7"


def test_histogram_counts_up_to_each_edge():
    assert histogram([0.5, 1, 1.5, 14, 16]) == {
        "up to 1 s": 2,
        "up to 2 s": 1,
        "up to 5 s": 0,
        "up to 10 s": 0,
        "up to 15 s": 1,
        "more": 1,
    }
