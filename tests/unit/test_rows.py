"""Cells and rows: contract sections 2, 5 and 6, one rule after the other."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.catalog import Feature, Manifest
from models.rows import RowError, arrange, read_cell, read_row

NUMBER = Feature("area", "number")
LENIENT = Feature("area", "number", accepts_missing=True)
TEXT = Feature("heating", "text", categories=("gas", "oil"), accepts_unknown=False)
ANY_TEXT = Feature("heating", "text", categories=("gas", "oil"), accepts_missing=True)


def manifest(*features, accepts_infinite=False):
    return Manifest(
        name="rent",
        version="1",
        sha256="",
        artifact="",
        task="regression",
        features=features,
        target="",
        classes=None,
        has_probabilities=False,
        accepts_infinite=accepts_infinite,
        needs_frame=False,
        metrics={},
        rows=None,
        library_versions={},
        created_at="",
        description="",
    )


def code_of(cell, feature, accepts_infinite=False):
    with pytest.raises(RowError) as caught:
        read_cell(cell, feature, accepts_infinite)
    assert caught.value.column == feature.name
    assert str(caught.value) == caught.value.message
    return caught.value.code


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_comes_back_exactly(number):
    value = read_cell(repr(number), NUMBER, False)
    assert value == number
    assert math.copysign(1, value) == math.copysign(1, number)


@pytest.mark.parametrize(
    ("cell", "value"),
    [("7", 7.0), (" \t7.5\t ", 7.5), ("+1e-3", 0.001), (".5", 0.5), ("5.", 5.0), ("-0", -0.0), ("1E3", 1000.0)],
)
def test_number_is_what_float_reads(cell, value):
    assert read_cell(cell, NUMBER, False) == value


WHITE_SPACE = ["\xa07", "7\xa0", "\n7", "7\r", "7\x0b", "\x0c7", "\x857"]  # float() would trim all of these
OTHER_DIGITS = ["\u0663", "\uff17", "1_000"]  # and read these


@pytest.mark.parametrize("cell", ["seven", "1,5", "1 2", "0x10", "7\0", "7\x1f", "--7", "1e", "na.", "nil", "-"])
def test_text_that_is_no_number_is_invalid(cell):
    assert code_of(cell, LENIENT) == "invalid_number"


@pytest.mark.parametrize(
    ("cell", "advised"), [("1,5", True), ("-0,5e3", True), ("1,234.5", False), ("1,2,3", False), ("six,", False)]
)
def test_decimal_comma_gets_advice(cell, advised):
    assert outcome_of(cell, NUMBER).message.endswith("; write decimals with a point") == advised


@pytest.mark.parametrize("cell", [*WHITE_SPACE, *OTHER_DIGITS])
def test_what_only_float_takes_for_a_number_is_invalid(cell):
    float(cell)
    assert code_of(cell, LENIENT) == "invalid_number"


@pytest.mark.parametrize("cell", [True, False, [], ["7"], {}, {"a": "1"}])
def test_json_that_is_no_number_is_invalid(cell):
    assert code_of(cell, LENIENT) == "invalid_number"


@pytest.mark.parametrize("cell", [None, "", " ", "\t", "na", "NA", "n/a", " NaN ", "null", "NULL", "None", "none\t"])
def test_missing_number_is_nothing_where_accepted_and_an_error_elsewhere(cell):
    assert read_cell(cell, LENIENT, False) is None
    assert code_of(cell, NUMBER) == "missing_value"


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e999", "+inf", "-1e400"])
def test_infinite_number_is_an_error_unless_the_model_takes_it(cell):
    assert code_of(cell, LENIENT) == "not_finite"
    assert math.isinf(read_cell(cell, LENIENT, True))


@pytest.mark.parametrize("cell", ["-nan", "+nan", "-NaN"])
def test_signed_nan_is_neither_missing_nor_infinite(cell):
    assert code_of(cell, LENIENT, False) == "not_finite"
    assert code_of(cell, LENIENT, True) == "not_finite"


def test_text_is_taken_as_it_is():
    assert read_cell("gas", TEXT, False) == "gas"
    for cell in (" gas", "GAS", "na", "nan", " ", "1.50", "solar"):
        assert read_cell(cell, ANY_TEXT, False) == cell


@pytest.mark.parametrize("cell", ["", None])
def test_only_the_empty_cell_is_missing_text(cell):
    assert read_cell(cell, ANY_TEXT, False) is None
    assert code_of(cell, TEXT) == "missing_value"


@pytest.mark.parametrize("cell", [" gas", "Gas", "na", "solar", "1"])
def test_unknown_category_is_refused_only_where_the_model_refuses_it(cell):
    assert code_of(cell, TEXT) == "unknown_category"


def test_unknown_category_is_told_which_are_known_unless_they_are_many():
    many = tuple(f"kind {number}" for number in range(11))
    message = outcome_of("solar", TEXT).message
    assert message == "heating has a category that the model does not know; it knows: gas, oil"
    message = outcome_of("solar", Feature("heating", "text", categories=many, accepts_unknown=False)).message
    assert message == "heating has a category that the model does not know; its manifest lists the ones it knows"


def test_categories_that_nobody_knows_refuse_nothing():
    assert read_cell("solar", Feature("heating", "text", accepts_unknown=False), False) == "solar"


@pytest.mark.parametrize("cell", [True, False, [], {}])
def test_what_is_not_text_is_no_category(cell):
    assert code_of(cell, ANY_TEXT) == "unknown_category"


def outcome_of(cell, feature):
    try:
        return read_cell(cell, feature, False)
    except RowError as error:
        return error


@given(cell=st.text(alphabet="0123456789abcxyz_.-", min_size=8), feature=st.sampled_from([NUMBER, TEXT]))
def test_error_never_repeats_the_cell(cell, feature):
    outcome = outcome_of(cell, feature)
    assert not isinstance(outcome, RowError) or cell not in outcome.message


@given(st.one_of(st.none(), st.booleans(), st.text(), st.lists(st.text())), st.sampled_from([NUMBER, TEXT, ANY_TEXT]))
def test_any_cell_is_a_value_or_a_row_error(cell, feature):
    outcome = outcome_of(cell, feature)
    if isinstance(outcome, RowError):
        assert outcome.code in {"invalid_number", "missing_value", "unknown_category", "not_finite"}
    else:
        assert outcome is None or type(outcome) is (str if feature.type == "text" else float)


def test_row_is_read_in_feature_order():
    assert read_row(["7", "gas"], manifest(NUMBER, TEXT)) == [7.0, "gas"]


def test_first_bad_cell_of_a_row_counts():
    with pytest.raises(RowError) as caught:
        read_row(["x", "solar"], manifest(NUMBER, TEXT))
    assert (caught.value.code, caught.value.column) == ("invalid_number", "area")


def test_model_that_takes_infinite_numbers_gets_them():
    assert read_row(["inf"], manifest(NUMBER, accepts_infinite=True)) == [math.inf]


@pytest.mark.parametrize("cells", [[], ["7"], ["7", "gas", ""]])
def test_row_of_another_length_has_a_wrong_cell_count(cells):
    for reading in (read_row, arrange):
        with pytest.raises(RowError) as caught:
            reading(cells, manifest(NUMBER, TEXT))
        assert (caught.value.code, caught.value.column) == ("wrong_cell_count", None)


def test_object_is_arranged_by_name_and_its_other_keys_left_out():
    assert arrange({"id": "a", "heating": "gas", "area": None}, manifest(NUMBER, TEXT)) == [None, "gas"]


def test_missing_key_is_a_missing_value_even_where_missing_values_are_accepted():
    with pytest.raises(RowError) as caught:
        arrange({"heating": "gas"}, manifest(LENIENT, TEXT))
    assert (caught.value.code, caught.value.column) == ("missing_value", "area")


def test_array_is_arranged_by_position():
    assert arrange(["7", "gas"], manifest(NUMBER, TEXT)) == ["7", "gas"]
    assert arrange(["7"], manifest(NUMBER)) == ["7"]


def test_bare_number_is_the_cell_of_a_model_with_one_feature():
    assert read_row(arrange("7", manifest(NUMBER)), manifest(NUMBER)) == [7.0]


def test_bare_value_is_too_few_cells_for_a_model_with_more_features():
    with pytest.raises(RowError) as caught:
        arrange("7", manifest(NUMBER, TEXT))
    assert caught.value.code == "wrong_cell_count"


@pytest.mark.parametrize("value", [True, "seven"])
def test_bare_value_of_a_wrong_kind_is_an_invalid_number(value):
    with pytest.raises(RowError) as caught:
        read_row(arrange(value, manifest(NUMBER)), manifest(NUMBER))
    assert caught.value.code == "invalid_number"
