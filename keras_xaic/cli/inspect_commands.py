"""Commands that look inside a model, a bundle or this machine; each calls one public function."""

from __future__ import annotations

import pathlib
from typing import Optional

import typer

from keras_xaic.cli import completion
from keras_xaic.cli.given import check_given
from keras_xaic.cli.groups import command
from keras_xaic.cli.options import READING, DataOption, Model, Out, Overwrite, Seed
from keras_xaic.cli.terminal import Terminal, failing
from keras_xaic.errors import PlanError, choices
from keras_xaic.json_files import read_json
from keras_xaic.settings import SHARED, AttributionOptions, DataOptions


def _interpreters() -> list[str]:
    from keras_xaic.edge.interpreters import INTERPRETERS

    return ["auto", *INTERPRETERS, "all"]


@command(only={DataOptions: (*READING, "strict")})
def explain(
    terminal: Terminal,
    attribution: AttributionOptions,
    options: DataOptions,
    model: pathlib.Path = Model,
    data: pathlib.Path = DataOption,
    out: pathlib.Path = Out,
    seed: int = Seed,
    overwrite: bool = Overwrite,
) -> None:
    """Show what MODEL looks at: relevance of every layer, filter and weight.

    Example: [bold]xaic explain resnet8.h5 --data cifar10.npz --rule lrp.epsilon --out why/[/bold]
    """
    from keras_xaic.relevance.methods import check_rule
    from keras_xaic.relevance.tried import AUTO

    file = attribution.rule if attribution.rule.endswith(".json") else None
    check_given(model, data, out=out, kind="explanation", overwrite=overwrite, others=[file])
    if attribution.rule != AUTO:
        check_rule(attribution.rule if file is None else read_json(file))
    terminal.progress("load", 0, 1, "TensorFlow, model and data")
    from keras_xaic.pipeline import explain as run

    found = run(
        model,
        data,
        out,
        attribution=attribution,
        options=options,
        seed=seed,
        overwrite=overwrite,
        progress=terminal.progress,
    )
    terminal.show_explanation(found, out)


@command(json="Print what was measured as JSON, and nothing else.", only={DataOptions: ("scale", "offset", "task", "metric")})
def verify(
    terminal: Terminal,
    options: DataOptions,
    bundle: pathlib.Path = typer.Argument(..., help="A bundle directory.", metavar="DIR", show_default=False),
    data: pathlib.Path = DataOption,
    interpreter: str = typer.Option(
        "auto",
        "--interpreter",
        help="auto: the one that judges; all: every installed one; or a name, see `xaic doctor`.",
        autocompletion=_interpreters,
    ),
    cluster: Optional[str] = typer.Option(None, "--cluster", help=SHARED, show_default=False),
) -> None:
    """Measure size, accuracy and latency of a bundle from its files.

    Example: [bold]xaic verify small/ --data cifar10.npz --interpreter all[/bold]
    """
    from keras_xaic.edge.marking import verify as run

    found = run(bundle, data, interpreter=interpreter, options=options, cluster=cluster, progress=terminal.progress)
    terminal.show_verification(found)


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
    name: Optional[str] = typer.Argument(
        None, help="A recipe, or the path of one in JSON; default: all.", show_default=False, autocompletion=completion.recipes
    ),
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
            terminal.out.write(chosen[str(name)].to_json().rstrip("\n"))
        terminal.show_recipes(chosen)


def doctor() -> None:
    """Show versions, and run a tiny model on every edge interpreter that is installed.

    Example: [bold]xaic doctor[/bold]
    """
    with Terminal() as terminal, failing(terminal):
        from keras_xaic.edge.doctor import examine

        terminal.show_checks(examine())
