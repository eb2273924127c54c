"""The page of a search: a chart of two objectives, and every model with the command that makes it again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from keras_xaic.arguments import a_path, an, checked, number, one_of_these
from keras_xaic.files import PathLike, expanded, write_atomic
from keras_xaic.objectives import OBJECTIVES
from keras_xaic.report import cells, svg
from keras_xaic.report.html import templates
from keras_xaic.report.points import FRONT, Found, Front
from keras_xaic.units import format_milliseconds, format_value

PAGE = "front.html"


@checked(front=an(Front), place=a_path)
def save_front(front: Front, place: PathLike) -> None:
    """Writes front.json and front.html into a directory."""
    where = expanded(place)
    write_atomic(where / FRONT, json.dumps(front.model_dump(), indent=1) + "\n")
    write_atomic(where / PAGE, render_front(front))


@checked(front=an(Front))
def render_front(front: Front) -> str:
    """Returns the page: a chart of the first two objectives, and a table of all points; nothing is loaded from elsewhere."""
    page = templates().get_template("front.html.j2")
    return page.render(front=front, objectives=OBJECTIVES, shown=shown_value, chart=Markup(_chart(front)))


@checked(name=one_of_these(OBJECTIVES), value=number)
def shown_value(name: str, value: float) -> str:
    """Returns a value of an objective as people read it.

    >>> shown_value("flash", 4608), shown_value("metric", 0.91234), shown_value("latency", 0.01234)
    ('4,608 B', '0.9123', '12.3 us')
    """
    unit = OBJECTIVES[name].unit
    if unit == "B":
        return str(cells.size(int(value)))
    return format_milliseconds(value) if unit == "ms" else format_value(value)


def _chart(front: Front) -> str:
    if not front.points:
        return ""
    across, up = front.objectives[:2]

    units = [_unit(name, [one.values[name] for one in front.points]) for name in (across, up)]

    def places(points: Sequence[Found]) -> Any:
        return [tuple(one.values[name] / size for name, (size, _) in zip((across, up), units)) for one in points]

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
        axes.set_xlabel(f"{across}{units[0][1]}")
        axes.set_ylabel(f"{up}{units[1][1]}")
        axes.margins(x=0.08, y=0.12)
    return svg.as_svg(figure, f"{across} against {up} of {len(front.points)} models", "front")


def _unit(name: str, values: Sequence[float]) -> tuple[float, str]:
    """Returns what an axis of these values counts in, and how its title says so."""
    unit = OBJECTIVES[name].unit
    if unit == "ms" and max(values) < 1.0:
        return 0.001, " (us)"
    return {"B": (1000.0, " (kB)"), "ms": (1.0, " (ms)")}.get(unit, (1.0, ""))
