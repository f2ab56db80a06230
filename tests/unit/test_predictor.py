"""The predictor: one outcome for each row whatever the model does."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from models.add import add
from models.catalog import Catalog
from models.loading import load
from models.predictor import Prediction, Predictor
from tests.zoo import estimators as zoo


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    path = tmp_path_factory.mktemp("zoo")
    zoo.build(path)
    return path


@pytest.fixture(scope="module")
def one_number(animals):
    """The manifest of a model with one feature that accepts nothing unusual."""
    return Catalog.read(animals, "").find("raises")


def loaded(path, reference):
    manifest = Catalog.read(path, "").find(reference)
    return load(path, manifest.name, manifest.version, manifest.sha256)


def values(outcomes):
    return [outcome.value if isinstance(outcome, Prediction) else outcome.code for outcome in outcomes]


def test_no_rows_are_no_outcomes(animals):
    assert loaded(animals, "raises").predict([]) == []


@given(rows=st.lists(st.sampled_from([-2.0, -1.0, 1.0, 2.0, 3.5]), max_size=40))
def test_exactly_the_rows_that_make_the_model_raise_fail(one_number, rows):
    predictor = Predictor(one_number, zoo.Raises())
    expected = ["model_error" if x < 0 else x for x in rows]
    assert values(predictor.predict([[x] for x in rows])) == expected


def test_error_of_a_model_names_its_type_and_no_value(animals):
    (outcome,) = loaded(animals, "raises").predict([[-1.2345]])
    assert (outcome.code, outcome.column) == ("model_error", None)
    assert "ValueError" in outcome.message
    assert "1.2345" not in outcome.message


@pytest.mark.parametrize("name", ["nan", "infinite"])
def test_prediction_that_is_not_finite_fails_its_row_alone(animals, name):
    assert values(loaded(animals, name).predict([[1.0], [-1.0], [2.0]])) == [1.0, "not_finite", 2.0]


@pytest.mark.parametrize(("name", "value"), [("zero", 0), ("false", False)])
def test_zero_and_false_are_predictions(animals, name, value):
    for outcome in loaded(animals, name).predict([[1.0], [2.0]]):
        assert outcome.value == value
        assert type(outcome.value) is type(value)


@pytest.mark.parametrize("rows", [[[1.0]], [[1.0], [2.0], [3.0]]])
def test_answer_of_another_length_fails_the_whole_block(animals, rows):
    assert values(loaded(animals, "short").predict(rows)) == ["model_error"] * len(rows)


@pytest.mark.parametrize(
    "answer", [[[1.0, 2.0]], [None], [[1.0], [2.0]], 7.0, [{"a": 1}], [np.datetime64("2026-01-31")]]
)
def test_answer_that_is_no_plain_value_a_row_is_a_model_error(one_number, answer):
    class Odd(zoo.Animal):
        def predict(self, block):
            return answer

    assert values(Predictor(one_number, Odd()).predict([[1.0]])) == ["model_error"]


def test_answer_in_one_column_is_one_value_a_row(one_number):
    estimator = LinearRegression().fit([[1.0], [2.0]], [[1.0], [2.0]])
    assert values(Predictor(one_number, estimator).predict([[1.0], [2.0]])) == [
        pytest.approx(1.0),
        pytest.approx(2.0),
    ]


def test_interrupt_is_not_taken_for_a_model_error(one_number):
    class Interrupted(zoo.Animal):
        def harm(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Predictor(one_number, Interrupted()).predict([[-1.0]])


def test_probabilities_stand_in_the_order_of_the_classes(animals):
    predictor = loaded(animals, "sign")
    assert predictor.manifest.classes == (False, True)
    outcomes = predictor.predict([[1.0], [-1.0]])
    assert [outcome.value for outcome in outcomes] == [True, False]
    assert [type(outcome.value) for outcome in outcomes] == [bool, bool]
    assert [outcome.probabilities for outcome in outcomes] == [(0.0, 1.0), (1.0, 0.0)]


@pytest.mark.parametrize("labels", [["no", "yes"], [3, 5], [3.0, 5.0], [False, True]])
def test_class_keeps_its_own_type(tmp_path, labels):
    add(tmp_path, "rent", pickle.dumps(DecisionTreeClassifier().fit([[1.0], [2.0]], labels)))
    predictor = loaded(tmp_path, "rent")
    for row, label in zip([[1.0], [2.0]], labels, strict=True):
        (outcome,) = predictor.predict([row])
        assert outcome.value == label
        assert type(outcome.value) is type(label)


def test_wrong_number_of_probabilities_fails_the_block(one_number):
    class Unsure(zoo.Sign):
        def predict_proba(self, block):
            return np.ones((len(block), 3))

    manifest = replace(one_number, classes=(False, True), has_probabilities=True)
    assert values(Predictor(manifest, Unsure()).predict([[1.0], [2.0]])) == ["model_error"] * 2


def test_probability_that_is_not_finite_is_not_finite(one_number):
    class Unsure(zoo.Sign):
        def predict_proba(self, block):
            return np.full((len(block), 2), math.nan)

    manifest = replace(one_number, classes=(False, True), has_probabilities=True)
    assert values(Predictor(manifest, Unsure()).predict([[1.0]])) == ["not_finite"]


def test_missing_number_reaches_the_model_as_nan(one_number):
    seen = []

    class Watches(zoo.Animal):
        def answer(self, x):
            seen.extend(x)
            return np.zeros(len(x))

    Predictor(one_number, Watches()).predict([[None], [1.0]])
    assert math.isnan(seen[0])
    assert seen[1] == 1.0


def test_array_is_contiguous_float64(one_number):
    block = Predictor(one_number, zoo.Identity()).build_block([np.array([1.0, np.nan])])
    assert block.dtype == np.float64
    assert block.flags.c_contiguous


MIXED = pd.DataFrame({"area": [1.0, 2.0, 3.0, 4.0], "heating": ["gas", "oil", "oil", "gas"]})


@pytest.mark.parametrize("missing", [None, np.nan])
def test_missing_text_is_the_one_the_encoder_was_fitted_on(tmp_path, missing):
    heating = pd.Series([missing, "oil", "oil", missing], dtype=object)
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["heating"]), ("passthrough", ["area"]), remainder="drop"
    )
    table = MIXED.assign(heating=heating)
    estimator = make_pipeline(columns, LinearRegression()).fit(table, [9.0, 0.0, 0.0, 9.0])
    add(tmp_path, "rent", pickle.dumps(estimator))
    assert values(loaded(tmp_path, "rent").predict([[1.0, None], [2.0, "oil"]])) == [
        pytest.approx(9.0),
        pytest.approx(0.0, abs=1e-9),
    ]


def test_block_that_raises_row_by_row_ends_early_with_its_first_rows(animals):
    predictor = loaded(animals, "raises")
    columns = [np.array([-1.0] * 1000 + [5.0] * 1000)]
    predicted = predictor.predict_columns(columns, seconds=0)
    done = len(predicted.values)
    assert 1 <= done < 1000
    assert set(predicted.errors) == set(range(done))
    rest = predictor.predict_columns([columns[0][done:]])
    assert len(rest.values) == 2000 - done
    assert rest.values[1000 - done :].tolist() == [5.0] * 1000


def test_probabilities_lie_row_by_row_whatever_the_estimator_gives(one_number):
    class Transposed(zoo.Sign):
        def predict_proba(self, block):
            positive = (np.asarray(block)[:, 0] > 0).astype(float)
            return np.vstack([1 - positive, positive]).T

    manifest = replace(one_number, classes=(False, True), has_probabilities=True)
    predicted = Predictor(manifest, Transposed()).predict_columns([np.array([1.0, -1.0, 2.0])])
    assert predicted.probabilities.flags.c_contiguous
    assert predicted.probabilities.tolist() == [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]


def test_number_in_an_array_of_objects_that_is_not_finite_is_found(one_number):
    class Odd(zoo.Animal):
        def predict(self, block):
            return np.array([np.float32("nan"), 1.0], dtype=object)

    assert values(Predictor(one_number, Odd()).predict([[1.0], [2.0]])) == ["not_finite", 1.0]
