"""Arguments and options that several commands share, and the entries of a recipe that options change."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Union

import typer

from keras_xaic.errors import PlanError
from keras_xaic.objectives import SearchOptions
from keras_xaic.settings import option

if TYPE_CHECKING:
    from keras_xaic.planning import Plan
    from keras_xaic.recipes import Recipe

WAYS_IN = ("input_shape", "allow_unsafe", "custom_objects", "architecture")
"""Options of data with which a model is loaded."""
READING = ("scale", "offset", "calibration", "task", "output_weights", *WAYS_IN)
"""Options of data with which a model and data are read."""
Model = typer.Argument(..., help="A Keras model: .h5, .keras or a SavedModel directory.", metavar="MODEL", show_default=False)
DataOption = typer.Option(
    ..., "--data", help="An .npz with x_train, y_train, x_test, y_test, or a directory of images per class.", show_default=False
)
Out = typer.Option(..., "--out", help="Directory to write.", show_default=False)
Seed = typer.Option(0, "--seed", help="Random seed; the same seed gives the same bytes.")
Overwrite = typer.Option(False, "--overwrite", help="Replace what xaic wrote there earlier.", rich_help_panel="Output")
Quiet = typer.Option(False, "--quiet", "-q", help="Print only the last summary line.", rich_help_panel="Output")
REPORT = "Print report.json and nothing else."


@dataclass(frozen=True)
class SearchArguments(SearchOptions):
    """How far a search goes, and which of its models is taken out."""

    pick: Optional[str] = option(
        None,
        "Conditions, e.g. 'flash<48kB' or 'metric>=0.9,latency<300us': the best model that meets them is copied out and proved "
        "again.",
        kind=str,
    )


@dataclass(frozen=True)
class MethodOptions:
    """A recipe with some entries in place of its own, or a plan."""

    rule: Optional[str] = option(None, "Attribution rule in place of the recipe's; auto searches for one.", kind=str)
    bits: Optional[str] = option(None, "Bit-widths in place of the recipe's, e.g. 2,3,4,8.", kind=str)
    pin: Sequence[str] = option((), "PATTERN=BITS: layers with a fixed bit-width; may be repeated.", kind=list)
    float_layers: Sequence[str] = option((), "PATTERN: layers that stay float32; may be repeated.", kind=list)
    zeros: Sequence[str] = option((), "PATTERN=2:4 or PATTERN=4x1: structured sparsity; may be repeated.", kind=list)
    align: Optional[int] = option(None, "Layers that lose filters keep a multiple of this many.", kind=int)
    protect: Sequence[str] = option((), "Name pattern of layers that keep all filters; may be repeated.", kind=list)
    activations: Optional[str] = option(
        None,
        "What is computed with: int8, int16, or float32: as fast as the original where int8 is slow; not for micro. Default: "
        "int8, or the plan's.",
        kind=str,
        values=("int8", "int16", "float32"),
    )
    recipe: str = option("auto", "A recipe of `xaic recipes`, or the path of one in JSON.")
    plan: Optional[str] = option(None, "A plan.json of `xaic plan`, perhaps edited, to carry out as it is.", kind=str)

    @property
    def files(self) -> list[Union[str, pathlib.Path, None]]:
        """The files among them."""
        from keras_xaic.recipes import recipe_file

        return [self.plan, recipe_file(self.recipe)]

    def chosen(self) -> Union[Recipe, Plan]:
        """Returns the recipe with the entries that are given, or the plan.

        Raises:
            PlanError: Naming the option that is not usable.
        """
        from keras_xaic.planning import Plan
        from keras_xaic.recipes import get_recipe

        entries = self.entries()
        if self.plan is None:
            return get_recipe(self.recipe).changed(**entries)
        for name in [*entries, *(["recipe"] if self.recipe != "auto" else [])]:
            raise PlanError(f"--plan together with --{name.replace('_', '-')}", "one of them", "Edit the plan instead")
        return Plan.load(self.plan)

    def entries(self) -> dict[str, Any]:
        """Returns the entries that are given, as a recipe takes them.

        Raises:
            PlanError: Naming the option that is not usable.
        """
        pairs = [_pair("--pin", one, "head*=8") for one in self.pin]
        given: dict[str, Any] = {
            "rule": self.rule,
            "bits": None if self.bits is None else tuple(_number("--bits", one, "2,4,8") for one in self.bits.split(",")),
            "pin": {pattern: _number("--pin", value, "head*=8") for pattern, value in pairs},
            "float_layers": tuple(self.float_layers),
            "zeros": dict(_pair("--zeros", one, "dense*=2:4") for one in self.zeros),
            "align": self.align,
            "protect": tuple(self.protect),
            "activations": self.activations,
        }
        return {name: value for name, value in given.items() if value is not None and value not in ((), {})}


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
