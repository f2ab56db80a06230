import pytest

from jobs.status import ENDED, TRANSITIONS, Status, as_lua, may_move

ALLOWED = {
    ("receiving", "queued"),
    ("receiving", "running"),
    ("receiving", "succeeded"),
    ("receiving", "failed"),
    ("receiving", "canceled"),
    ("queued", "running"),
    ("queued", "failed"),
    ("queued", "canceled"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "canceled"),
}


@pytest.mark.parametrize("current", list(Status))
@pytest.mark.parametrize("wanted", list(Status))
def test_a_status_goes_only_where_the_contract_lets_it(current, wanted):
    assert may_move(current, wanted) == ((current, wanted) in ALLOWED)


def test_every_status_has_a_row_in_the_table():
    assert set(TRANSITIONS) == set(Status)


def test_only_the_terminal_statuses_are_ended():
    assert {"succeeded", "failed", "canceled"} == ENDED


def test_the_scripts_get_every_status_and_every_move():
    lua = as_lua()
    for current in Status:
        assert f"{current} = {{" in lua
        for wanted in TRANSITIONS[current]:
            assert f"{wanted} = true" in lua
