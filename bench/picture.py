"""Rows per second and memory over the size of the file, as a picture."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.measured import Key, Measured

NAMES = {"ours": "Queuecast", "naive_pandas": "naive pandas", "pyarrow_stream": "pyarrow", "polars_whole": "polars"}
COLORS = {"ours": "#c0392b", "naive_pandas": "#7f8c8d", "pyarrow_stream": "#2980b9", "polars_whole": "#8e44ad"}


def draw(path: Path, measured: Measured) -> None:
    """Writes the picture as SVG; two runs with the same figures give the same file."""
    mpl.rcParams.update({"svg.hashsalt": "queuecast", "svg.fonttype": "none"})
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    speed, memory = figure.subplots(1, 2)
    keys = sorted(
        (key for key in measured.walls if (key.output, key.model) == ("join", "linear")), key=lambda key: key.rows
    )
    for who in [name for name in NAMES if any(key.who == name for key in keys)]:
        own = [key for key in keys if key.who == who]
        _line(speed, who, [(key.rows, key.rows / (measured.wall(key) or 1)) for key in own])
        _line(memory, who, [(key.rows, _megabytes(measured, key)) for key in own if key in measured.memory])
    _label(speed, "rows per second")
    _label(memory, "peak MB (ours: all, with Redis)")
    speed.legend()
    figure.savefig(path, format="svg", metadata={"Date": None})


def _megabytes(measured: Measured, key: Key) -> float:
    peaks = measured.memory[key]
    together = peaks["all"] if key.who == "ours" else peaks["together"]
    return float(together)


def _line(axes: Axes, who: str, points: list[tuple[int, float]]) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), marker="o", color=COLORS[who], label=NAMES[who])


def _label(axes: Axes, what: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("rows")
    axes.set_ylabel(what)
    axes.grid(alpha=0.3, which="both", linewidth=0.4)
