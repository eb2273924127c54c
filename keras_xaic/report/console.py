"""The report for a terminal, as rich renderables; printing is the caller's."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from keras_xaic.arguments import an, checked
from keras_xaic.report import cells, wording
from keras_xaic.report.schema import Report


@checked(report=an(Report))
def render(report: Report) -> RenderableType:
    """Returns the whole report: comparison, interpreters, layers, warnings and verdict."""
    parts: list[RenderableType] = [comparison_table(report)]
    if len(report.outputs) > 1:
        parts.append(output_table(report))
    if report.layers:
        parts.append(layer_table(report))
    parts += [Text(f"! {warning}", style="yellow") for warning in report.warnings]
    style = "red" if wording.budget_misses(report) or report.budget.met is False else "green"
    parts.append(Text(report.verdict or wording.verdict(report), style=style))
    return Group(*parts)


@checked(report=an(Report))
def comparison_table(report: Report) -> Table:
    """Returns before and after, with the baselines beside them."""
    title = f"{report.model.name or 'model'} - {report.recipe or 'compressed'}"
    table = Table(title=Text(title), title_justify="left")
    table.add_column("")
    *others, last = wording.columns(report)
    for name in others:
        table.add_column(Text(name), justify="right")
    table.add_column(Text(last), justify="right", style="bold")
    for row in wording.rows(report):
        table.add_row(*map(Text, (row.label, *row.values)))
    for name, run in report.interpreters.items():
        state = cells.score(run.metric, report.metric) if run.ran else "did not run"
        judges = ", the judge" if report.judge is not None and report.judge.interpreter == name else ""
        table.add_row(Text(f"on {name} {run.version or ''}".rstrip() + judges), *[cells.NONE] * len(others), state)
    return table


def output_table(report: Report) -> Table:
    """Returns what each output gives, the one that lost most first."""
    table = Table(title="Outputs, the one that lost most first", title_justify="left")
    for position, name in enumerate(wording.output_columns(report)):
        table.add_column(Text(name), justify="left" if position < 3 else "right")
    for row in wording.output_rows(report):
        table.add_row(*map(Text, (row.label, *row.values)))
    return table


@checked(report=an(Report))
def layer_table(report: Report) -> Table:
    """Returns what was done to each layer."""
    table = Table(title="Layers", title_justify="left")
    table.add_column("layer")
    table.add_column("kind")
    for name in ("relevance", "weights", "bits", "zeros", "filters", "flash", "storage", "time"):
        table.add_column(name, justify="right")
    for layer in report.layers:
        table.add_row(
            Text(layer.name),
            Text(layer.kind),
            cells.NONE if layer.relevance is None else f"{layer.relevance:.3g}",
            cells.number(layer.weights),
            cells.NONE if layer.bits is None else f"{layer.bits:g}",
            cells.share(layer.sparsity),
            cells.number(layer.filters_kept),
            cells.size(layer.flash_bytes),
            layer.storage or cells.NONE,
            cells.slowdown(layer.slowdown),
        )
    return table


@checked(report=an(Report))
def summary_line(report: Report) -> str:
    """Returns the one line that ``--quiet`` leaves."""
    small, metric = report.compressed, report.metric
    parts = [f"flash {cells.size(small.flash_bytes)}"]
    if small.download_bytes is not None:
        parts.append(f"download {cells.size(small.download_bytes)}")
    if small.edge_metric is not None:
        parts.append(f"{cells.metric_name(report)} {cells.score(small.edge_metric, metric)}")
    if small.drop_pp is not None:
        parts.append(f"drop {cells.points(small.drop_pp, metric)}")
    if small.edge_metric is None and small.agreement is not None:
        parts.append(f"agreement {cells.share(small.agreement)}")
    parts += filter(None, [wording.time_taken(report), wording.reasons_kept(report)])
    misses = wording.budget_misses(report)
    if misses:
        kept = wording.budget_kept(report)
        parts.append("budget missed: " + "; ".join(misses) + (f"; kept: {', '.join(kept)}" if kept else ""))
    elif report.budget.met is not None:
        parts.append("budget met" if report.budget.met else "budget missed")
    return ", ".join(parts)
