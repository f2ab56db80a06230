"""Records and cells come apart as RFC 4180 says, and go together so that they come apart again."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.codec.cells import (
    escape_formula,
    quote,
    split_cells,
    split_line_end,
    split_lines,
    split_records,
    unquote,
)

texts = st.text('a1 é,;"\r\n', max_size=8)


@settings(max_examples=200)
@given(st.lists(texts, min_size=1, max_size=6), st.sampled_from([b",", b";", b"\t", b"|"]))
def test_quoted_cells_come_apart_again(row, delimiter):
    body = delimiter.join(quote(text, delimiter) for text in row)
    cells = split_cells(body, delimiter)
    assert [unquote(cell) for cell in cells] == row
    assert delimiter.join(cells) == body


@settings(max_examples=200)
@given(st.lists(texts.filter(bool), min_size=1, max_size=6))
def test_the_csv_module_reads_what_is_quoted(row):
    line = b",".join(quote(text, b",") for text in row).decode()
    assert next(csv.reader(io.StringIO(line + "\r\n", newline=""))) == row


@pytest.mark.parametrize(
    ("body", "cells"),
    [
        (b"", [b""]),
        (b",", [b"", b""]),
        (b"a,,b", [b"a", b"", b"b"]),
        (b'"",', [b'""', b""]),
        (b',"a,b",c', [b"", b'"a,b"', b"c"]),
        (b'5" pipe,x"y"', [b'5" pipe', b'x"y"']),
        (b'",",","', [b'","', b'","']),
        (b'"""",""""""', [b'""""', b'""""""']),
        (b' "a",b', [b' "a"', b"b"]),
        (b'"two\r\nlines",b', [b'"two\r\nlines"', b"b"]),
    ],
)
def test_cells_of_a_record_come_byte_for_byte(body, cells):
    assert split_cells(body, b",") == cells


@pytest.mark.parametrize(
    ("cell", "text"),
    [(b"", ""), (b"a", "a"), (b'""', ""), (b'"a,b"', "a,b"), (b'"say ""hi"""', 'say "hi"'), (b'5" pipe', '5" pipe')],
)
def test_text_of_a_cell_is_without_the_quotes_that_hold_it(cell, text):
    assert unquote(cell) == text


@pytest.mark.parametrize(
    ("chunk", "records"),
    [
        (b"a,b\n1,2\r\n3", [b"a,b\n", b"1,2\r\n", b"3"]),
        (b'"a\nb",1\n"c"', [b'"a\nb",1\n', b'"c"']),
        (b'"a\nb"', [b'"a\nb"']),
        (b'x,"a\r\n\r\nb"\r\n5" pipe\n', [b'x,"a\r\n\r\nb"\r\n', b'5" pipe\n']),
    ],
)
def test_records_keep_their_line_ends(chunk, records):
    assert split_records(chunk, b",") == records


def test_json_lines_end_only_at_line_feeds():
    assert split_lines(b'{"a":\r1}\r\n[2]\n[3]') == [b'{"a":\r1}\r\n', b"[2]\n", b"[3]"]
    assert split_lines(b"[1]\n") == [b"[1]\n"]
    assert split_lines(b"") == []


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b""])
def test_line_end_is_split_from_its_record(line_end):
    assert split_line_end(b'a,"b\r\n"' + line_end) == (b'a,"b\r\n"', line_end)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a b", b"a b"),
        ("a,b", b'"a,b"'),
        ("a;b", b"a;b"),
        ('5" pipe', b'"5"" pipe"'),
        ("a\rb", b'"a\rb"'),
        ("é", b"\xc3\xa9"),
    ],
)
def test_cell_is_quoted_only_where_it_must_be(text, cell):
    assert quote(text, b",") == cell


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@a", "\t=1", "\r=1", "-1+1", "--1", "-inf", "+1_000", "-1,5"])
def test_what_a_spreadsheet_would_run_is_escaped(text):
    assert escape_formula(text) == "'" + text


@pytest.mark.parametrize("text", ["", "a", "1", "-1", "+1.5e-3", "-.5", "-1.", "\t-1", "'=1", "a=1", " =1"])
def test_numbers_and_other_texts_are_not_escaped(text):
    assert escape_formula(text) == text
