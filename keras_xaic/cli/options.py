"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import typer

from keras_xaic.errors import PlanError

Model = typer.Argument(..., help="A Keras model: .h5, .keras or a SavedModel directory.", metavar="MODEL", show_default=False)
DataOption = typer.Option(
    ..., "--data", help="An .npz with x_train, y_train, x_test, y_test, or a directory of images per class.", show_default=False
)
Out = typer.Option(..., "--out", help="Directory to write.", show_default=False)
Target = typer.Option(
    "both",
    "--target",
    help="mobile, micro or both.",
    rich_help_panel="Output",
    autocompletion=lambda: ["mobile", "micro", "both"],
)
Scale = typer.Option(1.0, "--scale", help="The model sees x * SCALE + OFFSET.", rich_help_panel="Data")
Offset = typer.Option(0.0, "--offset", help="See --scale.", rich_help_panel="Data")
Task = typer.Option(
    None,
    "--task",
    help="classification, binary, multi-label, segmentation, regression or reconstruction; default: what output, loss and "
    "targets say.",
    show_default=False,
    rich_help_panel="Data",
    autocompletion=lambda: ["classification", "binary", "multi-label", "segmentation", "regression", "reconstruction"],
)
MetricName = typer.Option(
    None,
    "--metric",
    help="What chooses epochs and judges: accuracy, top5, auc, f1, label_accuracy, mean_iou, pixel_accuracy, mae, mse, rmse or "
    "r2; default: the task's usual one.",
    show_default=False,
    rich_help_panel="Data",
)
Seed = typer.Option(0, "--seed", help="One seed in, the same bytes out.")
Calibration = typer.Option(
    256, "--calibration", min=1, help="Training samples for relevance and activation ranges.", rich_help_panel="Data"
)
Flash = typer.Option(
    None, "--flash", help="Limit for model.tflite, e.g. 48kB or 48KiB.", show_default=False, rich_help_panel="Budget"
)
Download = typer.Option(
    None, "--download", help="Limit for model.xaic, e.g. 20kB.", show_default=False, rich_help_panel="Budget"
)
Ram = typer.Option(None, "--ram", help="Limit for the tensor arena, e.g. 64kB.", show_default=False, rich_help_panel="Budget")
MaxDrop = typer.Option(
    1.0,
    "--max-drop",
    help="What the metric may lose: in percentage points; for errors (mse, mae, rmse) in per cent of the original's.",
    rich_help_panel="Budget",
)
Macs = typer.Option(
    None,
    "--macs",
    help="Limit of multiply-accumulates for one sample, e.g. 1.5M.",
    show_default=False,
    rich_help_panel="Budget",
)
RecipeOption = typer.Option("auto", "--recipe", help="A recipe of `xaic recipes`, or the path of one in JSON.")
Rule = typer.Option(
    None, "--rule", help="Attribution rule in place of the recipe's.", show_default=False, rich_help_panel="Method"
)
Bits = typer.Option(
    None, "--bits", help="Bit-widths in place of the recipe's, e.g. 2,3,4,8.", show_default=False, rich_help_panel="Method"
)
Pin = typer.Option([], "--pin", help="PATTERN=BITS: layers with a fixed bit-width; may be repeated.", rich_help_panel="Method")
FloatLayers = typer.Option(
    [], "--float-layers", help="PATTERN: layers that stay float32; may be repeated.", rich_help_panel="Method"
)
Zeros = typer.Option(
    [], "--zeros", help="PATTERN=2:4 or PATTERN=4x1: zeros that go together; may be repeated.", rich_help_panel="Method"
)
Align = typer.Option(
    None,
    "--align",
    min=1,
    help="Layers that lose filters keep a multiple of this many.",
    show_default=False,
    rich_help_panel="Method",
)
Protect = typer.Option(
    [], "--protect", help="Name pattern of layers that keep all filters; may be repeated.", rich_help_panel="Method"
)
Activations = typer.Option(
    None,
    "--activations",
    help="What is computed with: int8, int16, or float32: as fast as the original where int8 is slow; not for micro. "
    "Default: int8, or the plan's.",
    show_default=False,
    rich_help_panel="Method",
    autocompletion=lambda: ["int8", "int16", "float32"],
)
Overwrite = typer.Option(False, "--overwrite", help="Replace what xaic wrote there earlier.", rich_help_panel="Output")
Unsafe = typer.Option(
    False,
    "--allow-unsafe",
    help="Load models with Lambda layers or pickled code. Only if you trust the file.",
    rich_help_panel="Data",
)
Quiet = typer.Option(False, "--quiet", "-q", help="Print only the last summary line.", rich_help_panel="Output")
Json = typer.Option(False, "--json", help="Print report.json and nothing else.", rich_help_panel="Output")


def recipe_entries(
    rule: Optional[str],
    bits: Optional[str],
    pin: Sequence[str],
    float_layers: Sequence[str],
    zeros: Sequence[str],
    align: Optional[int],
    protect: Sequence[str],
) -> dict[str, Any]:
    """Returns the entries of a recipe that the options of a command change."""
    given: dict[str, Any] = {
        "rule": rule,
        "bits": None if bits is None else tuple(_number("--bits", one, "--bits 2,4,8") for one in bits.split(",")),
        "pin": {
            pattern: _number("--pin", value, "head*=8") for pattern, value in (_pair("--pin", one, "head*=8") for one in pin)
        },
        "float_layers": tuple(float_layers),
        "zeros": dict(_pair("--zeros", one, "dense*=2:4") for one in zeros),
        "align": align,
        "protect": tuple(protect),
    }
    return {name: value for name, value in given.items() if value}


def _pair(option: str, text: str, example: str) -> tuple[str, str]:
    """Splits what is given as PATTERN=VALUE."""
    pattern, separator, value = text.rpartition("=")
    if not (separator and pattern and value):
        raise PlanError(f"{option} {text}", f"PATTERN=VALUE, e.g. {example}")
    return pattern, value


def _number(option: str, text: str, example: str) -> int:
    if not text.strip().isdigit():
        raise PlanError(f"{option} {text}", f"a number of bits, e.g. {example}")
    return int(text)
