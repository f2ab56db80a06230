import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.codec.cells import quote
from jobs.codec.chunk import Failure, compress, decompress, pack_failures, unpack_failures
from jobs.codec.layout import plan
from jobs.codec.patch import Patch

NUMBER = "invalid_number: x is not a number"


def layout(names=("id", "x"), keep="all", format="csv", delimiter=",", line_end="\n"):
    return plan(
        format=format,
        delimiter=delimiter,
        line_end=line_end,
        names=names,
        features=["x"],
        classes=None,
        has_probabilities=False,
        keep=keep,
    )


def failure(row, record, code="invalid_number"):
    return Failure(row, code, "x", "x is not a number", record)


def patch(kind, result, *failures):
    return Patch(kind, compress(result), pack_failures(failures) if failures else b"")


def test_chunk_without_a_mark_has_no_patch():
    assert Patch.read(b"", b"", b"") is None


def test_mark_in_the_store_says_which_rows_are_predicted_anew():
    assert Patch.read(b"failed 17", b"result", b"failures") == Patch("failed", b"result", b"failures")
    assert Patch.read(b"all 0", b"result", b"") == Patch("all", b"result", b"")


def test_failed_records_are_predicted_anew_and_nothing_else():
    found = patch(
        "failed",
        b"a,1,1.0,\nb,?,,%b\nc,3,3.0,\nd,,,%b\n" % (NUMBER.encode(), NUMBER.encode()),
        failure(1, "b,?"),
        failure(3, "d,"),
    )
    assert found.chunk(layout()) == (b"b,?\nd,\n", 2)
    assert list(found.rows(4)) == [1, 3]


def test_new_records_take_the_places_of_the_old_ones_and_others_stay_byte_for_byte():
    found = patch(
        "failed", b'"a\n1",1,1.0,\r\nb,?,,no\n"c""",3,3.0,\r\nd,?,,no\r\n', failure(1, "b,?"), failure(3, "d,?")
    )
    records, failures = found.merged(layout(line_end="\r\n"), b"b,?,7.5,\r\nd,?,,again\r\n", [failure(1, "d,?")])
    assert records == b'"a\n1",1,1.0,\r\nb,?,7.5,\n"c""",3,3.0,\r\nd,?,,again\r\n'
    assert failures == [failure(3, "d,?")]


def test_quoted_line_ends_within_records_shift_nothing():
    old = b'"one\r\ntwo",?,,no\n"three, four",4,4.0,\n"five\n""six""",?,,no\n'
    found = patch("failed", old, failure(0, '"one\r\ntwo",?'), failure(2, '"five\n""six""",?'))
    assert found.chunk(layout()) == (b'"one\r\ntwo",?\n"five\n""six""",?\n', 2)
    records, failures = found.merged(layout(), b'"one\r\ntwo",?,1.0,\n"five\n""six""",?,5.0,\n', [])
    assert records == b'"one\r\ntwo",?,1.0,\n"three, four",4,4.0,\n"five\n""six""",?,5.0,\n'
    assert failures == []


def test_record_with_a_surplus_is_predicted_as_it_was_sent():
    found = patch("failed", b"a,1,,wrong\n", failure(0, "a,1,2,3", "wrong_cell_count"))
    assert found.chunk(layout()) == (b"a,1,2,3\n", 1)


def test_failed_json_inputs_are_predicted_as_lines():
    found = patch("failed", b"1.0,\n,no\n", failure(1, '{"x": "ä\\n"}'))
    json_layout = layout(names=("x",), keep="none", format="json")
    assert found.chunk(json_layout) == ('{"x": "ä\\n"}\n'.encode(), 1)
    assert found.merged(json_layout, b"2.0,\n", []) == (b"1.0,\n2.0,\n", [])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_all_input_records_come_back_from_results_that_kept_their_columns(delimiter):
    sent = b'a,1\r\n"b, ;\t\nb",2\n c ,"3"\r\nd\r\n'.replace(b",", delimiter.encode())
    old = b'a,1,1.0,\r\n"b, ;\t\nb",2,2.0,\n c ,"3",3.0,\r\nd,,,"wrong, indeed"\r\n'.replace(b",", delimiter.encode())
    found = patch("all", old, failure(3, "d", "wrong_cell_count"))
    assert found.chunk(layout(delimiter=delimiter, line_end="\r\n")) == (sent, 4)
    assert found.merged(layout(), b"new records", [failure(2, "x")]) == (b"new records", [failure(2, "x")])
    assert list(found.rows(4)) == [0, 1, 2, 3]


def test_columns_of_probabilities_are_no_input():
    classes = plan(format="csv", names=["x"], features=["x"], classes=["a", "b"], has_probabilities=True, keep="all")
    assert patch("all", b"1,a,0.75,0.25,\n2,b,0.5,0.5,\n").chunk(classes) == (b"1\n2\n", 2)


def test_other_count_of_new_records_is_never_merged():
    found = patch("failed", b"a,?,,no\n", failure(0, "a,?"))
    with pytest.raises(ValueError, match="zip"):
        found.merged(layout(), b"a,1,1.0,\nb,2,2.0,\n", [])


CELL = st.one_of(
    st.text("ab,;'\" ", max_size=5).map(lambda text: quote(text, b",").decode()),
    st.text('a" ,\r\n', max_size=5).map(lambda text: '"' + text.replace('"', '""') + '"'),
)


@given(st.lists(st.tuples(CELL, CELL, st.sampled_from(["\n", "\r\n"]), st.booleans()), min_size=1))
def test_any_failed_records_are_found_and_put_back_in_their_places(rows):
    sent = [f"{first},{second}" for first, second, _, _ in rows]
    whole = [f"{record},1.0,{row[2]}".encode() for record, row in zip(sent, rows, strict=True)]
    failed = [place for place, row in enumerate(rows) if row[3]]
    old = [b"?,?,,no" + row[2].encode() if row[3] else whole[place] for place, row in enumerate(rows)]
    found = patch("failed", b"".join(old), *[failure(place, sent[place]) for place in failed])
    assert found.chunk(layout()) == ("".join([sent[place] + "\n" for place in failed]).encode(), len(failed))
    new = b"".join([f"{sent[place]},1.0,\n".encode() for place in failed])
    assert found.merged(layout(), new, []) == (b"".join(whole), [])
    everything = patch("all", b"".join(whole)).chunk(layout())
    assert everything == (
        "".join([record + row[2] for record, row in zip(sent, rows, strict=True)]).encode(),
        len(rows),
    )


def test_what_is_merged_can_be_patched_again():
    found = patch("failed", b"a,?,,no\nb,?,,no\n", failure(0, "a,?"), failure(1, "b,?"))
    records, failures = found.merged(layout(), b"a,?,1.0,\nb,?,,no\n", [failure(1, "b,?")])
    again = patch("failed", records, *failures)
    assert again.chunk(layout()) == (b"b,?\n", 1)
    assert unpack_failures(again.failures) == failures
    assert decompress(again.result) == records
