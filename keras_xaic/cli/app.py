"""The command `xaic`."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

from keras_xaic.cli import build_commands, inspect_commands

try:  # newer releases of typer have a click of their own
    from typer._click.exceptions import NoSuchOption
except ImportError:
    from click import NoSuchOption  # type: ignore[assignment]


class Command(TyperCommand):
    """A command that says of an option which it lacks which commands have it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses what was typed."""
        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as error:
            having = [
                f"xaic {name}"
                for name, one in getattr(getattr(ctx.parent, "command", None), "commands", {}).items()
                if any(error.option_name in (*option.opts, *option.secondary_opts) for option in one.params)
            ]
            if having:
                said = f"xaic {self.name} has no option {error.option_name}: it is one of {', '.join(having)}"
                error.message, error.possibilities = said, None
            raise


app = typer.Typer(
    name="xaic",
    help="Compress a trained Keras model by attribution (LRP, DeepLIFT) and verify the result on an edge interpreter.\n\n"
    "Example: [bold]xaic compress model.h5 --data data.npz --flash 64kB --out small/[/bold]",
    epilog="Exit codes: 0 done, every budget met; 2 wrong input; 3 done, a budget missed; 4 an edge interpreter refused; "
    "5 the machine (disk full, no permission, out of memory, database out of reach); "
    "130 interrupted (the same command continues).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for panel, run in (
    ("Make it small", build_commands.compress),
    ("Look inside", inspect_commands.explain),
    ("Make it small", build_commands.plan),
    ("Make it small", build_commands.export),
    ("Look inside", inspect_commands.verify),
    ("Look inside", inspect_commands.report),
    ("Make it small", build_commands.search),
    ("Make it small", build_commands.slim),
    ("Make it small", build_commands.unpack),
    ("Make it small", build_commands.project),
    ("Find out", inspect_commands.recipes),
    ("Find out", inspect_commands.doctor),
):
    app.command(cls=Command, rich_help_panel=panel)(run)
