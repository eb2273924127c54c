"""What a person sees: progress, tables, one clear line for an error."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from keras_xaic.cli.interruptions import INTERRUPTED
from keras_xaic.cli.progress_lines import ProgressLines
from keras_xaic.cli.streams import Stream
from keras_xaic.errors import Spelling, XaicError
from keras_xaic.files import machine_error
from keras_xaic.temporary import sweep
from keras_xaic.units import format_bytes, format_milliseconds, format_value

if TYPE_CHECKING:
    from keras_xaic.edge import Verification
    from keras_xaic.edge.doctor import Check
    from keras_xaic.pipeline.explaining import Explanation
    from keras_xaic.pipeline.previewing import Preview
    from keras_xaic.recipes import Recipe
    from keras_xaic.relevance.tried import Tried
    from keras_xaic.report import Report
    from keras_xaic.report.points import Front

try:  # newer releases of typer hold a click of their own
    from typer._click.globals import get_current_context
except ImportError:
    from click import get_current_context  # type: ignore[no-redef]

DEBUG = "XAIC_DEBUG"
"""Environment variable; with it an error that nobody foresaw shows where it came from."""
FILE_WIDTH = 120
"""Characters a line where the output goes to a file."""


class Terminal:
    """Shows progress on stderr while it is open, and results on stdout.

    Args:
        quiet: Only the last line is printed.
        as_json: Only the report is printed, as JSON; what a user's own code prints meanwhile goes to stderr.
    """

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet, self.json = quiet, as_json
        console = partial(Stream, highlight=False, markup=False, emoji=False)  # [npu] in a text or a name is no style
        self.out = console(file=sys.stdout, width=None if sys.stdout.isatty() else FILE_WIDTH)
        self.err = console(stderr=True)
        self.exit_code = 0
        self._ending = contextlib.ExitStack()
        self._progress: Optional[Progress] = None
        self._tasks: dict[str, TaskID] = {}
        self._lines = ProgressLines(partial(self.err.print, soft_wrap=True))

    def __enter__(self) -> Terminal:
        if self.json:
            self._ending.enter_context(contextlib.redirect_stdout(sys.stderr))
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._ending.close()
        self.stop()
        if error is None and self.exit_code:
            raise typer.Exit(self.exit_code)

    def stop(self) -> None:
        """Takes the progress display away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Shows how far a stage is (a `keras_xaic.progress.Progress`), where stderr is a file by lines."""
        if self.quiet or self.json:
            return
        if not self.err.is_terminal:
            self._lines(stage, done, total, note)
            return
        if self._progress is None:
            self._progress = Progress(
                SpinnerColumn(finished_text="[green]✓"),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeRemainingColumn(compact=True, elapsed_when_finished=True),
                TextColumn("{task.fields[note]}", style="dim", markup=False),
                console=self.err,
                refresh_per_second=4,
            )
            self._progress.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, note=note)
        self._progress.update(self._tasks[stage], completed=done, total=total, note=note)

    def say(self, *renderables: Any) -> None:
        """Prints, unless only the last line or JSON is wanted."""
        self.stop()
        if not (self.quiet or self.json):
            for renderable in renderables:
                self.out.print(renderable)

    def warn(self, line: str) -> None:
        """Prints what a user should know, as reports do."""
        self.say(Text(f"! {line}", style="yellow"))

    def last(self, line: str) -> None:
        """Prints the summary line."""
        self.stop()
        if not self.json:
            self.out.print(line, soft_wrap=True)

    def show_report(self, report: Report, out: pathlib.Path) -> None:
        """Prints a report; exit code 3 if a budget was missed."""
        from keras_xaic.report import render, summary_line

        self.stop()
        if self.json:
            self.out.write(report.to_json())
        self.say(render(report))
        self.last(f"{out}: {summary_line(report)}")
        self.exit_code = 0 if report.budget.met else 3

    def show_slim(self, report: Report, out: pathlib.Path) -> None:
        """Prints what slimming saved and what the interpreters found."""
        self.stop()
        if self.json:
            self.out.write(report.to_json())
        table = Table("interpreter", "version", "samples", "different outputs", "equal in every bit")
        assert report.slim is not None
        for name, proof in report.slim.proof.items():
            counts = ["" if count is None else str(count) for count in (proof.samples, proof.outcomes)]
            table.add_row(name, proof.version or "", *counts, "yes" if proof.equal else Text(proof.refused or "no"))
        self.say(table)
        for warning in report.warnings:
            self.warn(warning)
        sizes = [("model.tflite", report.compressed.flash_bytes), ("model.xaic", report.compressed.download_bytes)]
        sizes.append(("micro/model.tflite", report.compressed.micro_flash_bytes))
        shown = ", ".join(f"{name} {format_bytes(size)}" for name, size in sizes if size is not None)
        self.last(f"{out}: {shown}; the file that was given has {format_bytes(report.slim.original_bytes or 0)}")

    def show_verification(self, verification: Verification) -> None:
        """Prints what was measured."""
        self.stop()
        if self.json:
            self.out.write(json.dumps(verification.as_dict(), indent=1))
        by_output = verification.by_output()
        metric = verification.metric.name + (f" of {verification.output}" if by_output else "")
        self.say(_runs(verification, metric))
        for name, run in verification.runs.items():
            if run.delegation is not None and run.delegation.share not in (None, 1.0):
                self.say(f"{name} leaves to its slower kernels: first {run.delegation.refused}")
        if by_output:
            each = Table("output", "task", "metric", "original", "compressed", "drop", title="Outputs", title_justify="left")
            for one in by_output:
                values = ["" if one[key] is None else f"{one[key]:.4g}" for key in ("original", "compressed", "drop")]
                each.add_row(one["name"], one["task"], one["metric"], *values)
            self.say(each)
        accuracy = verification.edge_metric
        shown = "no labels" if accuracy is None else f"{metric} {format_value(accuracy)}"
        self.last(f"{verification.path}: {format_bytes(verification.flash_bytes)}, {shown} on {verification.samples:,} samples")
        if verification.error is not None:
            raise verification.error

    def show_explanation(self, explanation: Explanation, out: pathlib.Path) -> None:
        """Prints the layers with their relevance, and where the engines differ."""
        relevance = explanation.relevance
        table = Table(title=f"{relevance.rule}, {relevance.engine} engine, {relevance.samples} samples", title_justify="left")
        for name, justify in (("layer", "left"), ("kind", "left"), ("weights", "right"), ("filters", "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for name in ("effective", "relevance", "share"):
            table.add_column(name, justify="right")
        total = sum(abs(row.relevance) for row in explanation.rows) or 1.0
        for row in explanation.rows:
            name = f"{row.name} ({row.note})" if row.note else row.name
            counts = (f"{row.weights:,}", str(row.filters), f"{row.effective_filters:.1f}")
            table.add_row(name, row.kind, *counts, f"{row.relevance:.4g}", f"{abs(row.relevance) / total:.1%}")
        self.say(table)
        if relevance.tried:
            self.say(_rules_table(relevance.tried))
        if explanation.differences:
            check = Table("layer", "largest difference", "of the layer's maximum", title="native against iNNvestigate")
            for one in explanation.differences:
                check.add_row(one.name, f"{one.largest:.3g}", f"{one.relative:.2g}")
            self.say(check)
        self.last(f"{out}: relevance of {len(explanation.rows)} layers by {relevance.rule}")

    def show_preview(self, preview: Preview, out: pathlib.Path) -> None:
        """Prints a plan, what its file weighs, and how good it is before training."""
        plan = preview.plan
        self.say(plan.describe())
        if preview.original is not None:
            before, after = _values(preview.original), _values(preview.untrained)
            self.say(f"on validation data: original {before}, as planned and before any training {after}")
        if preview.without_micro is not None:
            self.warn(preview.without_micro.replace("was not written", "will not be written"))
        sizes = f"{format_bytes(plan.predicted_flash_bytes)} flash, {format_bytes(plan.predicted_download_bytes)} download"
        self.last(f"{out}: {sizes}, {plan.mean_bits:.2f} bits a weight")

    def show_search(self, found: Front, out: pathlib.Path, last: bool = True) -> None:
        """Prints the models that no other beats."""
        from keras_xaic.report import shown_value

        table = Table("trial", *found.objectives, title="Pareto front", title_justify="left")
        best = [one for one in found.points if one.best]
        for one in best:
            table.add_row(str(one.trial), *(shown_value(name, one.values[name]) for name in found.objectives))
        self.say(table)
        if found.failed:
            self.warn(
                f"{found.failed} trial{'s' * (found.failed != 1)} ended without a model; the last one said: {found.last_error}"
            )
        if found.pruned:
            self.say(f"{found.pruned} trials were ended early: a smaller model was better than they could become.")
        said = f"{out}: {len(found.points)} models, {len(best)} on the Pareto front, front.json and front.html"
        if last:
            self.last(said)

    def show_recipes(self, recipes: Mapping[str, Recipe]) -> None:
        """Prints the recipes."""
        table = Table("recipe", "what it does", show_lines=True)
        for recipe in recipes.values():
            how = [f"relevance by {recipe.rule}"] if recipe.rule else []
            how += [f"{', '.join(map(str, recipe.bits))} bits"] if recipe.bits else []
            how += ["may remove filters"] if recipe.filters else []
            how += ["also a baseline"] if recipe.comparable else []
            lines = [Text(recipe.summary), Text("; ".join(how), style="dim"), Text(f"Source: {recipe.source}", style="dim")]
            table.add_row(Text(recipe.name, style="bold"), Text("\n").join(line for line in lines if line))
        self.say(table)
        self.last("xaic compress MODEL --data DATA --recipe NAME --out DIR uses one of them.")

    def show_checks(self, checks: Sequence[Check]) -> None:
        """Prints what works here; exit code 4 if something needed does not."""
        table = Table("", "what", "found", "what to do")
        for check in checks:
            colour = "green" if check.state == "works" else "red" if check.needed else "yellow"
            table.add_row(Text(check.state, style=colour), check.name, check.detail, check.fix)
        self.say(table)
        broken = [check.name for check in checks if check.needed and check.state != "works"]
        self.last(f"Needed, and not working: {', '.join(broken)}" if broken else "Everything that is needed works here.")
        self.exit_code = 4 if broken else 0


def _runs(verification: Verification, metric: str) -> Table:
    """Returns a row for each interpreter."""
    table = Table("interpreter", "version", metric, "median", "p90", "delegated", "arena", "RAM")
    for name, run in verification.runs.items():
        value = verification.task.shown(run.value)
        accuracy = "did not run" if run.error else "" if value is None else format_value(value)
        times = ("", "") if run.latency is None else tuple(map(format_milliseconds, (run.latency.median, run.latency.p90)))
        delegated = None if run.delegation is None else run.delegation.share
        memory = [format_bytes(n) if n is not None else "" for n in (run.arena_bytes, run.peak_memory_bytes)]
        table.add_row(name, run.version or "", accuracy, *times, "" if delegated is None else f"{delegated:.0%}", *memory)
    return table


def _rules_table(tried: Sequence[Tried]) -> Table:
    """Returns what rules did when their order was followed, the best of every use first."""
    table = Table(title="damage on validation data, followed without training", title_justify="left")
    for name in ("use", "rule", "samples by", "damage at each step", "area"):
        table.add_column(name, overflow="fold", justify="right" if name == "area" else "left")
    for one in tried:
        bits = one.use == "bits"
        steps = [
            f"{step:g} bits: {lost:.1f}" if bits else f"{step:.0%}: {lost:.1f}"
            for step, lost in zip(one.steps, one.damage)
            if lost is not None
        ]
        mark = " (control)" if one.control else " (chosen)" if one.chosen else ""
        area = "given up" if one.area is None else f"{one.area:.2f}"
        table.add_row(one.use, one.rule + mark, one.reduce, ", ".join(steps), area, style="bold" if one.chosen else None)
    return table


def _values(value: object) -> str:
    """Returns a metric value, or those of several outputs in the model's order."""
    return ", ".join(f"{one:.4g}" for one in (value if isinstance(value, tuple) else (value,)))


def spelled_by(command: Any) -> dict[str, Spelling]:
    """Returns how a command spells its options, by their names in Python."""
    values = getattr(command.callback, "values", {})
    options = {one.name: one.opts[0] for one in command.params if one.opts[0].startswith("--")}
    return {name: Spelling.flag(flag, values.get(name, ())) for name, flag in options.items()}


@contextlib.contextmanager
def failing(terminal: Terminal) -> Iterator[None]:
    """Turns errors into one clear line and the exit code of their kind."""
    try:
        with contextlib.suppress(OSError):  # who needs temporary files will say it
            sweep(tempfile.gettempdir())
        yield
    except KeyboardInterrupt:
        raise _interrupted(terminal) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if INTERRUPTED.is_set():
            raise _interrupted(terminal) from None
        known = error if isinstance(error, XaicError) else machine_error(error)
        if known is None and os.environ.get(DEBUG):
            raise
        terminal.stop()
        context = get_current_context(silent=True)
        said = _bug(error) if known is None else known.render(None if context is None else spelled_by(context.command))
        terminal.err.print(f"xaic: {said}", style="red", soft_wrap=True)
        raise typer.Exit(4 if known is None else known.exit_code) from None


def _interrupted(terminal: Terminal) -> typer.Exit:
    """Says how to continue; returns the end of the command."""
    terminal.stop()
    again = shlex.join(["xaic", *sys.argv[1:]])
    terminal.err.print("xaic: interrupted. The same command continues from the last finished step:", soft_wrap=True)
    terminal.err.print(f"  {again}", soft_wrap=True)
    return typer.Exit(130)


def _bug(error: Exception) -> str:
    """Returns one line about an error that nobody foresaw."""
    trace, words = error.__traceback__, " ".join(str(error).split())[:200]
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" at {trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}"
    return f"an error in xaic itself: {type(error).__name__}: {words}{place}. Please report it ({DEBUG}=1 shows all of it)."
