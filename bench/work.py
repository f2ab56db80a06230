"""The work that is measured: seeded tables, and two models that were fitted on seeded numbers."""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from models.add import add
from models.catalog import Manifest

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".queuecast" / "bench"
SEED = 20260131
# Digits before and after the point: four to six significant ones, 57 bytes a row at a million rows.
SHAPES = ((2, 2), (1, 4), (3, 1), (2, 2), (1, 3), (2, 2), (3, 1), (3, 3))
FEATURES = tuple(f"x{number}" for number in range(1, len(SHAPES) + 1))
FITTED_ROWS = 20_000
BLOCK_ROWS = 100_000


@dataclass(frozen=True)
class Model:
    """One of the two models: what it is called here, as a model of ours, and where its file lies."""

    name: str
    manifest: Manifest
    file: Path


def table(rows: int) -> Path:
    """The CSV of so many rows, made when it is not there; a smaller one is the beginning of a larger one."""
    path = CACHE / f"table-{rows}.csv"
    if not path.exists():
        CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("w", encoding="ascii", newline="") as file:
            file.write(",".join(["id", *FEATURES]) + "\n")
            for start in range(0, rows, BLOCK_ROWS):
                file.writelines(_lines(start, min(BLOCK_ROWS, rows - start)))
        unfinished.rename(path)
    return path


def models(path: Path) -> dict[str, Model]:
    """Fits both models and adds them to the models folder `path`; by name."""
    columns = pd.DataFrame(_numbers(SEED, FITTED_ROWS), columns=FEATURES)
    scaled = columns / columns.mean()
    # Far from zero, so that a relative error says something.
    target = 100 + scaled @ np.arange(1, len(FEATURES) + 1) + 5 * np.sin(3 * scaled["x1"]) * scaled["x2"]
    estimators = {
        "linear": LinearRegression(),
        "hgb": HistGradientBoostingRegressor(max_iter=100, early_stopping=False, random_state=SEED),
    }
    return {name: _add(path, name, estimator.fit(columns, target)) for name, estimator in estimators.items()}


def expected(model: Model, rows: int) -> npt.NDArray[np.float64]:
    """What the model itself predicts for the table of so many rows."""
    path = CACHE / f"expected-{rows}-{model.manifest.sha256[:12]}.npy"
    if not path.exists():
        estimator = pickle.loads(model.file.read_bytes())
        blocks = pd.read_csv(table(rows), chunksize=BLOCK_ROWS, float_precision="round_trip")
        np.save(path, np.concatenate([estimator.predict(block[list(FEATURES)]) for block in blocks]))
    found: npt.NDArray[np.float64] = np.load(path)
    return found


def _add(path: Path, name: str, estimator: object) -> Model:
    manifest = add(path, f"bench-{name}", pickle.dumps(estimator), version="1", target="y", replacing=True).manifest
    return Model(name, manifest, path / manifest.name / manifest.version / manifest.artifact)


def _numbers(seed: int, rows: int) -> npt.NDArray[np.float64]:
    chance = np.random.default_rng(seed)
    columns = [
        chance.integers(10 ** (before + after - 1), 10 ** (before + after), rows) / 10**after
        for before, after in SHAPES
    ]
    return np.column_stack(columns)


def _lines(start: int, rows: int) -> Iterator[str]:
    numbers = _numbers(SEED + 1 + start, rows).tolist()
    return (f"{start + place},{','.join(map(repr, row))}\n" for place, row in enumerate(numbers))
