"""Which bytes a Range header asks for, and that only those are read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.ranges import Piece, Span, UnsatisfiableRange, wanted, within

WHOLE = None
OUTSIDE = UnsatisfiableRange


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, WHOLE),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=0-9", Span(0, 10)),
        ("bytes=0-99", Span(0, 10)),
        ("bytes=3-", Span(3, 10)),
        ("bytes=9-", Span(9, 10)),
        ("bytes=-3", Span(7, 10)),
        ("bytes=-99", Span(0, 10)),
        ("Bytes= 3-4 ", Span(3, 5)),
        ("bytes=-0", OUTSIDE),
        ("bytes=10-", OUTSIDE),
        ("bytes=10-20", OUTSIDE),
        ("bytes=9999999999999999999-", OUTSIDE),
        ("bytes=5-4", WHOLE),
        ("bytes=-", WHOLE),
        ("bytes=", WHOLE),
        ("bytes=a-b", WHOLE),
        ("bytes=1", WHOLE),
        ("bytes=+1-2", WHOLE),
        ("bytes=\u0661-\u0662", WHOLE),
        ("bytes=0-1,3-4", WHOLE),
        ("rows=0-1", WHOLE),
        ("bytes=" + "9" * 5000 + "-", WHOLE),
    ],
)
def test_range_of_ten_bytes(header, expected):
    if expected is OUTSIDE:
        with pytest.raises(UnsatisfiableRange) as caught:
            wanted(header, 10)
        assert caught.value.length == 10
    else:
        assert wanted(header, 10) == expected


@given(st.lists(st.binary(max_size=5)), st.data())
def test_span_of_pieces_is_the_span_of_all_bytes(parts, data):
    whole = b"".join(parts)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    pieces = [Piece(len(part), lambda part=part: part) for part in parts]
    assert b"".join(within(pieces, Span(start, stop))) == whole[start:stop]


def test_pieces_outside_of_the_span_are_not_read():
    read = []
    pieces = [Piece(10, lambda index=index: read.append(index) or b"0123456789") for index in range(5)]
    assert b"".join(within(pieces, Span(15, 21))) == b"567890"
    assert read == [1, 2]
