"""A recipe is data: which attribution rule, which pruning, which grids. It says what is done, never how."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Literal, Optional, Union, get_args, get_origin

import pydantic

from keras_xaic.arguments import a_path, checked, offers
from keras_xaic.budget import Budget
from keras_xaic.errors import ModelError, PlanError, choices
from keras_xaic.files import PathLike, a_place, write_atomic
from keras_xaic.json_files import read_json
from keras_xaic.planning.options import PlanOptions
from keras_xaic.planning.plan import ZEROS, Grid, Score, check_zeros
from keras_xaic.planning.storages import Activations
from keras_xaic.relevance.choices import Reduce
from keras_xaic.relevance.methods import check_rule
from keras_xaic.relevance.tried import AUTO
from keras_xaic.written import Written, what_is_wrong

Sensitivity = Literal["auto", "relevance", "measured", "combined", "hessian", "mean_score", "weight_error", "uniform"]
Baseline = Literal["int8", "magnitude", "cluster"]


class Recipe(Written):
    """A named method, as a person writes it down: every entry has a default, unknown ones are refused.

    >>> mine = Recipe(name="mine", rule="taylor", filter_rule="lrp.z_plus", bits=(3, 4, 8), filters=True)
    >>> mine.changed(bits=(4,)).bits
    (4,)

    Attributes:
        name: What it is called in reports and plans.
        source: The publication or product it comes from.
        summary: What it does, in one sentence.
        rule: Attribution rule whose relevance the method uses: a name such as ``lrp.epsilon``, or a mapping of layers to rules
            (see `keras_xaic.attribute`); ``auto`` searches for the rules that do least damage on validation data, and sets
            `rule`, `filter_rule`, `bits_rule` and their reductions; None for methods that need none.
        filter_rule: Attribution rule that ranks filters where it is not `rule`.
        filter_reduce: How samples are brought together for filters where that is not `reduce`.
        bits_rule: Attribution rule that says how much rounding hurts where it is not `rule`.
        reduce: How relevance is brought together over samples (see `keras_xaic.attribute`); ``mean`` keeps its sign.
        score: What ranks weights for pruning (see `keras_xaic.planning.weight_score`).
        sparsity: Fraction of zeros that there shall be at least, whatever the budget, 0 to 1.
        nonpositive: Share of the weights with relevance <= 0 that the score ``signed_relevance`` removes, 0 to 1, those of the
            smallest relevance first.
        bits: Bit-widths that layers may get, 2 to 8; () leaves quantization to the TFLite converter.
        grid: How the values of a layer's weights are found (see `LayerPlan.grid`).
        activations: Type of activations between layers; ``auto``: int8, but int16 or float32 where no int8 file keeps the
            accuracy, and limits and target allow it.
        sensitivity: What predicts the damage of a bit-width (see `keras_xaic.planning.SENSITIVITIES`).
        mean_bits: Mean bit-width that is aimed at where the budget has no limit of its own.
        filters: Whether filters may be removed to meet the budget.
        branches: Whether residual branches may go whole under a limit on time, too, where filters may.
        removal: Fraction of the multiply-accumulates that goes with filters where the budget names no limit, 0 to 1.
        steps: Number of steps in which filters are removed, with training in between; None: it grows with the share of weights
            that is removed.
        align: Layers that lose filters keep a multiple of this many.
        protect: Name patterns (`fnmatch`) of layers that keep all filters; branches with such a layer stay.
        pin: Name pattern -> bit-width that those layers get whatever the budget.
        float_layers: Name patterns of layers that are not quantized.
        zeros: Name pattern -> structured sparsity: ``2:4`` or ``4x1``.
        rounds: Whether planning and training are repeated until limits and accuracy are met (see `keras_xaic.pipeline.driver`).
        control: Whether it is one of our methods without its relevance, to be run as a baseline.
        baseline: For methods of other toolkits: which of them is run; the other entries then have no effect.
    """

    name: str = pydantic.Field(min_length=1, max_length=100, pattern=r"^[\w.+-]+$")
    source: str = ""
    summary: str = ""
    rule: Union[str, dict[str, str], None] = None
    filter_rule: Union[str, dict[str, str], None] = None
    filter_reduce: Optional[Reduce] = None
    bits_rule: Union[str, dict[str, str], None] = None
    reduce: Reduce = "mean_abs"
    score: Score = "geometric_mean"
    sparsity: float = pydantic.Field(default=0.0, ge=0.0, lt=1.0)
    nonpositive: float = pydantic.Field(default=1.0, ge=0.0, le=1.0)
    bits: tuple[int, ...] = ()
    grid: Grid = "uniform"
    activations: Literal["auto", "int8", "int16", "float32"] = "auto"
    sensitivity: Sensitivity = "auto"
    mean_bits: Optional[float] = pydantic.Field(default=None, ge=2.0, le=32.0)
    filters: bool = False
    branches: bool = False
    removal: float = pydantic.Field(default=0.0, ge=0.0, lt=1.0)
    steps: Optional[int] = pydantic.Field(default=1, ge=1)
    align: int = pydantic.Field(default=1, ge=1)
    protect: tuple[str, ...] = ()
    pin: dict[str, int] = {}
    float_layers: tuple[str, ...] = ()
    zeros: dict[str, str] = {}
    rounds: bool = False
    control: bool = False
    baseline: Optional[Baseline] = None

    @pydantic.field_validator("protect", "float_layers", "bits", mode="before")
    @classmethod
    def _several(cls, given: object) -> Any:
        return (given,) if isinstance(given, (str, int)) and not isinstance(given, bool) else given

    @pydantic.field_validator("zeros")
    @classmethod
    def _known_zeros(cls, zeros: dict[str, str]) -> dict[str, str]:
        for pattern in zeros.values():
            if not re.fullmatch(ZEROS, pattern):
                raise ValueError(f"{pattern!r} is none of N:M and HxW, e.g. 2:4 or 4x1")
            if check_zeros(pattern):
                raise ValueError(check_zeros(pattern))
        return zeros

    @pydantic.field_validator("pin")
    @classmethod
    def _known_pins(cls, pin: dict[str, int]) -> dict[str, int]:
        wrong = [one for one in pin.values() if not 2 <= one <= 8]
        if wrong:
            raise ValueError(f"{wrong[0]} bits: grids have 2 to 8")
        return pin

    @pydantic.field_validator("bits")
    @classmethod
    def _known_bits(cls, bits: tuple[int, ...]) -> tuple[int, ...]:
        wrong = [one for one in bits if not 2 <= one <= 8]
        if wrong:
            raise ValueError(f"{wrong[0]} bits: grids have 2 to 8")
        return bits

    @pydantic.field_validator("rule", "filter_rule", "bits_rule")
    @classmethod
    def _known_rule(
        cls, rule: Union[str, dict[str, str], None], info: pydantic.ValidationInfo
    ) -> Union[str, dict[str, str], None]:
        try:
            if rule is not None and not (rule == AUTO and info.field_name == "rule"):
                check_rule(rule)
        except ModelError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return rule

    @pydantic.model_validator(mode="after")
    def _one_method(self) -> Recipe:
        if self.rule is None and self.baseline is None:
            raise ValueError("a rule is missing, e.g. lrp.epsilon, or a baseline")
        return self

    @property
    def plain_activations(self) -> Activations:
        """The activations to plan with: those that are named, else int8."""
        return "int8" if self.activations == "auto" else self.activations

    @property
    def comparable(self) -> bool:
        """Whether it can be run as a baseline."""
        return self.control or self.baseline is not None

    def changed(self, **entries: object) -> Recipe:
        """Returns the recipe with other entries, validated.

        Raises:
            PlanError: Naming the entry that is wrong.
        """
        return _validated({**self.model_dump(), **entries}, f"recipe {self.name!r}")

    def aim(self, budget: Budget) -> Budget:
        """Returns the budget, with the recipe's mean bit-width where it limits neither bytes nor bits."""
        limited = any(limit is not None for limit in (budget.flash, budget.download, budget.mean_bits))
        return budget if limited or self.mean_bits is None else replace(budget, mean_bits=self.mean_bits)

    def plan_options(self, **options: object) -> PlanOptions:
        """Returns how plans are made by this recipe; `options` take the place of its own entries."""
        entries = {one.name: getattr(self, one.name) for one in fields(PlanOptions) if one.name in Recipe.model_fields}
        return PlanOptions(**{**entries, "activations": self.plain_activations, **options})

    def to_json(self) -> str:
        """Returns every entry as JSON, as `load` reads it."""
        return self.model_dump_json(indent=1) + "\n"

    @checked(path=a_path)
    def save(self, path: PathLike) -> None:
        """Writes the recipe as JSON."""
        write_atomic(a_place(path), self.to_json())

    @classmethod
    @checked(path=a_path)
    def load(cls, path: PathLike) -> Recipe:
        """Reads a recipe that a person may have written.

        Raises:
            DataError: If the file is missing or not JSON.
            PlanError: Naming the file and the entry that is wrong.
        """
        return _validated(read_json(path), os.fspath(path))


def _validated(entries: object, where: str) -> Recipe:
    if not isinstance(entries, Mapping):
        raise PlanError(f"{where} holds a {type(entries).__name__}", "a recipe: entries by name", "`xaic recipes auto --json`")
    for key in entries:
        if key not in Recipe.model_fields:
            raise PlanError(f"{where}: unknown entry {key!r}", choices(key, Recipe.model_fields))
    try:
        return Recipe.model_validate(dict(entries))
    except pydantic.ValidationError as error:
        raise what_is_wrong(error, where, Recipe) from None


def _values(annotation: Any) -> tuple[str, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


offers(
    "RecipeLike",
    "{0} of the recipe",
    "{0}.changed({1}={{}})",
    {
        name: _values(field.annotation)
        for name, field in Recipe.model_fields.items()
        if name not in ("name", "source", "summary")
    },
)
