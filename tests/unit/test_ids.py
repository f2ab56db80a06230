"""Ids: who can make them, and what they tell once their job is gone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.ids import ALPHABET, ID_LENGTH, NAME_LENGTH, SEAL_LENGTH, SECOND_LENGTH, Generation, looks_like_id

NOW = 1_790_000_000
GENERATION = Generation.begin()


@given(second=st.integers(0, 2**35 - 1), tenant=st.text(max_size=20))
def test_id_tells_its_own_generation_and_tenant_when_it_was_made(second, tenant):
    job_id = GENERATION.new_id(second, tenant)
    assert looks_like_id(job_id)
    assert GENERATION.has(job_id)
    assert GENERATION.made_at(job_id, tenant) == second


@pytest.mark.parametrize(("owner", "asker"), [("mine", "theirs"), ("mine", ""), ("", "mine"), ("mine", "mine2")])
def test_id_tells_another_tenant_nothing(owner, asker):
    assert GENERATION.made_at(GENERATION.new_id(NOW, owner), asker) is None


@pytest.mark.parametrize("place", range(ID_LENGTH))
def test_id_of_which_one_character_was_changed_was_never_given_out(place):
    job_id = GENERATION.new_id(NOW, "mine")
    for other in ALPHABET - {job_id[place]}:
        assert GENERATION.made_at(job_id[:place] + other + job_id[place + 1 :], "mine") is None


def test_seal_of_one_id_is_none_for_another():
    first, second = (GENERATION.new_id(NOW, "mine") for _ in range(2))
    assert GENERATION.made_at(first[:-SEAL_LENGTH] + second[-SEAL_LENGTH:], "mine") is None


def test_what_only_has_the_length_and_the_characters_of_an_id_was_never_given_out():
    begun = GENERATION.value[:NAME_LENGTH]
    for text in ("a" * ID_LENGTH, begun + "a" * (ID_LENGTH - NAME_LENGTH), begun + "7" * (ID_LENGTH - NAME_LENGTH)):
        assert looks_like_id(text)
        assert GENERATION.made_at(text, "mine") is None


def test_id_of_another_generation_is_known_as_such_and_tells_nothing():
    other = Generation.begin()
    job_id = other.new_id(NOW, "mine")
    assert not GENERATION.has(job_id)
    assert GENERATION.made_at(job_id, "mine") is None


def test_who_knows_the_name_of_a_generation_and_not_its_secret_makes_no_ids():
    forger = Generation(GENERATION.value[:NAME_LENGTH] + Generation.begin().value[NAME_LENGTH:])
    forged = forger.new_id(NOW, "mine")
    assert GENERATION.has(forged)
    assert GENERATION.made_at(forged, "mine") is None


def test_ids_of_the_same_second_differ_and_carry_nothing_of_the_tenant():
    ids = {GENERATION.new_id(NOW, "mine") for _ in range(100)}
    assert len(ids) == 100
    assert not any("mine" in job_id for job_id in ids)
    assert len({job_id[: NAME_LENGTH + SECOND_LENGTH] for job_id in ids}) == 1


def test_generation_is_the_same_again_when_it_is_read_from_the_store():
    job_id = GENERATION.new_id(NOW, "mine")
    assert Generation(str(GENERATION.value)).made_at(job_id, "mine") == NOW


@given(st.text())
def test_only_what_has_the_length_and_the_characters_of_an_id_looks_like_one(text):
    assert looks_like_id(text) == (len(text) == ID_LENGTH and set(text) <= set("abcdefghijklmnopqrstuvwxyz234567"))


@pytest.mark.parametrize("text", ["A" * ID_LENGTH, "0" * ID_LENGTH, "é" * ID_LENGTH, "a" * (ID_LENGTH - 1) + "\n"])
def test_what_has_only_the_length_of_an_id_does_not_look_like_one(text):
    assert not looks_like_id(text)
