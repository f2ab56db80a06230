"""Records that come out when no model was asked."""

from jobs.codec.layout import plan
from jobs.codec.records import has_surplus, input_records, refused_records


def layout(**changes):
    asked = {"format": "csv", "names": ("id", "x"), "features": ("x",), "classes": None, "has_probabilities": False}
    return plan(**asked | changes)


def test_refused_records_keep_their_cells_and_line_ends():
    records = input_records(layout(), b'1,"a\nb"\r\n2,5\n3,7')
    assert refused_records(layout(), records, "timeout", "too, long") == (
        b'1,"a\nb",,"timeout: too, long"\r\n2,5,,"timeout: too, long"\n3,7,,"timeout: too, long"\n'
    )


def test_refused_records_keep_only_the_columns_that_are_wanted_and_pad_what_is_short():
    chosen = layout(keep=("x",))
    assert refused_records(chosen, [b"1\n", b"1,2,3\n"], "timeout", "m") == b",,timeout: m\n2,,timeout: m\n"


def test_refused_records_of_json_inputs_are_cells():
    chosen = layout(format="json", names=("x", "id"))
    records = input_records(chosen, b'{"id": 1, "x": "a,b"}\n[5]\n')
    assert refused_records(chosen, records, "timeout", "m") == b'"a,b",1,,timeout: m\n5,,,timeout: m\n'


def test_record_with_more_cells_than_columns_has_a_surplus():
    assert [has_surplus(layout(), record) for record in (b"1\n", b"1,2\n", b"1,2,3\n")] == [False, False, True]
