"""The predictor, seen from its parent: asked, limited, killed and replaced, with real processes."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

import settings
from tests.processes import children, descendants, is_alive, parent_of
from tests.waiting import wait_until
from tests.zoo.estimators import Exits, Hangs, Identity, Segfaults, Slow, write
from tests.zoo.greedy import MEBIBYTE, Draws, Heavy, Hoards, Keeps, Leaks, Roomless, Roomy, Spreads, Swells
from worker.child import Child, ChildDied, Doing, scrub
from worker.frames import Frame

ROOT = Path(__file__).resolve().parent.parent.parent
ANIMALS = {
    "identity": Identity(),
    "exits": Exits(),
    "segfaults": Segfaults(),
    "hangs": Hangs(),
    "slow": Slow(),
    "hoards": Hoards(gigabytes=2),  # little enough for the machine to grant it
    "hoards50": Hoards(gigabytes=50),
    "spreads": Spreads(),
    "swells": Swells(),
    "leaks": Leaks(),
    "keeps": Keeps(),
    "roomy": Roomy(),
    "heavy": Heavy(),
    "heavy2": Heavy(),
    "roomless": Roomless(),
    "heavy1000": Heavy(1000),
    "draws": Draws(),
}
# What works without a parent at first hand: started as a process of its own, so that it can be stopped and killed.
PARENT = """
import sys
from pathlib import Path
import settings
from tests.integration.test_child import new_child, singles
child = new_child(Path(sys.argv[1]))
child.ask(singles(Path(sys.argv[1]), "identity", 1), lambda doing: 60, lambda: None)
print("ready", flush=True)
"""


def new_child(models, memory_bytes=0):
    # Unpickling the zoo needs the package `tests`.
    return Child(models, scrub(settings.inherited(PYTHONPATH=str(ROOT))), memory_bytes)


def singles(models, name, *values):
    """The question for the predictions of some values."""
    sha256 = json.loads((models / name / "1" / "manifest.json").read_text())["sha256"]
    body = json.dumps([str(value) for value in values]).encode()
    return Frame({"do": "singles", "model": [name, "1", sha256]}, (body,))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("animals")
    for name, animal in ANIMALS.items():
        write(folder, name, animal)
    return folder


@pytest.fixture(scope="module")
def shared(models):
    """A child without a limit of memory, for all tests of this file: the nursery takes a second to start."""
    shared = Asking(models)
    yield shared
    shared.child.close()


@pytest.fixture
def asking(shared):
    """The shared child with a predictor that is ready."""
    assert shared.predict("identity", 0) == [0]
    return shared


@pytest.fixture
def start(models):
    """Starts children that end with the test: `start(memory_bytes)`."""
    started = []

    def start(memory_bytes):
        started.append(Asking(models, memory_bytes))
        return started[-1]

    yield start
    for each in started:
        each.child.close()


class Asking:
    """A child, and short ways to ask it."""

    def __init__(self, models, memory_bytes=0):
        self.models = models
        self.child = new_child(models, memory_bytes)

    @property
    def nursery(self):
        return parent_of(self.child.pid)

    def send(self, name, *values, seconds=60):
        return self.child.send(singles(self.models, name, *values), lambda doing: seconds)

    def wait(self, question):
        return json.loads(self.child.wait(question, lambda: None).bodies[0])

    def ask(self, name, *values, seconds=60):
        return self.wait(self.send(name, *values, seconds=seconds))

    def predict(self, name, *values, seconds=60):
        return [each["result"]["prediction"] for each in self.ask(name, *values, seconds=seconds)]

    def death(self, name, *values, seconds=60):
        with pytest.raises(ChildDied) as died:
            self.ask(name, *values, seconds=seconds)
        return died.value


def test_predictor_that_is_killed_while_idle_is_replaced_at_the_next_question(asking):
    first = asking.child.pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not is_alive(first), 1, "it still runs")
    began = monotonic()
    assert asking.predict("identity", 2) == [2]
    assert monotonic() - began < 2
    assert asking.child.pid != first


def test_predictor_that_is_killed_at_work_is_noticed_and_replaced_from_the_same_nursery(asking):
    nursery = asking.nursery
    question = asking.send("slow", *[1] * 20_000)

    def kill_at_work():
        if question.running.guard.doing:
            os.kill(asking.child.pid, signal.SIGKILL)

    with pytest.raises(ChildDied) as died:
        asking.child.wait(question, kill_at_work)
    assert (died.value.reason, died.value.doing.number) == ("crashed", question.number)
    began = monotonic()
    assert asking.predict("identity", 2) == [2]
    assert monotonic() - began < 2
    assert asking.nursery == nursery


@pytest.mark.parametrize(("name", "ending"), [("exits", "exit status 3"), ("segfaults", "signal SIGSEGV")])
def test_how_a_predictor_ended_is_logged(asking, caplog, name, ending):
    with caplog.at_level(logging.WARNING):
        death = asking.death(name, -1)
    assert death.reason == "crashed"
    assert death.doing == Doing(death.doing.number, "singles", 0, 1)
    assert ending in caplog.text


def test_death_is_told_to_all_who_asked_and_answers_from_before_it_still_count(asking):
    pid = asking.child.pid
    first, second, third = asking.send("identity", 1), asking.send("exits", -1), asking.send("identity", 3)

    def look_away():  # so that answer and death are seen together
        wait_until(lambda: not is_alive(pid), 20, "it still runs")

    answer = asking.child.wait(first, look_away)
    assert json.loads(answer.bodies[0]) == [{"result": {"prediction": 1.0}}]
    for question in (third, second):
        with pytest.raises(ChildDied) as died:
            asking.wait(question)
        assert died.value.doing.number == second.number


def test_nursery_that_is_killed_takes_its_predictor_along_and_both_are_replaced(asking):
    nursery, predictor = asking.nursery, asking.child.pid
    question = asking.send("slow", *[1] * 20_000)
    os.kill(nursery, signal.SIGKILL)
    with pytest.raises(ChildDied):
        asking.wait(question)
    wait_until(lambda: not is_alive(predictor), 1, "the predictor outlived its nursery")
    assert asking.predict("identity", 2) == [2]


def test_nursery_has_one_thread_and_the_predictor_nothing_of_it_but_its_memory(asking):
    nursery = asking.nursery
    assert len(os.listdir(f"/proc/{nursery}/task")) == 1
    assert children(nursery) == [asking.child.pid]
    links = [os.readlink(f"/proc/{asking.child.pid}/fd/{name}") for name in os.listdir(f"/proc/{asking.child.pid}/fd")]
    assert sum(link.startswith("socket:") for link in links) == 1
    assert len(links) == 4  # standard input, output and error, and its channel
    assert int(Path(f"/proc/{asking.child.pid}/oom_score_adj").read_text()) >= 500


def test_predictors_do_not_draw_the_same_random_numbers(asking):
    first = asking.predict("draws", 1, 1)
    asking.child.kill()
    assert asking.predict("draws", 1, 1) != first


def test_signals_that_hosts_send_to_all_processes_are_ignored(asking):
    before = (asking.nursery, asking.child.pid)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        for pid in before:
            os.kill(pid, number)
    assert asking.predict("identity", 2) == [2]
    assert (asking.nursery, asking.child.pid) == before


def test_closing_leaves_no_process_behind(asking):
    question = asking.send("hangs", -1)
    nursery, predictor = asking.nursery, asking.child.pid
    asking.child.close()
    assert not is_alive(nursery)
    assert not is_alive(predictor)
    with pytest.raises(ChildDied):
        asking.wait(question)


def test_step_that_hangs_is_ended_after_its_time(asking):
    began = monotonic()
    death = asking.death("hangs", 1, -1, seconds=1)
    assert (death.reason, death.doing.stage, death.doing.start, death.doing.stop) == ("timeout", "singles", 0, 2)
    assert 1 <= monotonic() - began < 4
    assert asking.predict("identity", 1) == [1]


def test_predictor_that_says_nothing_at_all_is_replaced_together_with_its_nursery(asking, monkeypatch):
    monkeypatch.setattr("worker.guard.START_SECONDS", 1)
    nursery = asking.nursery
    os.kill(nursery, signal.SIGSTOP)
    asking.child.kill()
    death = asking.death("identity", 1)
    assert (death.reason, death.doing) == ("timeout", None)
    assert not is_alive(nursery)
    monkeypatch.undo()
    assert asking.predict("identity", 1) == [1]


def test_each_step_has_the_limit_of_its_own_question(asking):
    patient = asking.send("slow", *[1] * 2_000, seconds=60)
    hasty = asking.send("identity", 1, seconds=0.5)  # which waits longer than that for its turn
    assert len(asking.wait(patient)) == 2_000
    assert asking.wait(hasty) == [{"result": {"prediction": 1.0}}]


def test_question_that_is_given_up_during_a_long_step_ends_the_predictor(asking):
    class Enough(Exception):
        pass

    question = asking.send("hangs", -1)

    def tick():
        raise Enough

    with pytest.raises(Enough):
        asking.child.wait(question, tick)
    assert asking.child.pid is None
    assert asking.predict("identity", 1) == [1]


def test_allocation_beyond_the_limit_fails_inside_the_predictor(start):
    asking = start(400 * MEBIBYTE)
    outcomes = asking.ask("hoards", 1, -1)
    assert (outcomes[0], outcomes[1]["code"]) == ({"result": {"prediction": 1.0}}, "out_of_memory")
    pid = asking.child.pid
    assert asking.predict("hoards", 2) == [2]
    assert asking.child.pid == pid


@pytest.mark.parametrize(("model", "others"), [("hoards50", "identity"), ("keeps", "keeps")])
def test_row_is_blamed_for_want_of_memory_only_where_nothing_else_takes_it(start, model, others):
    asking = start(600 * MEBIBYTE)
    asking.predict(model, 1)
    asking.predict(others, -1)
    death = asking.death(model, -50)
    assert (death.reason, death.doing.stage) == ("out_of_memory", "singles")
    assert asking.ask(model, -50)[0]["code"] == "out_of_memory"


def test_what_arrow_claims_in_advance_is_left_to_the_model(start):
    assert start(1300 * MEBIBYTE).predict("roomy", 1) == [1]


def test_model_that_has_no_room_beside_others_is_loaded_without_them(start):
    asking = start(600 * MEBIBYTE)
    pids = set()
    for name in ("heavy", "heavy2", "heavy"):
        assert asking.predict(name, 1) == [1]
        pids.add(asking.child.pid)
    assert len(pids) == 1


def test_row_is_not_blamed_where_models_were_dropped_to_make_room(start):
    asking = start(600 * MEBIBYTE)
    asking.predict("heavy", 1)
    asking.predict("roomless", 1)
    assert asking.death("roomless", -1).reason == "out_of_memory"
    assert asking.ask("roomless", -1)[0]["code"] == "out_of_memory"


def test_model_that_has_no_room_at_all_ends_the_predictor_while_it_is_loaded(start):
    death = start(600 * MEBIBYTE).death("heavy1000", 1)
    assert (death.reason, death.doing.stage) == ("out_of_memory", "load")


def test_what_a_predictor_said_before_it_ended_is_heard_when_another_question_is_asked(asking):
    first, second, deadly = asking.send("identity", 7), asking.send("identity", 8), asking.send("exits", -1)
    asking.wait(first)

    def is_known_to_have_ended():
        return asking.child.pid and deadly.running.forked.has_ended

    wait_until(is_known_to_have_ended, 5, "it still runs")
    assert asking.predict("identity", 2) == [2]
    assert asking.wait(second)[0]["result"]["prediction"] == 8
    with pytest.raises(ChildDied) as died:
        asking.wait(deadly)
    assert died.value.doing.number == deadly.number


def test_shipped_models_work_within_a_small_limit(models_path):
    child = new_child(models_path, 400_000_000)
    try:
        for name in ("housing", "diabetes", "iris", "apartments"):
            manifest = json.loads((models_path / name / "1" / "manifest.json").read_text())
            cells = [f["categories"][0] if f.get("categories") else 1 for f in manifest["features"]]
            body = json.dumps([json.dumps(cells)] * 256).encode()
            question = Frame({"do": "singles", "model": [name, "1", manifest["sha256"]]}, (body,))
            answer = child.ask(question, lambda doing: 60, lambda: None)
            assert all("result" in outcome for outcome in json.loads(answer.bodies[0]))
    finally:
        child.close()


def test_predictor_that_grows_beyond_its_limit_is_ended(start):
    asking = start(400 * MEBIBYTE)
    death = asking.death("spreads", -1)
    assert (death.reason, death.doing.stage) == ("out_of_memory", "singles")
    assert asking.predict("spreads", 1) == [1]


def test_step_that_runs_out_of_time_while_its_memory_grew_has_run_out_of_memory(start):
    asking = start(4096 * MEBIBYTE)
    asking.predict("swells", 1)
    assert asking.death("swells", -1, seconds=5).reason == "out_of_memory"


def test_predictor_that_leaks_is_replaced_between_two_questions(start, caplog):
    asking = start(600 * MEBIBYTE)
    pids = set()
    for value in range(30):  # 1.2 GB in all
        assert asking.predict("leaks", value) == [value]
        pids.add(asking.child.pid)
    assert len(pids) > 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def parent(models):
    """Starts a parent in a process of its own, which then does `then`."""
    started = []

    def parent(then=""):
        program = [sys.executable, "-c", PARENT + then, str(models)]
        process = subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield parent
    for process in started:
        process.kill()
        process.communicate()


def test_nursery_and_predictor_are_gone_soon_after_their_parent(parent):
    process = parent("sys.stdin.read()")
    family = descendants(process.pid)
    assert len(family) == 2
    process.kill()
    wait_until(lambda: not any(map(is_alive, family)), 1, "they outlived their parent")


def test_parent_that_was_stopped_does_not_blame_a_predictor_that_is_well(parent):
    # The step takes 5 seconds of the 3 that it may take, but nobody looked for 3.5 of them.
    process = parent(
        """
question = child.send(singles(Path(sys.argv[1]), "slow", *[1] * 5000), lambda doing: 3)
began = []
def tick():
    if question.running.guard.doing and not began:
        began.append(print("began", flush=True))
print(len(child.wait(question, tick).bodies), flush=True)
child.close()
"""
    )
    assert process.stdout.readline() == "began\n"
    process.send_signal(signal.SIGSTOP)
    sleep(3.5)
    process.send_signal(signal.SIGCONT)
    assert process.stdout.readline() == "1\n"
    assert process.wait(10) == 0
