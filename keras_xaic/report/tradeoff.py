"""The picture of size against quality: original, baselines, compressed model, and the front of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from keras_xaic.arguments import an, checked, several
from keras_xaic.report import svg
from keras_xaic.report.cells import in_percent, look_up, metric_name, reference_pointer
from keras_xaic.report.points import Found
from keras_xaic.report.schema import Report
from keras_xaic.report.wording import columns


@checked(report=an(Report), front=several(Found))
def plot_tradeoff(report: Report, front: Sequence[Found] = ()) -> Optional[Any]:
    """Returns a matplotlib figure of flash against the metric on the edge interpreter; None with fewer than two models.

    Args:
        report: What was measured.
        front: Models that a search found (see `Evidence.front`).
    """
    original, small = report.original, report.compressed
    sizes = [original.tflite_fp32_bytes, *(one.flash_bytes for one in report.baselines.values()), small.flash_bytes]
    scores = [
        look_up(report, reference_pointer(report)),
        *(one.edge_metric for one in report.baselines.values()),
        small.edge_metric,
    ]
    known = [(n, s / 1000, v) for n, s, v in zip(columns(report), sizes, scores) if s is not None and v is not None]
    if len(known) < 2:
        return None
    factor = 100 if in_percent(report.metric) else 1
    from matplotlib.ticker import LogLocator

    with svg.style():
        figure = svg.drawing(7.0, 3.9)
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.grid(True)
        axes.set_axisbelow(True)
        points = [one for one in front if {"flash", "metric"} <= set(one.values)]
        sign = -1 if report.metric is not None and report.metric.better == "lower" else 1  # in a search more is better
        found = [(one.values["flash"] / 1000, sign * one.values["metric"] * factor, one.best) for one in points]
        if found:
            axes.scatter(
                *zip(*[one[:2] for one in found]), s=16, color=svg.LINE, label="trials of the search (validation data)"
            )
            axes.plot(*zip(*sorted(one[:2] for one in found if one[2])), color=svg.BYTES, linewidth=1.2, label="Pareto front")
            axes.legend(loc="best", labelcolor=svg.QUIET)
        for position, (name, kilobytes, value) in enumerate(known):
            last = position == len(known) - 1
            colour = svg.RELEVANCE if last else svg.QUIET
            axes.scatter([kilobytes], [value * factor], s=90 if last else 46, color=colour, zorder=3)
            axes.annotate(
                name,
                (kilobytes, value * factor),
                xytext=(0, 9 if position % 2 else -18),
                textcoords="offset points",
                ha="center",
                color=svg.INK if last else svg.QUIET,
                weight="bold" if last else "normal",
            )
        if report.budget.flash_bytes:
            axes.axvline(report.budget.flash_bytes / 1000, color=svg.GOOD, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                "budget", (report.budget.flash_bytes / 1000, 0.02), xycoords=("data", "axes fraction"), xytext=(4, 0),
                textcoords="offset points", color=svg.GOOD,
            )  # fmt: skip
        axes.set_xlabel("flash in kB (logarithmic)")
        axes.set_ylabel(f"{metric_name(report)}{' in %' if in_percent(report.metric) else ''}, edge interpreter")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.xaxis.set_minor_formatter("")
        axes.margins(x=0.14, y=0.2)
    return figure


def tradeoff_svg(report: Report, front: Sequence[Found] = ()) -> str:
    """Returns the picture for the page, or nothing."""
    figure = plot_tradeoff(report, front)
    if figure is None:
        return ""
    names = ", ".join(columns(report))
    return svg.as_svg(figure, f"Size in flash against {metric_name(report)} on the edge interpreter, of {names}", "tradeoff")
