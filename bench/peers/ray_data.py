"""Ray Data on a local cluster of two cores that is already up; writes a folder of CSV files."""

import tempfile
import warnings

import joblib
import pandas as pd
import ray
from protocol import Order, serve


def score(order: Order) -> None:
    model = ray.put(joblib.load(order.model))
    predicted = ray.data.read_csv(order.table).map_batches(
        predict, batch_format="pandas", batch_size=16_384, fn_args=(model, order.keep)
    )
    predicted.write_csv(order.output)


def predict(batch: pd.DataFrame, model: "ray.ObjectRef", keep: str) -> pd.DataFrame:
    estimator = ray.get(model)
    batch["prediction"] = estimator.predict(batch[estimator.feature_names_in_])
    return batch if keep == "all" else batch[[keep, "prediction"]]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    # A short path of its own: sockets lie in it.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray.init(num_cpus=2, include_dashboard=False, _temp_dir=folder, _node_ip_address="127.0.0.1")
        ray.data.DataContext.get_current().enable_progress_bars = False
        serve(score)
        ray.shutdown()
