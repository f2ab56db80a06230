"""Texts cut for the store: they come back whole, and no piece is larger than what the store packs."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.pieces import MOST_PIECES, PIECE_BYTES, joined, pieces
from jobs.scripts import LUA

LONGEST = PIECE_BYTES * MOST_PIECES
LONGEST_WIDE = LONGEST // 4  # characters may take four bytes
# Every length up to beyond the longest text that is cut.
TEXTS = st.text(max_size=2 * LONGEST_WIDE) | st.text(alphabet=st.characters(max_codepoint=127), max_size=2 * LONGEST)


def stored(name, text):
    """The fields of a hash that holds the text."""
    cut = pieces(name, text)
    return dict(zip(cut[::2], cut[1::2], strict=True))


@given(TEXTS)
@example("")
@example("x" * PIECE_BYTES)
@example("x" * (PIECE_BYTES + 1))
@example("x" * LONGEST)
@example("x" * (LONGEST + 1))
@example("😀" * LONGEST_WIDE)
@example("😀" * (LONGEST_WIDE + 1))
@example("x" * (LONGEST_WIDE - 1) + "😀")
def test_any_text_comes_back_whole(text):
    fields = stored("input", text)
    assert joined(fields, "input") == text
    assert len(fields) <= MOST_PIECES


@given(TEXTS.filter(lambda text: len(text) <= (LONGEST if text.isascii() else LONGEST_WIDE)))
def test_no_piece_of_a_text_that_is_cut_is_larger_than_what_the_store_packs(text):
    assert all(len(piece.encode()) <= PIECE_BYTES for piece in stored("input", text).values())


@pytest.mark.parametrize("text", ["x" * (LONGEST + 1), "é" * (LONGEST_WIDE + 1)])
def test_text_of_too_many_pieces_has_one_field(text):
    assert stored("input", text) == {"input": text}


def test_pieces_of_two_texts_do_not_mix():
    fields = stored("input", "i" * 200) | stored("result", "r" * 100) | {"status": "succeeded"}
    assert joined(fields, "input") == "i" * 200
    assert joined(fields, "result") == "r" * 100


def test_text_that_is_not_there_is_none_and_an_empty_one_is_empty():
    assert joined({"input": "x"}, "result") is None
    assert joined(stored("result", ""), "result") == ""


def test_scripts_look_for_as_many_pieces_as_there_may_be():
    assert f"MOST_PIECES = {MOST_PIECES} " in (LUA / "shared" / "singles.lua").read_text()
