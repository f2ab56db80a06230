"""What a batch's columns are, which come out again, and how ours are named beside them."""

import pytest

from jobs.codec.layout import Layout, LayoutError, class_text, plan


def planned(names, features=(), **more):
    wanted = {"format": "csv", "names": names, "features": features, "classes": None, "has_probabilities": False}
    return plan(**wanted | more)


def test_all_columns_come_out_in_the_inputs_order_then_ours():
    layout = planned(["id", "b", "a"], ["a", "b"])
    assert layout.features == ("a", "b")
    assert layout.output_columns == ("id", "b", "a", "prediction", "error")


def test_kept_columns_come_in_the_inputs_order_whatever_the_order_they_are_named_in():
    layout = planned(["id", "b", "a"], ["a"], keep=["a", "id"])
    assert layout.keep == (0, 2)
    assert layout.output_columns == ("id", "a", "prediction", "error")


def test_nothing_is_kept_when_that_is_asked_for():
    assert planned(["a"], ["a"], keep="none").output_columns == ("prediction", "error")


def test_column_called_all_can_be_kept_alone():
    assert planned(["all", "b"], keep=["all"]).output_columns == ("all", "prediction", "error")


def test_probabilities_stand_one_a_class_in_the_models_order():
    layout = planned(["a"], ["a"], classes=["no", "yes"], has_probabilities=True, keep="none")
    assert layout.outputs == ("prediction", "probability_no", "probability_yes", "error")


def test_classifier_without_probabilities_has_no_columns_for_them():
    layout = planned(["a"], ["a"], classes=[0, 1], has_probabilities=False, keep="none")
    assert layout.outputs == ("prediction", "error")
    assert layout.classes == (0, 1)


def test_ours_takes_the_first_free_name():
    layout = planned(["prediction", "prediction_2", "error"])
    assert layout.outputs == ("prediction_3", "error_2")


def test_name_of_a_column_that_is_not_kept_is_free():
    assert planned(["prediction", "error"], keep=["error"]).outputs == ("prediction", "error_2")


def test_no_two_of_ours_share_a_name():
    layout = planned(["probability_a"], classes=["a", "a_2"], has_probabilities=True)
    assert layout.outputs == ("prediction", "probability_a_3", "probability_a_2", "error")
    layout = planned([], classes=[1, "1"], has_probabilities=True)
    assert layout.outputs == ("prediction", "probability_1", "probability_1_2", "error")


def test_header_line_has_the_kept_names_byte_for_byte():
    layout = planned(
        ["a", "b;c", "d"],
        header=['"a"', '"b;c"', "d"],
        keep=["a", "b;c"],
        delimiter=";",
        line_end="\r\n",
        classes=["x;y"],
        has_probabilities=True,
    )
    assert layout.header_line() == b'"a";"b;c";prediction;"probability_x;y";error\r\n'


def test_json_names_are_quoted_where_csv_needs_it():
    layout = planned(["a,b", "c"], ["a,b"], format="json")
    assert layout.header == ('"a,b"', "c")
    assert layout.header_line() == b'"a,b",c,prediction,error\n'


@pytest.mark.parametrize("classes", [None, (0, 1), (True, False), ("é", "b"), (0.5, 1.0)])
def test_layout_survives_its_json(classes):
    layout = planned(["ä", "b"], ["b"], classes=classes, has_probabilities=classes is not None, delimiter=";")
    again = Layout.from_json(layout.to_json())
    assert again == layout
    assert list(map(type, again.classes or ())) == list(map(type, classes or ()))


def refusal(*args, **more):
    with pytest.raises(LayoutError) as caught:
        planned(*args, **more)
    return caught.value


def test_missing_columns_are_all_named():
    error = refusal(["id", "b"], ["a", "b", "c"])
    assert (error.code, error.columns, error.likely_delimiter) == ("missing_columns", ("a", "c"), None)
    assert "a, c" in error.detail


def test_missing_columns_name_the_delimiter_that_would_give_them():
    error = refusal(['a;b;"c'], ["a", "b"], header=['a;b;"c'])
    assert error.likely_delimiter == ";"
    assert "delimiter=semicolon" in error.detail
    error = refusal(['a;b;"é'], ["a", "b"], header=['a;b;"é'])
    assert error.likely_delimiter == ";"
    error = refusal(["x", "y\ta"], ["x,y", "a"], header=["x", "y\ta"])
    assert error.likely_delimiter == "\t"


def test_unknown_kept_columns_are_named():
    error = refusal(["a"], ["a"], keep=["a", "x", "y"])
    assert (error.code, error.columns) == ("unknown_column", ("x", "y"))


def test_column_that_stands_twice_is_refused():
    error = refusal(["a", "b", "a", "b", "a"])
    assert (error.code, error.columns) == ("duplicate_column", ("a", "b"))


def test_column_without_a_name_is_refused_with_its_place():
    error = refusal(["a", ""])
    assert error.code == "empty_column_name"
    assert "column 2" in error.detail


@pytest.mark.parametrize(
    ("value", "text"), [("a", "a"), (1, "1"), (-1.0, "-1.0"), (0.1, "0.1"), (True, "true"), (False, "false")]
)
def test_class_is_written_as_in_json_but_for_its_quotes(value, text):
    assert class_text(value) == text
