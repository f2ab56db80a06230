"""Dask with two processes of one thread each; writes a folder of CSV files."""

import joblib
import pandas as pd
from dask import dataframe
from distributed import Client
from protocol import Order, serve

# The default is one block for this file, which only one process could work on.
BLOCK_BYTES = 4 << 20


def score(order: Order) -> None:
    model = joblib.load(order.model)
    table = dataframe.read_csv(order.table, blocksize=BLOCK_BYTES)
    shape = table._meta.assign(prediction=0.0)
    kept = shape if order.keep == "all" else shape[[order.keep, "prediction"]]
    table.map_partitions(predict, model, order.keep, meta=kept).to_csv(f"{order.output}/*.csv", index=False)


def predict(block: pd.DataFrame, model: object, keep: str) -> pd.DataFrame:
    predicted = block.assign(prediction=model.predict(block[model.feature_names_in_]))
    return predicted if keep == "all" else predicted[[keep, "prediction"]]


if __name__ == "__main__":
    with Client(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None):
        serve(score)
