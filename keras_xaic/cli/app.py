"""The command `xaic`."""

from __future__ import annotations

import typer

from keras_xaic.cli import build_commands, inspect_commands

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

app.command(rich_help_panel="Make it small")(build_commands.compress)
app.command(rich_help_panel="Look inside")(inspect_commands.explain)
app.command(rich_help_panel="Make it small")(build_commands.plan)
app.command(rich_help_panel="Make it small")(build_commands.export)
app.command(rich_help_panel="Look inside")(inspect_commands.verify)
app.command(rich_help_panel="Look inside")(inspect_commands.report)
app.command(rich_help_panel="Make it small")(build_commands.search)
app.command(rich_help_panel="Make it small")(build_commands.slim)
app.command(rich_help_panel="Make it small")(build_commands.unpack)
app.command(rich_help_panel="Make it small")(build_commands.project)
app.command(rich_help_panel="Find out")(inspect_commands.recipes)
app.command(rich_help_panel="Find out")(inspect_commands.doctor)
