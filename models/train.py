"""Rebuilds the shipped artifacts from a fixed seed: `python -m models.train`."""

import argparse
import io
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from models.__main__ import ARTIFACTS
from models.add import add
from models.catalog import Manifest, ModelsError
from models.estimator import Estimator
from models.sample import parse

SEED = 20260131
HELD_OUT = 0.2
APARTMENTS = 1200
DISTRICTS = {"harbour": 260.0, "hill": 180.0, "old town": 340.0, "west": 0.0}
HEATINGS = {"district": 0.0, "gas": -30.0, "heat pump": 60.0}


class Table(NamedTuple):
    """What a model is fitted on: the features, and the column to predict."""

    features: pd.DataFrame
    target: pd.Series


@dataclass(frozen=True)
class Recipe:
    """How one shipped model is made."""

    name: str
    description: str
    table: Callable[[], Table]
    estimator: Callable[[], Estimator]
    packed: Callable[[Estimator], object] = lambda estimator: estimator


def train(models_path: Path) -> list[Manifest]:
    """Fits every shipped model and writes it as its version 1, in the place of the one that is there."""
    return [_build(recipe, models_path) for recipe in RECIPES]


def fit(recipe: Recipe) -> tuple[Estimator, Table, dict[str, float]]:
    """The model fitted on its whole table, the table, and what a model fitted on 80 % of it reaches on the rest."""
    table = recipe.table()
    estimator = recipe.estimator()
    metrics = _measure(clone(estimator), table)
    return estimator.fit(table.features, table.target), table, metrics


def boston() -> Table:
    """The table of the tutorial that this project grew from: rooms a dwelling, and the median price."""
    try:
        from mlxtend.data import boston_housing_data  # noqa: PLC0415 - needed for training only, not deployed
    except ImportError as error:
        raise ModelsError("The package mlxtend has the Boston table: pip install -r requirements-dev.txt.") from error
    features, prices = boston_housing_data()
    return Table(pd.DataFrame({"RM": features[:, 5]}), pd.Series(prices, name="MEDV"))


def diabetes() -> Table:
    """scikit-learn's diabetes table in the units in which it was measured."""
    features, target = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    return Table(features, target.rename("progression"))


def iris() -> Table:
    """scikit-learn's iris table with the species by name."""
    bunch = load_iris()
    columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    species = pd.Series(bunch.target_names[bunch.target], name="species", dtype=object)
    return Table(pd.DataFrame(bunch.data, columns=columns), species)


def apartments() -> Table:
    """Made-up flats with a made-up rent; some do not say when they were built, or in which district they lie."""
    random = np.random.default_rng(SEED)
    area = random.normal(70, 22, APARTMENTS).clip(18, 180).round(1)
    year = random.integers(1890, 2025, APARTMENTS).astype(float)
    distance = random.gamma(2.0, 2.5, APARTMENTS).round(2)
    district = random.choice(list(DISTRICTS), APARTMENTS)
    heating = random.choice(list(HEATINGS), APARTMENTS)
    rent = (150 + 11.5 * area + 1.2 * (year - 1950) - 22 * distance + [DISTRICTS[one] for one in district]) + [
        HEATINGS[one] for one in heating
    ]
    features = pd.DataFrame(
        {
            "area": area,
            "rooms": (area / 24).round().clip(1),
            "year_built": np.where(random.random(APARTMENTS) < 0.1, np.nan, year),
            "distance_km": distance,
            "district": pd.Series(
                np.where(random.random(APARTMENTS) < 0.1, np.nan, district.astype(object)), dtype=object
            ),
            "heating": pd.Series(heating.astype(object), dtype=object),
        }
    )
    return Table(features, pd.Series((rent + random.normal(0, 40, APARTMENTS)).round(2), name="rent"))


def boosting() -> Estimator:
    """Boosted trees that refuse what they were never taught: the table has no missing values."""
    return Pipeline(
        [
            ("refuse_missing", FunctionTransformer(validate=True)),
            ("regressor", HistGradientBoostingRegressor(max_iter=60, max_leaf_nodes=8, random_state=SEED)),
        ]
    )


def mixed() -> Estimator:
    """Every way of taking a column: filled or refused when missing, ignored or refused when the category is unknown."""
    columns = ColumnTransformer(
        [
            ("filled", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["rooms", "year_built"]),
            ("needed", StandardScaler(), ["area", "distance_km"]),
            (
                "unknown_ignored",
                make_pipeline(
                    SimpleImputer(strategy="constant", fill_value="unknown"), OneHotEncoder(handle_unknown="ignore")
                ),
                ["district"],
            ),
            ("unknown_refused", OneHotEncoder(handle_unknown="error"), ["heating"]),
        ]
    )
    return Pipeline([("columns", columns), ("regressor", Ridge())])


RECIPES = (
    Recipe(
        "housing",
        "The tutorial's model: the median price of a home (in 1000 dollars, Boston 1978) from its rooms. A toy: one of "
        "the table's columns was built on the assumption that segregation raises prices; not for real use.",
        boston,
        LinearRegression,
        lambda estimator: {"model": estimator},
    ),
    Recipe(
        "diabetes",
        "Progression of the disease one year on, for 442 patients of scikit-learn's diabetes table; boosted trees.",
        diabetes,
        boosting,
    ),
    Recipe(
        "iris",
        "The species of an iris from four lengths in cm, with probabilities; logistic regression.",
        iris,
        lambda: LogisticRegression(max_iter=1000),
    ),
    Recipe(
        "apartments",
        "Synthetic: made-up flats with a made-up monthly rent, to show numbers, categories and missing values.",
        apartments,
        mixed,
    ),
)


def _build(recipe: Recipe, models_path: Path) -> Manifest:
    estimator, table, metrics = fit(recipe)
    sample = parse(io.StringIO(table.features.to_csv(index=False)))
    return add(
        models_path,
        recipe.name,
        pickle.dumps(recipe.packed(estimator)),
        version="1",
        sample=sample,
        target=str(table.target.name),
        description=recipe.description,
        metrics=metrics,
        rows=len(table.features),
        replacing=True,
    ).manifest


def _measure(estimator: Estimator, table: Table) -> dict[str, float]:
    parts = train_test_split(table.features, table.target, test_size=HELD_OUT, random_state=SEED)
    seen, held_out, seen_target, truth = parts
    estimator.fit(seen, seen_target)
    answer = estimator.predict(held_out)
    if hasattr(estimator, "classes_"):
        probabilities = estimator.predict_proba(held_out)
        return _rounded(
            accuracy=accuracy_score(truth, answer),
            log_loss=log_loss(truth, probabilities, labels=estimator.classes_),
        )
    return _rounded(r2=r2_score(truth, answer), mean_absolute_error=mean_absolute_error(truth, answer))


def _rounded(**scores: float) -> dict[str, float]:
    return {name: round(float(score), 4) for name, score in scores.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Rebuilds all shipped models and prints how good they are; 0 is success."""
    parser = argparse.ArgumentParser(prog="python -m models.train", description=__doc__)
    parser.add_argument("--models-path", type=Path, default=ARTIFACTS, metavar="DIR", help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        for manifest in train(options.models_path):
            print(f"{manifest.name}@{manifest.version}", dict(manifest.metrics))
    except ModelsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
