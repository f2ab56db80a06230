"""What a fitted estimator tells about itself without being asked to predict."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector

from models.catalog import Class

Estimator: TypeAlias = Any  # there is no common type: whatever has `predict` will do

# Estimators around an estimator, as scikit-learn names their fitted inner one.
INNER = ("best_estimator_", "regressor_", "estimator_")
TASKS: tuple[tuple[str, Callable[[Estimator], bool]], ...] = (
    ("classification", is_classifier),
    ("clustering", is_clusterer),
    ("outlier_detection", is_outlier_detector),
)


def feature_names(estimator: Estimator) -> tuple[str, ...] | None:
    """The names of the columns it was fitted on, None when it was fitted on an array."""
    for part in _entrances(estimator):
        names = getattr(part, "feature_names_in_", None)
        if names is not None:
            return tuple(str(name) for name in names)
    return None


def feature_count(estimator: Estimator) -> int | None:
    """How many columns it was fitted on, None when it does not tell."""
    for part in _entrances(estimator):
        count = getattr(part, "n_features_in_", None)
        if count is not None:
            return int(count)
    return None


def task(estimator: Estimator) -> str:
    """What it does, in the manifest's words."""
    try:
        return next((name for name, does in TASKS if does(estimator)), "regression")
    except AttributeError:  # an estimator that is not built on scikit-learn's base class carries no tags
        return "classification" if hasattr(estimator, "classes_") else "regression"


def classes(estimator: Estimator) -> tuple[Class, ...] | None:
    """A classifier's classes in its own order as plain values, None for all others.

    Raises ValueError for classes that JSON does not know, and for those of several outputs.
    """
    if task(estimator) != "classification" or getattr(estimator, "classes_", None) is None:
        return None
    values = [plain(value) for value in estimator.classes_]
    known = tuple(value for value in values if isinstance(value, str | int | float))
    if len(known) < len(values):
        raise ValueError("its classes are neither texts nor numbers nor booleans, or it has several outputs")
    return known


def plain(value: object) -> object:
    """A numpy scalar as the Python value it holds, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def categories(estimator: Estimator, names: Sequence[str]) -> dict[str, list[object]]:
    """The categories that encoders inside it know, by the name of the input column they stand for.

    `names` are the columns that enter it. Encoders behind a step that changes what is in a column, or which columns
    there are, are left out: their categories are not those of the input.
    """
    if hasattr(estimator, "categories_"):
        return _encoder_categories(estimator, names)
    if hasattr(estimator, "transformers_"):
        return _transformer_categories(estimator, names)
    if hasattr(estimator, "steps"):
        return _pipeline_categories(estimator, names)
    # HistGradientBoosting keeps its own encoder of categorical columns in this attribute; there is no public one.
    for attribute in (*INNER, "_preprocessor"):
        if getattr(estimator, attribute, None) is not None:
            return categories(getattr(estimator, attribute), names)
    return {}


def _entrances(estimator: Estimator) -> Iterator[Estimator]:
    """The estimator, then whatever inside it sees the columns first."""
    yield estimator
    if hasattr(estimator, "steps"):
        yield from _entrances(estimator.steps[0][1])
    for attribute in INNER:
        if getattr(estimator, attribute, None) is not None:
            yield from _entrances(getattr(estimator, attribute))


def _encoder_categories(encoder: Estimator, names: Sequence[str]) -> dict[str, list[object]]:
    known = encoder.categories_
    if len(known) != len(names):
        return {}
    return {name: [plain(value) for value in values] for name, values in zip(names, known, strict=True)}


def _transformer_categories(transformer: Estimator, names: Sequence[str]) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    for _, inner, columns in transformer.transformers_:
        found |= categories(inner, _chosen(columns, names))
    return found


def _pipeline_categories(pipeline: Estimator, names: Sequence[str]) -> dict[str, list[object]]:
    steps = [step for _, step in pipeline.steps if step is not None and step != "passthrough"]
    # An imputer only fills what is missing; whatever else comes first may change the texts themselves.
    first = next(itertools.dropwhile(lambda step: type(step).__name__.endswith("Imputer"), steps), None)
    return {} if first is None else categories(first, names)


def _chosen(columns: object, names: Sequence[str]) -> list[str]:
    """The names that a ColumnTransformer's column specification chooses: names, numbers, a slice or a mask."""
    if isinstance(columns, str):
        return [columns]
    if isinstance(columns, slice) and isinstance(columns.start or columns.stop, str):
        return _between(columns, names)
    if isinstance(columns, slice):
        return list(names[columns])
    chosen = np.atleast_1d(np.asarray(columns))
    if chosen.dtype.kind in "OUT":
        return [str(name) for name in chosen]
    return [str(name) for name in np.asarray(names, dtype=object)[chosen]] if chosen.size else []


def _between(columns: slice, names: Sequence[str]) -> list[str]:
    """A slice of names, whose end is inside as in pandas."""
    places: Mapping[str, int] = {name: place for place, name in enumerate(names)}
    end = None if columns.stop is None else places[columns.stop] + 1
    return list(names[0 if columns.start is None else places[columns.start] : end])
