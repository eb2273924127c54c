"""Rows of bench/compare.py as a picture: bytes to download against accuracy, and what no other method beats in both."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from comparison import NAMES, Line
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

OURS, PEERS, INK, SHADE = "#0072b2", "#d55e00", "#444444", "#eef3ea"
"""Blue and vermillion of Okabe and Ito, which every common form of colour vision tells apart; markers differ, too."""
WORST_DROP, ROOM = 0.05, 0.007
"""Of accuracy, below and above the original's. What is worse lies at the edge of the panel, with its figure."""
ERRORS = (0.3, 0.002)
"""The same for errors: the worst and the best that the panel holds."""
AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.8, 0.8), (0.8, -0.8), (-0.8, 0.8), (-0.8, -0.8))
PLACES = [(dx * far, dy * far) for far in (1, 2, 3.2) for dx, dy in AROUND]
"""Where a label may stand, in steps away from its point; those that are not near get a thin line to it."""
NEAR = len(AROUND)
Box = tuple[float, float, float, float]


def draw(lines: Sequence[Line], path: pathlib.Path) -> None:
    """Writes the picture as PNG."""
    models = list(dict.fromkeys(line.model for line in lines))
    columns = min(2, len(models))
    rows = -(-len(models) // columns)
    figure = Figure(figsize=(5.4 * columns, 4.4 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = []
    for number, model in enumerate(models):
        mine = [line for line in lines if line.model == model and line.measured]
        panels.append(Panel(figure.add_subplot(rows, columns, number + 1), mine))
    figure.legend(handles=_legend(), loc="outside upper left", ncols=3 if columns > 1 else 1, frameon=False, fontsize=9.5)
    figure.draw_without_rendering()  # labels are placed in pixels, so the layout must be known
    for panel in panels:
        panel.add_labels()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=170)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the points (bytes, worth) of which no other is as small and worth more, smallest first."""
    best: list[tuple[float, float]] = []
    for size, worth in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or worth > best[-1][1]:
            best.append((size, worth))
    return best


def _legend() -> list[Line2D]:
    keys = [(OURS, "o", OURS, "keras-xaic"), (PEERS, "D", PEERS, "TFLite, TFMOT, other tools")]
    keys += [(INK, "o", "white", "hollow: misses a limit (bytes of flash or download, accuracy)")]
    return [
        Line2D([], [], color=edge, marker=marker, markerfacecolor=face, linestyle="-" if face == edge else "", label=text)
        for edge, marker, face, text in keys
    ]


class Panel:
    """One model's part of the picture."""

    def __init__(self, axes: Any, lines: Sequence[Line]) -> None:
        self.axes, self.lines = axes, lines
        one = lines[0]
        self.budget, self.is_error = one.budget, one.is_error
        original = one.original or 0.0
        self.worst, self.best = ERRORS if self.is_error else (original - WORST_DROP, original + ROOM)
        self.floor = self.budget["max_error"] if self.is_error else original - self.budget["max_drop"] / 100
        self.fronts: list[list[tuple[float, float]]] = []
        self.frame(one.model)
        if not self.is_error:
            axes.axhline(original, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
            axes.annotate("original", (axes.get_xlim()[0], original), **_small(2))
        for ours, colour, marker in ((False, PEERS, "D"), (True, OURS, "o")):
            self.add_family([line for line in lines if line.ours == ours], colour, marker)

    def frame(self, model: str) -> None:
        axes, sizes = self.axes, [line.mean("download_bytes") for line in self.lines]
        axes.set_xscale("log")
        axes.set_xlim(min(*sizes, self.budget["download"]) / 1.5, max(sizes) * 2)
        if self.is_error:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        else:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        span = 0.06 * (self.best - self.worst)
        axes.set_ylim(self.worst * 1.4 if self.is_error else self.worst - span, self.best)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(_bytes))
        limit = self.budget["download"]
        axes.fill_between([axes.get_xlim()[0], limit], self.floor, self.best, color=SHADE, zorder=0, linewidth=0)
        axes.annotate("budget", (axes.get_xlim()[0], self.best), **{**_small(-3), "va": "top"})
        axes.set_title(NAMES[model], fontsize=10.5, loc="left", color=INK, weight="bold")
        axes.set_xlabel("download", fontsize=9, color=INK)
        axes.set_ylabel("error, share of the variance" if self.is_error else "accuracy", fontsize=9, color=INK)
        axes.tick_params(labelsize=8.5, colors=INK, length=3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#bbbbbb")
        axes.grid(color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)

    def add_family(self, lines: Sequence[Line], colour: str, marker: str) -> None:
        sign = -1 if self.is_error else 1
        points = front([(line.mean("download_bytes"), sign * line.figure) for line in lines])
        inside = [(size, sign * worth) for size, worth in points]
        if inside:
            self.fronts.append(inside)
            self.axes.plot(*zip(*inside), color=colour, linewidth=1.4, alpha=0.5, drawstyle="steps-post", zorder=2)
        for line in lines:
            x, y = self.place(line)
            shape = marker if y == line.figure else "v" if self.is_worse(line.figure) else "^"
            if shape == marker and len(line.figures) > 1:
                self.axes.plot([x, x], [min(line.figures), max(line.figures)], color=colour, linewidth=1, zorder=3)
            face = "white" if line.misses else colour
            self.axes.plot(x, y, shape, color=colour, markerfacecolor=face, markersize=6, markeredgewidth=1.3, zorder=4)

    def place(self, line: Line) -> tuple[float, float]:
        low, high = sorted((self.worst, self.best))
        return line.mean("download_bytes"), min(max(line.figure, low), high)

    def is_worse(self, figure: float) -> bool:
        return figure > self.worst if self.is_error else figure < self.worst

    def add_labels(self) -> None:
        """Puts every name beside its point where it covers least."""
        renderer, to_pixels = self.axes.figure.canvas.get_renderer(), self.axes.transData
        step, bounds = 7 * self.axes.figure.dpi / 100, self.axes.get_window_extent(renderer)
        spots = [to_pixels.transform(self.place(line)) for line in self.lines]
        taken = [(x - 0.6 * step, y - 0.6 * step, x + 0.6 * step, y + 0.6 * step) for x, y in spots]
        taken += [box for line in self.fronts for box in _steps(to_pixels.transform(line), 0.15 * step)]
        for line, (x, y) in zip(self.lines, spots):
            text = self.axes.text(0, 0, self.label(line), fontsize=7.8, color=OURS if line.ours else PEERS, zorder=3)
            text.set(in_layout=False, path_effects=[withStroke(linewidth=2, foreground="white", alpha=0.8)])
            extent = text.get_window_extent(renderer)
            boxes = [_beside(x, y, dx * step, dy * step, extent.width, extent.height) for dx, dy in PLACES]
            costs = [sum(_overlap(box, other) for other in taken) + 3 * _outside(box, bounds) for box in boxes]
            chosen = min(range(len(boxes)), key=lambda i: costs[i] + 4 * i)
            left, low, right, high = boxes[chosen]
            taken.append(boxes[chosen])
            text.set_position(to_pixels.inverted().transform((left, low + 0.25 * extent.height)))
            if chosen >= NEAR:
                ends = [(x, y), (min(max(x, left), right), min(max(y, low), high))]
                self.axes.plot(*zip(*to_pixels.inverted().transform(ends)), color=text.get_color(), linewidth=0.5, zorder=2)

    def label(self, line: Line) -> str:
        if not self.is_worse(line.figure):
            return line.label
        return f"{line.label} {line.figure:.2g}" if self.is_error else f"{line.label} {line.figure:.0%}"


def _beside(x: float, y: float, dx: float, dy: float, width: float, height: float) -> Box:
    left = x + dx - (0 if dx > 0 else width if dx < 0 else width / 2)
    low = y + dy - (0 if dy > 0 else height if dy < 0 else height / 2)
    return left, low, left + width, low + height


def _steps(corners: Sequence[Sequence[float]], half: float) -> list[Box]:
    """Returns the boxes that a line of steps fills."""
    boxes = []
    for (x, y), (after_x, after_y) in zip(corners, corners[1:]):
        boxes.append((x, y - half, after_x, y + half))
        boxes.append((after_x - half, min(y, after_y), after_x + half, max(y, after_y)))
    return boxes


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: Box, bounds: Any) -> float:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return area - _overlap(box, (bounds.x0, bounds.y0, bounds.x1, bounds.y1))


def _small(up: float) -> dict[str, Any]:
    return {"xytext": (3, up), "textcoords": "offset points", "fontsize": 7.8, "color": INK}


def _bytes(value: float, _: Any) -> str:
    return f"{value / 1e6:g} MB" if value >= 1e6 else f"{value / 1e3:g} kB"
