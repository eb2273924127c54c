"""The picture of a search: size against accuracy."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from keras_xaic.files import writing


def save_chart(found: Sequence[tuple[int, float, bool]], path: pathlib.Path) -> None:
    """Writes a PNG.

    Args:
        found: (flash bytes, accuracy, on the Pareto front?) of every model.
        path: The file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    front = [(size / 1000, accuracy) for size, accuracy, best in found if best]
    axes.plot(*zip(*front), "o-", color="#1b6ca8", label="no other is smaller and better") if front else None
    others = [(size / 1000, accuracy) for size, accuracy, best in found if not best]
    axes.plot(*zip(*others), "x", color="#999999", label="others") if others else None
    axes.set_xlabel("flash (kB)")
    axes.set_ylabel("metric on validation data, on the edge interpreter")
    axes.grid(alpha=0.3)
    axes.legend()
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=120)
