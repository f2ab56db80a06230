import pytest

from api.prefer import parse_prefer


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], {}),
        ([""], {}),
        (["respond-async"], {"respond-async": ""}),
        (["wait=10"], {"wait": "10"}),
        (["Wait = 10 , Respond-Async"], {"wait": "10", "respond-async": ""}),
        (['wait="10"'], {"wait": "10"}),
        ([r'foo="a \"b\", c=d"; wait=3, wait=7'], {"foo": 'a "b", c=d', "wait": "7"}),
        (["respond-async;x=1;y, wait=5"], {"respond-async": "", "wait": "5"}),
        (["respond-async", "wait=5"], {"respond-async": "", "wait": "5"}),
        ([", ,wait=5,,"], {"wait": "5"}),
        (["foo=, wait=5"], {"foo": "", "wait": "5"}),
    ],
)
def test_preferences_are_read_as_rfc_7240_says(headers, expected):
    assert parse_prefer(headers) == expected


def test_of_a_preference_that_stands_twice_the_first_counts():
    assert parse_prefer(["wait=1, wait=2", "wait=3"]) == {"wait": "1"}


def test_what_cannot_be_read_is_left_out():
    assert parse_prefer(["wait=5, ???=(, respond-async"]) == {"wait": "5"}


def test_a_long_hostile_header_is_read_at_once():
    assert parse_prefer([";" * 8000 + "a" * 100]) == {}
    assert list(parse_prefer(["a" + ";" * 8000 + '"'])) in ([], ["a"])
