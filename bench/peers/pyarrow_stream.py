"""A streaming script with two threads: one reads and predicts, the other writes; memory does not grow with the file."""

import queue
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pyarrow as pa
from protocol import Order, serve
from pyarrow import csv

warnings.filterwarnings("ignore", "X does not have valid feature names")
BLOCK_BYTES = 4 << 20
BLOCKS_AHEAD = 2


def score(order: Order) -> None:
    model = joblib.load(order.model)
    blocks: queue.Queue[pa.RecordBatch | None] = queue.Queue(BLOCKS_AHEAD)
    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(write, order.output, blocks)
        for block in csv.open_csv(order.table, read_options=csv.ReadOptions(block_size=BLOCK_BYTES)):
            features = np.column_stack([block.column(name) for name in model.feature_names_in_])
            kept = block if order.keep == "all" else block.select([order.keep])
            blocks.put(kept.append_column("prediction", pa.array(model.predict(features))))
        blocks.put(None)
        written.result()


def write(output: str, blocks: "queue.Queue[pa.RecordBatch | None]") -> None:
    first = blocks.get()
    assert first is not None
    options = csv.WriteOptions(quoting_style="needed")
    with csv.CSVWriter(output, first.schema, write_options=options) as file:
        file.write_batch(first)
        while (block := blocks.get()) is not None:
            file.write_batch(block)


if __name__ == "__main__":
    serve(score)
