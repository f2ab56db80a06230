"""Latency over load, as a picture: what clients wait at the median and at p99, over answers a second."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.singles.measured import Key, Measured

SHOWN = {
    ("ours", "predict"): ("Queuecast", "#c0392b"),
    ("flask", "flask"): ("Flask, model in process", "#7f8c8d"),
    ("mlserver", "mlserver"): ("MLServer", "#2980b9"),
    ("bentoml", "bentoml"): ("BentoML", "#8e44ad"),
    ("bentoml_task", "bentoml_task"): ("BentoML task", "#d2b4de"),
    ("rq_template", "rq_template"): ("Flask + RQ", "#27ae60"),
}


def draw(path: Path, measured: Measured) -> None:
    """Writes the picture as SVG; two runs with the same figures give the same file."""
    mpl.rcParams.update({"svg.hashsalt": "queuecast", "svg.fonttype": "none"})
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    middle, late = figure.subplots(1, 2, sharey=True)
    for axes, what in ((middle, "p50"), (late, "p99")):
        for (who, way), (name, color) in SHOWN.items():
            keys = sorted((key for key in measured.speeds if (key.who, key.way) == (who, way)), key=_clients)
            if keys:
                points = [(measured.of(key, "per_second") or 0, measured.of(key, what) or 0) for key in keys]
                axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=color, label=name)
        _label(axes, what)
    if middle.lines:
        figure.legend(*middle.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    figure.savefig(path, format="svg", metadata={"Date": None})


def _clients(key: Key) -> int:
    return key.clients


def _label(axes: Axes, what: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("answers per second, from one client to many")
    axes.set_ylabel(f"{what}, ms")
    axes.grid(alpha=0.3, which="both", linewidth=0.4)
