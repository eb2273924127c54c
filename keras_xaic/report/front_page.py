"""The page of a search: a chart of two objectives, and every model with the command that makes it again."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from keras_xaic.files import write_atomic
from keras_xaic.objectives import OBJECTIVES
from keras_xaic.report import cells, svg
from keras_xaic.report.html import templates
from keras_xaic.report.points import FRONT, Found, Front

PAGE = "front.html"


def save_front(front: Front, place: pathlib.Path) -> None:
    """Writes front.json and front.html into a directory."""
    write_atomic(place / FRONT, json.dumps(front.model_dump(), indent=1) + "\n")
    write_atomic(place / PAGE, render_front(front))


def render_front(front: Front) -> str:
    """Returns the page: a chart of the first two objectives, and a table of all points; nothing is loaded from elsewhere."""
    page = templates().get_template("front.html.j2")
    return page.render(front=front, objectives=OBJECTIVES, shown=shown_value, chart=Markup(_chart(front)))


def shown_value(name: str, value: float) -> str:
    """Returns a value of an objective as people read it.

    >>> shown_value("flash", 4608), shown_value("metric", 0.91234), shown_value("latency", 0.01234)
    ('4,608 B', '0.9123', '0.0123 ms')
    """
    unit = OBJECTIVES[name].unit
    if unit == "B":
        return str(cells.size(int(value)))
    return f"{value:.3g} ms" if unit == "ms" else f"{value:.4f}"


def _chart(front: Front) -> str:
    if not front.points:
        return ""
    across, up = front.objectives[:2]

    def places(points: Sequence[Found]) -> Any:
        factor = [1000.0 if OBJECTIVES[name].unit == "B" else 1.0 for name in (across, up)]
        return [(one.values[across] / factor[0], one.values[up] / factor[1]) for one in points]

    with svg.style():
        figure = svg.drawing(7.0, 3.9)
        axes = figure.add_subplot()
        axes.grid(True)
        axes.set_axisbelow(True)
        others, best = [[one for one in front.points if one.best == which] for which in (False, True)]
        if others:
            axes.scatter(*zip(*places(others)), s=18, color=svg.QUIET, label="others")
        if best:
            axes.plot(*zip(*places(best)), "o-", color=svg.BYTES, linewidth=1.2, markersize=6, label="no other beats them")
        axes.legend(loc="best", labelcolor=svg.QUIET)
        axes.set_xlabel(_axis(across))
        axes.set_ylabel(_axis(up))
        axes.margins(x=0.08, y=0.12)
    return svg.as_svg(figure, f"{across} against {up} of {len(front.points)} models", "front")


def _axis(name: str) -> str:
    unit = {"B": "kB", "1": ""}.get(OBJECTIVES[name].unit, OBJECTIVES[name].unit)
    return f"{name} ({unit})" if unit else name
