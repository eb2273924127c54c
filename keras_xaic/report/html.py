"""The report as one page that needs nothing but itself."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from keras_xaic.arguments import a_path, an, checked
from keras_xaic.bundle import Bundle, open_bundle, undisturbed
from keras_xaic.files import PathLike, expanded, tells_machine_errors, write_atomic
from keras_xaic.ownership import check_replaceable
from keras_xaic.report import cells, wording
from keras_xaic.report.evidence import Evidence
from keras_xaic.report.heatmaps import Panel, panels
from keras_xaic.report.histograms import histogram_svg
from keras_xaic.report.schema import MetricFacts, Report, ShownFacts
from keras_xaic.report.tradeoff import tradeoff_svg

MOST_CLASSES, MOST_GRIDS = 20, 60
"""Rows and pictures on the page; report.json and grids.npz have the rest."""


@dataclass(frozen=True)
class Example:
    """A sample with its pictures, and its place in ``explanations.shown``."""

    position: int
    facts: ShownFacts
    panels: list[Panel]


@checked(report=an(Report), evidence=an(Evidence))
def render_html(report: Report, evidence: Optional[Evidence] = None) -> str:
    """Returns the report as a self-contained HTML page (styles and pictures inline, no scripts, no network).

    Every value stands in a ``<data value=... data-json=...>`` element that names its entry of report.json.

    Args:
        report: What was measured.
        evidence: What is drawn beside it.
    """
    evidence = evidence or Evidence()
    environment = templates()
    if report.slim is not None:
        at = functools.partial(_at, report, _forms(report))
        page = environment.get_template("slim.html.j2")
        return page.render(report=report, at=at, escaped=cells.escaped, unverified=evidence.unverified)
    return environment.get_template("report.html.j2").render(
        report=report,
        at=functools.partial(_at, report, _forms(report)),
        columns=_ours_second(wording.columns(report)),
        ours_second=_ours_second,
        rows=wording.rows(report),
        output_columns=wording.output_columns(report),
        output_rows=wording.output_rows(report),
        metric=cells.metric_name(report),
        reference=cells.reference_pointer(report),
        verdict=report.verdict or wording.verdict(report),
        steps=wording.next_steps(report),
        unverified=evidence.unverified,
        missed=bool(wording.budget_misses(report)) or report.budget.met is False,
        tradeoff=Markup(tradeoff_svg(report, evidence.front)),
        widths=_widths(report),
        grids=_grids(report, evidence),
        examples=_examples(report, evidence),
        worst=_worst_classes(report),
        escaped=cells.escaped,
    )


def templates() -> Environment:
    """Returns the environment of the pages' templates: everything is escaped, nothing may be missing."""
    environment = Environment(
        loader=PackageLoader("keras_xaic.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data"] = _data
    return environment


@checked(report=an(Report), path=a_path, evidence=an(Evidence))
def write_html(report: Report, path: PathLike, evidence: Optional[Evidence] = None) -> pathlib.Path:
    """Writes the page atomically.

    Args:
        report: The report.
        path: The file, or the directory that is to hold report.html.
        evidence: What is drawn beside it.

    Returns:
        The file.
    """
    where = expanded(path)
    file = where / "report.html" if where.is_dir() else where
    write_atomic(file, render_html(report, evidence))
    return file


@tells_machine_errors
@checked(path=a_path)
def rebuild_html(path: PathLike) -> Bundle:
    """Writes report.html of a bundle again, from its files alone.

    Raises:
        DataError: If there is no bundle, or one of its files is unusable.
        ExportError: If there is a report.html that we did not write.
    """
    bundle = open_bundle(path)
    check_replaceable(bundle.html)
    with undisturbed(bundle) as check:
        report, evidence = Report.load(bundle.report), Evidence.read(bundle)
        check()
        write_html(report, bundle.html, evidence)
    return bundle


def _forms(report: Report) -> dict[str, Callable[[Any], str]]:
    return {
        "text": cells.text,
        "size": cells.size,
        "score": functools.partial(cells.score, metric=report.metric),
        "points": functools.partial(cells.points, metric=report.metric),
        "percent": functools.partial(cells.score, metric=None),
        "pp": functools.partial(cells.points, metric=MetricFacts()),
        "share": cells.share,
        "number": cells.number,
        "decimal": cells.decimal,
        "significant": cells.significant,
        "slowdown": cells.slowdown,
        "tenths": functools.partial(cells.number, digits=1),
    }


def _at(report: Report, forms: dict[str, Callable[[Any], str]], pointer: str, form: str = "text") -> Markup:
    return _data(cells.cell(report, pointer, forms[form]))


def _data(value: str) -> Markup:
    if isinstance(value, cells.Cell) and value.pointer:
        content = value.value if isinstance(value.value, str) else json.dumps(value.value)
        return Markup('<data value="{}" data-json="{}">{}</data>').format(content, value.pointer, str(value))
    return escape(value)


def _ours_second(values: Sequence[str]) -> list[str]:
    """Original and compressed side by side, where a narrow screen shows both; baselines after them."""
    return [values[0], values[-1], *values[1:-1]]


def _widths(report: Report) -> list[dict[str, float]]:
    """Length of every layer's bars in percent: relevance and bytes of the largest, the others of all there could be."""
    most = {
        name: max((getattr(layer, name) or 0 for layer in report.layers), default=0) or 1
        for name in ("relevance", "flash_bytes")
    }
    return [
        {
            "relevance": 100 * max(0.0, layer.relevance or 0) / most["relevance"],
            "flash_bytes": 100 * (layer.flash_bytes or 0) / most["flash_bytes"],
            "bits": 100 * min(1.0, (layer.bits or 0) / 8),
            "sparsity": 100 * (layer.sparsity or 0),
            "filters_kept": 100 * (layer.filters_kept or 0) / (layer.filters or layer.filters_kept or 1),
        }
        for layer in report.layers
    ]


def _grids(report: Report, evidence: Evidence) -> list[tuple[int, Markup]]:
    drawn = [
        (position, Markup(histogram_svg(evidence.kernels[layer.name], layer.name)))
        for position, layer in enumerate(report.layers)
        if layer.name in evidence.kernels
    ]
    return drawn[:MOST_GRIDS]


def _examples(report: Report, evidence: Evidence) -> list[Example]:
    if evidence.explanations is None or report.explanations is None:
        return []
    shown = report.explanations.shown[: len(evidence.explanations)]
    return [Example(i, facts, panels(evidence.explanations, i, facts)) for i, facts in enumerate(shown)]


def _worst_classes(report: Report) -> list[int]:
    order = sorted(range(len(report.classes)), key=lambda i: (-report.classes[i].drop_pp, i))
    return order[:MOST_CLASSES]
