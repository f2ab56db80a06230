"""Finds out by asking an estimator to predict what its manifest has to say beyond what the estimator tells."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from models.catalog import Feature, Manifest, ModelsError
from models.estimator import Estimator, feature_names
from models.predictor import Prediction, Predictor, columns_of
from models.rows import RowError, Value

Row = Sequence[Value]

ROWS_ASKED = 50  # enough to see whether frame and array are treated alike, few enough for a slow model
UNSEEN = "a category nobody has seen"
SAME = 1e-12  # of the largest answer: linear models differ in the last bit with the memory layout


class CannotPredict(ModelsError):
    """Raised when an estimator does not predict one value for a row; the message has the reason."""


class SeveralOutputs(CannotPredict):
    """Raised when an estimator predicts more than one value for a row."""


def probe(draft: Manifest, estimator: Estimator, candidates: Sequence[Row]) -> tuple[Manifest, Row]:
    """The draft with what can only be seen by predicting, and the first of the candidates that can be predicted.

    The draft's names, types and classes are taken as they are. Raises CannotPredict when no candidate can be.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        manifest = replace(draft, needs_frame=_starts_with_frame(draft, estimator), has_probabilities=False)
        rows = _predictable(Predictor(manifest, estimator), candidates)
        manifest = replace(manifest, has_probabilities=_gives_probabilities(manifest, estimator, rows[0]))
        manifest = replace(manifest, needs_frame=manifest.needs_frame and _frame_matters(manifest, estimator, rows))
        predictor = Predictor(manifest, estimator)
        features = tuple(_probed(predictor, rows[0], place) for place in range(len(manifest.features)))
        infinite = _accepts_infinite(predictor, rows[0])
    return replace(manifest, features=features, accepts_infinite=infinite), rows[0]


def _starts_with_frame(draft: Manifest, estimator: Estimator) -> bool:
    return feature_names(estimator) is not None or any(feature.type == "text" for feature in draft.features)


def _predictable(predictor: Predictor, candidates: Sequence[Row]) -> list[Row]:
    rows = [row for row in candidates[:ROWS_ASKED] if _predicts(predictor, row)]
    if not rows:
        _explain(predictor, candidates[0])
    return rows


def _predicts(predictor: Predictor, row: Row) -> bool:
    return isinstance(predictor.predict([row])[0], Prediction)


def _explain(predictor: Predictor, row: Row) -> None:
    try:
        answer = predictor.ask(columns_of([row], predictor.manifest))
    except Exception as error:  # a model may raise anything
        raise CannotPredict(f"it raised {type(error).__name__}: {error}") from error
    if answer.values.ndim > 1:
        raise SeveralOutputs("it has several outputs, and only models with one can be")
    outcome = predictor.predict([row])[0]
    raise CannotPredict(outcome.message if isinstance(outcome, RowError) else "it predicts only sometimes")


def _gives_probabilities(manifest: Manifest, estimator: Estimator, row: Row) -> bool:
    if not manifest.classes or not callable(getattr(estimator, "predict_proba", None)):
        return False
    return _predicts(Predictor(replace(manifest, has_probabilities=True), estimator), row)


def _frame_matters(manifest: Manifest, estimator: Estimator, rows: Sequence[Row]) -> bool:
    if any(feature.type == "text" for feature in manifest.features):
        return True
    columns = columns_of(rows, manifest)
    by_name = Predictor(manifest, estimator).ask(columns)
    try:
        by_place = Predictor(replace(manifest, needs_frame=False), estimator).ask(columns)
    except Exception:  # a model may raise anything; that it does is the answer
        return True
    return not all(_are_same(one, other) for one, other in zip(by_name, by_place, strict=True))


def _are_same(one: Any, other: Any) -> bool:  # noqa: ANN401 - arrays of any kind, or None
    if one is None or one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    return bool(np.allclose(one, other, rtol=0, atol=SAME * np.max(np.abs(one), initial=0)))


def _probed(predictor: Predictor, row: Row, place: int) -> Feature:
    feature = predictor.manifest.features[place]
    return replace(
        feature,
        accepts_missing=_predicts(predictor, _with(row, place, None)),
        accepts_unknown=feature.type != "text" or _predicts(predictor, _with(row, place, UNSEEN)),
    )


def _accepts_infinite(predictor: Predictor, row: Row) -> bool:
    places = [place for place, feature in enumerate(predictor.manifest.features) if feature.type == "number"]
    asked = [_with(row, place, value) for place in places for value in (float("inf"), float("-inf"))]
    return bool(asked) and all(_predicts(predictor, other) for other in asked)


def _with(row: Row, place: int, value: Value) -> list[Value]:
    return [*row[:place], value, *row[place + 1 :]]
