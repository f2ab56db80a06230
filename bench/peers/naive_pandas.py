"""The script that a person would write: read, predict, write."""

import joblib
import pandas as pd
from protocol import Order, serve


def score(order: Order) -> None:
    model = joblib.load(order.model)
    table = pd.read_csv(order.table)
    table["prediction"] = model.predict(table[model.feature_names_in_])
    columns = None if order.keep == "all" else [order.keep, "prediction"]
    table.to_csv(order.output, columns=columns, index=False)


if __name__ == "__main__":
    serve(score)
