"""Commands that look inside a model, a bundle or this machine; each calls one public function."""

from __future__ import annotations

import pathlib
import sys
from typing import Optional

import typer

from keras_xaic.cli.options import (
    Calibration,
    DataOption,
    Json,
    MetricName,
    Model,
    Offset,
    Out,
    Overwrite,
    Quiet,
    Scale,
    Seed,
    Task,
    Unsafe,
)
from keras_xaic.cli.terminal import Terminal, failing
from keras_xaic.errors import PlanError, choices


def _interpreters() -> list[str]:
    from keras_xaic.edge.interpreters import INTERPRETERS

    return ["auto", *INTERPRETERS, "all"]


def explain(
    model: pathlib.Path = Model,
    data: pathlib.Path = DataOption,
    out: pathlib.Path = Out,
    rule: str = typer.Option("lrp.epsilon", "--rule", help="Attribution rule, or a JSON file with a composite."),
    engine: str = typer.Option("auto", "--engine", help="auto, native or innvestigate."),
    target: Optional[str] = typer.Option(None, "--target", help="true, predicted, all or a class number.", show_default=False),
    start: str = typer.Option("one", "--start", help="one, logit or squared_error."),
    reduce: str = typer.Option("mean_abs", "--reduce", help="mean_abs, rms, mean, sum or momentum over samples."),
    reference: str = typer.Option("mean", "--reference", help="mean or zeros, for DeepLIFT and integrated gradients."),
    calibration: int = Calibration,
    batch_size: int = typer.Option(64, "--batch-size", min=1, help="Samples at a time; bounds memory."),
    per_class: bool = typer.Option(False, "--per-class", help="Also keep the relevance of each class."),
    pictures: int = typer.Option(4, "--pictures", min=0, help="Test samples to draw."),
    check: bool = typer.Option(False, "--cross-check", help="Run both engines and print the largest difference per layer."),
    seed: int = Seed,
    scale: float = Scale,
    offset: float = Offset,
    task: Optional[str] = Task,
    allow_approximate: bool = typer.Option(False, "--allow-approximate", help="Linearise layers that have no sound rule."),
    overwrite: bool = Overwrite,
    allow_unsafe: bool = Unsafe,
    quiet: bool = Quiet,
) -> None:
    """Show what MODEL looks at: relevance of every layer, filter and weight.

    Example: [bold]xaic explain resnet8.h5 --data cifar10.npz --rule lrp.epsilon --out why/[/bold]
    """
    with Terminal(quiet=quiet) as terminal, failing(terminal):
        terminal.progress("load", 0, 1, "TensorFlow, model and data")
        from keras_xaic.pipeline import explain as run

        explanation = run(
            model,
            data,
            out,
            rule=rule,
            engine=engine,
            target=int(target) if target is not None and target.lstrip("-").isdigit() else target,
            start=start,
            reduce=reduce,
            reference=reference,
            calibration=calibration,
            batch_size=batch_size,
            per_class=per_class,
            pictures=pictures,
            check=check,
            seed=seed,
            scale=scale,
            offset=offset,
            task=task,
            allow_approximate=allow_approximate,
            overwrite=overwrite,
            allow_unsafe=allow_unsafe,
            progress=terminal.progress,
        )
        terminal.show_explanation(explanation, out)


def verify(
    bundle: pathlib.Path = typer.Argument(..., help="A bundle directory.", metavar="DIR", show_default=False),
    data: pathlib.Path = DataOption,
    interpreter: str = typer.Option(
        "auto",
        "--interpreter",
        help="auto: the one that judges; all: every installed one; or a name, see `xaic doctor`.",
        autocompletion=_interpreters,
    ),
    task: Optional[str] = Task,
    metric: Optional[str] = MetricName,
    scale: Optional[float] = typer.Option(None, "--scale", help="As for compress; default: as the bundle says."),
    offset: Optional[float] = typer.Option(None, "--offset", help="See --scale."),
    quiet: bool = Quiet,
    json: bool = Json,
) -> None:
    """Measure size, accuracy and latency of a bundle from its files.

    Example: [bold]xaic verify small/ --data cifar10.npz --interpreter all[/bold]
    """
    with Terminal(quiet=quiet, as_json=json) as terminal, failing(terminal):
        from keras_xaic.edge.marking import verify as run

        terminal.show_verification(
            run(
                bundle,
                data,
                interpreter=interpreter,
                task=task,
                metric=metric,
                scale=scale,
                offset=offset,
                progress=terminal.progress,
            )
        )


def report(
    bundle: pathlib.Path = typer.Argument(..., help="A bundle directory.", metavar="DIR", show_default=False),
    open_page: bool = typer.Option(False, "--open", help="Open the page in a browser."),
) -> None:
    """(Re)build report.html from the files of a bundle.

    Example: [bold]xaic report small/ --open[/bold]
    """
    with Terminal() as terminal, failing(terminal):
        from keras_xaic.report import rebuild_html

        opened = rebuild_html(bundle)
        terminal.last(str(opened.html))
        if open_page:
            typer.launch(opened.html.absolute().as_uri())


def recipes(
    name: Optional[str] = typer.Argument(None, help="A recipe, or the path of one in JSON; default: all.", show_default=False),
    json: bool = typer.Option(False, "--json", help="Print the recipe as JSON, to start a recipe of your own from."),
) -> None:
    """Explain the recipes, each with its source.

    Example: [bold]xaic recipes auto --json > mine.json[/bold]
    """
    with Terminal(as_json=json) as terminal, failing(terminal):
        from keras_xaic.recipes import RECIPES, get_recipe

        if name is None and json:
            raise PlanError("--json without the name of a recipe", choices("", RECIPES), "xaic recipes auto --json")
        chosen = RECIPES if name is None else {name: get_recipe(name)}
        if json:
            sys.stdout.write(chosen[str(name)].to_json())
        terminal.show_recipes(chosen)


def doctor() -> None:
    """Show versions, and run a tiny model on every edge interpreter that is installed.

    Example: [bold]xaic doctor[/bold]
    """
    with Terminal() as terminal, failing(terminal):
        from keras_xaic.edge.doctor import examine

        terminal.show_checks(examine())
