"""Results as CSV records and as JSON rows, from layouts and stored bytes."""

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.failed_rows import header, records
from api.rendering import NOT_PROCESSED, Outcomes, RowWriter, escaped, unreached
from jobs.codec.cells import quote
from jobs.codec.chunk import Failure
from jobs.codec.layout import plan

LEFT = f"not_processed: {NOT_PROCESSED}"


def csv_layout(names, *, keep="all", classes=None, delimiter=",", line_end="\n", header=None, features=("RM",)):
    return plan(
        format="csv",
        names=names,
        features=features,
        classes=classes,
        has_probabilities=classes is not None,
        keep=keep,
        delimiter=delimiter,
        line_end=line_end,
        header=header,
    )


def json_layout(names, features, keep="all"):
    return plan(format="json", names=names, features=features, classes=None, has_probabilities=False, keep=keep)


def rows(layout, outcomes, first=1, wanted=slice(None)):
    return [json.loads(row) for row in RowWriter(layout).rows(outcomes, first, wanted)]


def raw_rows(layout, outcomes):
    return RowWriter(layout).rows(outcomes, 1)


def test_row_of_a_csv_job_has_the_kept_columns_as_texts():
    layout = csv_layout(["id", "RM"])
    outcomes = Outcomes(b'"a ""1""",7.50,29.04,\n', {})
    assert raw_rows(layout, outcomes) == [
        '{"row":1,"input":{"id":"a \\"1\\"","RM":"7.50"},"prediction":29.04,"error":null}'
    ]


def test_prediction_keeps_every_digit_that_is_stored():
    layout = csv_layout(["RM"], keep="none")
    assert '"prediction":0.30000000000000004,' in raw_rows(layout, Outcomes(b"0.30000000000000004,\n", {}))[0]


def test_rows_count_from_the_first_row_of_the_chunk():
    layout = csv_layout(["RM"], keep="none")
    outcomes = Outcomes(b"1,\n2,\n3,\n4,\n", {})
    assert [(row["row"], row["prediction"]) for row in rows(layout, outcomes, 11, slice(1, 3))] == [(12, 2), (13, 3)]


def test_failure_belongs_to_its_row_also_in_a_part_of_a_chunk():
    layout = csv_layout(["RM"])
    failure = Failure(2, "invalid_number", "RM", "RM is not a number", "x")
    outcomes = Outcomes(b"1,1,\n2,2,\nx,,invalid_number: RM is not a number\n", {2: failure})
    assert rows(layout, outcomes, 1, slice(2, 9)) == [
        {
            "row": 3,
            "input": {"RM": "x"},
            "prediction": None,
            "error": {"code": "invalid_number", "column": "RM", "message": "RM is not a number"},
        }
    ]


@pytest.mark.parametrize(
    ("classes", "cell", "expected"),
    [
        (("no", "yes, sure"), b'"yes, sure"', "yes, sure"),
        (("1", "2"), b"2", "2"),
        ((1, 2), b"2", 2),
        ((1.0, 2.0), b"2.0", 2.0),
        ((False, True), b"true", True),
    ],
)
def test_class_comes_out_in_its_own_json_type(classes, cell, expected):
    layout = csv_layout(["RM"], keep="none", classes=classes)
    (row,) = rows(layout, Outcomes(cell + b",0.25,0.75,\n", {}))
    assert row["prediction"] == expected
    assert type(row["prediction"]) is type(expected)
    assert list(row["probabilities"].values()) == [0.25, 0.75]


def test_probabilities_stand_by_class_in_the_models_order():
    layout = csv_layout(["RM"], keep="none", classes=("b", "a"))
    assert '"probabilities":{"b":0.25,"a":0.75}' in raw_rows(layout, Outcomes(b"a,0.25,0.75,\n", {}))[0]


def test_failed_row_of_a_classifier_has_no_probabilities():
    layout = csv_layout(["RM"], keep="none", classes=("a", "b"))
    (row,) = rows(layout, Outcomes(b",,,timeout: late\n", {0: Failure(0, "timeout", None, "late", "7")}))
    assert row["probabilities"] is None
    assert row["prediction"] is None


def test_our_columns_are_the_last_ones_whatever_the_users_are_called():
    layout = csv_layout(["prediction", "RM"])
    (row,) = rows(layout, Outcomes(b"mine,7,29,\n", {}))
    assert row["input"] == {"prediction": "mine", "RM": "7"}
    assert row["prediction"] == 29


texts = st.text(st.sampled_from('ab,;"\n\r\té€😀 ='), max_size=6)


@st.composite
def tables(draw):
    delimiter = draw(st.sampled_from(",;\t|"))
    names = draw(st.lists(texts.filter(bool), min_size=1, max_size=4, unique=True))
    keep = draw(st.sampled_from(["all", "none", names[:1]]))
    layout = csv_layout(names, keep=keep, delimiter=delimiter, features=names[:1])
    width = len(layout.keep)
    return layout, draw(st.lists(st.lists(texts, min_size=width, max_size=width), min_size=1, max_size=5))


@st.composite
def cells(draw, text, delimiter):
    """A cell that holds the text, quoted though it need not be, now and then."""
    cell = quote(text, delimiter)
    if cell.startswith(b'"') or draw(st.booleans()):
        return b'"' + text.encode().replace(b'"', b'""') + b'"'
    return cell


@settings(max_examples=200)
@given(tables(), st.data())
def test_json_rows_hold_the_texts_of_the_csv_cells(table, data):
    layout, kept = table
    delimiter = layout.delimiter.encode()
    lines = [[data.draw(cells(text, delimiter)) for text in line] for line in kept]
    stored = b"".join(delimiter.join([*line, b"1.5", b""]) + b"\r\n" for line in lines)
    names = [layout.columns[index] for index in layout.keep]
    assert [row["input"] for row in rows(layout, Outcomes(stored, {}))] == [
        dict(zip(names, line, strict=True)) for line in kept
    ]


def test_unreached_row_keeps_its_cells_byte_for_byte():
    layout = csv_layout(["id", "RM"], line_end="\r\n")
    outcomes = unreached(layout, b'"a",7.50\r\n"b\nc", 8 \n5" pipe,9')
    assert outcomes.records == (f'"a",7.50,,{LEFT}\r\n"b\nc", 8 ,,{LEFT}\n5" pipe,9,,{LEFT}\r\n'.encode())


def test_unreached_row_is_padded_and_its_surplus_is_cut():
    layout = csv_layout(["id", "RM", "b"], keep=["RM", "b"])
    assert unreached(layout, b"a\n1,2,3,4\n").records == f",,,{LEFT}\n2,3,,{LEFT}\n".encode()


def test_unreached_row_has_no_probabilities_and_an_error():
    layout = csv_layout(["RM"], keep="none", classes=("a", "b"))
    outcomes = unreached(layout, b"7\n8\n")
    assert outcomes.records == f",,,{LEFT}\n".encode() * 2
    assert [row["error"]["code"] for row in rows(layout, outcomes)] == ["not_processed"] * 2


def test_unreached_rows_are_as_many_as_the_records():
    layout = csv_layout(["RM"])
    assert len(rows(layout, unreached(layout, b'"1\n2"\n3\n'))) == 2


def test_unreached_json_row_becomes_cells():
    layout = json_layout(["x", "t", "note"], ["x", "t"])
    chunk = b'{"t": "a,b", "x": 1.50, "note": {"deep": [1, null]}, "more": 1}\r\n[true, null]\n[1]\n[1,2,3]\n7\n{}'
    assert unreached(layout, chunk).records.decode().split("\n") == [
        f'1.50,"a,b","{{""deep"":[1,null]}}",,{LEFT}',
        f"true,,,,{LEFT}",
        f"1,,,,{LEFT}",
        f"1,2,,,{LEFT}",
        f",,,,{LEFT}",
        f",,,,{LEFT}",
        "",
    ]


def test_bare_value_is_the_cell_of_the_only_feature():
    layout = json_layout(["x"], ["x"])
    outcomes = unreached(layout, b'7.0\n"8"\n')
    assert outcomes.records == f"7.0,,{LEFT}\n8,,{LEFT}\n".encode()
    assert [row["input"] for row in rows(layout, outcomes)] == [{"x": 7.0}, {"x": "8"}]


def shown(layout, line):
    outcomes = Outcomes(b"," * len(layout.keep) + b"1,\n", {}, line)
    return (
        RowWriter(layout)
        .rows(outcomes, 1)[0]
        .removeprefix('{"row":1,"input":')
        .removesuffix(',"prediction":1,"error":null}')
    )


@pytest.mark.parametrize(
    ("keep", "line", "expected"),
    [
        ("all", b'{"note":"n","y":2.0,"x":1e3}', '{"note":"n","y":2.0,"x":1e3}'),
        ("all", b'{"x":1,"y":2,"later":[3.10]}\r\n', '{"x":1,"y":2,"later":[3.10]}'),
        ("all", b"[1.0, null]", '{"x":1.0,"y":null}'),
        ("all", b"[1, 2, 3]", "[1,2,3]"),
        ("all", b"7", "7"),
        (["y", "note"], b'{"note":"n","y":2.0,"x":1e3,"later":3}', '{"note":"n","y":2.0}'),
        (["y"], b"[1, 2]", '{"y":2}'),
        (["y"], b"[1, 2, 3]", "{}"),
        ("none", b'{"x":1,"y":2}', "{}"),
        ("none", b"7", "{}"),
    ],
)
def test_json_input_is_shown_as_it_was_sent(keep, line, expected):
    assert shown(json_layout(["x", "y", "note"], ["x", "y"], keep), line) == expected


def test_carriage_return_within_a_json_line_divides_nothing():
    layout = json_layout(["x"], ["x"])
    assert len(rows(layout, Outcomes(b"1,1,\n2,2,\n", {}, b'{"x":\r1}\n{"x":2}\n'))) == 2


def test_formulas_are_escaped_in_kept_cells_and_in_ours():
    stored = b'=1+1,"a,b",-5,"-a ""b""",-5.2,@error\r\n'
    assert escaped(stored, b",") == b'\'=1+1,"a,b",-5,"\'-a ""b""",-5.2,\'@error\r\n'


def test_escaping_quotes_what_then_needs_it():
    assert escaped(b"\tx;+1;=a,b\n", b";") == b"'\tx;+1;'=a,b\n"
    assert escaped(b'"\rx",1\n', b",") == b'"\'\rx",1\n'


def failed(record, row=0):
    return Failure(row, "invalid_number", "RM", 'RM is not a number, "really"', record)


ERROR = '"invalid_number: RM is not a number, ""really"""'


def test_failed_rows_have_all_columns_as_sent_and_the_error():
    layout = csv_layout(["my id", "RM"], keep="none", line_end="\r\n", header=['"my id"', "RM"])
    assert header(layout, has_surplus=False) == b'"my id",RM,error\r\n'
    assert records(layout, False, [failed('"a", x'), failed('"b"')]) == f'"a", x,{ERROR}\r\n"b",,{ERROR}\r\n'.encode()


def test_surplus_cells_stand_in_one_column_as_they_stood_in_the_record():
    layout = csv_layout(["id", "RM"])
    assert header(layout, has_surplus=True) == b"id,RM,surplus,error\n"
    assert records(layout, True, [failed('1,2,3,"x,y"'), failed("1,x")]) == (
        f'1,2,"3,""x,y""",{ERROR}\n1,x,,{ERROR}\n'.encode()
    )


def test_failed_rows_take_free_names_when_the_file_is_sent_again():
    layout = csv_layout(["RM", "surplus", "error", "error_2"], header=["RM", "surplus", '"error"', "error_2"])
    assert header(layout, has_surplus=True) == b'RM,surplus,"error",error_2,surplus_2,error_3\n'


def test_failed_json_rows_become_cells():
    layout = json_layout(["x", "y", "note"], ["x", "y"])
    failures = [failed('{"note": "=", "y": "a\\nb"}'), failed("[1,2,3,4]"), failed("[1]")]
    assert records(layout, True, failures) == (f',"a\nb",=,,{ERROR}\n1,2,,"3,4",{ERROR}\n1,,,,{ERROR}\n'.encode())


@given(st.lists(st.lists(texts, min_size=1, max_size=4), min_size=1, max_size=4), st.data())
def test_failed_rows_read_back_by_another_reader_are_the_cells_that_were_sent(sent, data):
    layout = csv_layout(["RM", "b"])
    lines = [b",".join(data.draw(cells(text, b",")) for text in line) for line in sent]
    written = records(layout, True, [failed(line.decode()) for line in lines])
    for found, line in zip(csv.reader(io.StringIO(written.decode(), newline="")), sent, strict=True):
        assert found[:2] == [*line, ""][:2]
        assert next(csv.reader(io.StringIO(found[2], newline="")), []) == line[2:] or line[2:] == [""]
