"""The report as one page that needs nothing but itself."""

from __future__ import annotations

import pathlib

from jinja2 import Environment, PackageLoader, StrictUndefined

from keras_xaic.bundle import PathLike, write_atomic
from keras_xaic.report import wording
from keras_xaic.report.chart import layer_chart
from keras_xaic.report.schema import Report


def render_html(report: Report) -> str:
    """Returns the report as a self-contained HTML page (styles and pictures inline, no scripts, no network)."""
    environment = Environment(
        loader=PackageLoader("keras_xaic.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        report=report,
        words=wording,
        columns=wording.columns(report),
        rows=wording.rows(report),
        verdict=report.verdict or wording.verdict(report),
        misses=wording.budget_misses(report),
        chart=layer_chart(report.layers),
    )


def write_html(report: Report, path: PathLike) -> pathlib.Path:
    """Writes the page, whole or not at all.

    Args:
        report: The report.
        path: The file, or the directory that is to hold report.html.

    Returns:
        The file.
    """
    where = pathlib.Path(path)
    file = where / "report.html" if where.is_dir() else where
    write_atomic(file, render_html(report))
    return file
