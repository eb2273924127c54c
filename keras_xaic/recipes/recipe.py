"""A recipe is data: which attribution rule, which pruning, which grids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable, Optional

from keras_xaic.planning.budget import Budget
from keras_xaic.planning.plan_file import Grid, Score
from keras_xaic.planning.storages import Activations


@dataclass(frozen=True)
class Recipe:
    """A named method.

    Attributes:
        name: What `--recipe` takes.
        source: The publication or product it comes from.
        summary: What it does, in one sentence.
        rule: Attribution rule whose relevance drives it; None for methods that need none.
        reduce: How relevance is brought together over samples (see `keras_xaic.attribute`); ``mean`` keeps its sign.
        score: What ranks weights for pruning (see `keras_xaic.planning.weight_score`).
        sparsity: Fraction of zeros that there shall be at least, whatever the budget.
        bits: Bit-widths that layers may get; () leaves quantization to the TFLite converter.
        grid: How the values of a layer's weights are found (see `LayerPlan.grid`).
        activations: Type of activations between layers (see `keras_xaic.plan`).
        sensitivity: What predicts the damage of a bit-width (see `keras_xaic.planning.SENSITIVITIES`).
        mean_bits: Mean bit-width that is aimed at where the budget has no limit of its own.
        filters: Whether filters may be removed to meet the budget.
        removal: Fraction of the multiply-accumulates that goes with filters where the budget names no limit.
        steps: In how many steps filters go, with training in between; None: the more, the more of the weights goes.
        rounds: Whether planning and training are repeated until limits and accuracy are met (see `keras_xaic.pipeline.driver`).
        control: Whether it is a method of ours made blind, to be run as a baseline.
        baseline: For methods of others: a function ``(model, data, **options) -> CompressedModel`` that runs them as they are.
    """

    name: str
    source: str
    summary: str
    rule: Optional[str] = None
    reduce: str = "mean_abs"
    score: Score = "geometric_mean"
    sparsity: float = 0.0
    bits: tuple[int, ...] = ()
    grid: Grid = "uniform"
    activations: Activations = "int8"
    sensitivity: str = "auto"
    mean_bits: Optional[float] = None
    filters: bool = False
    removal: float = 0.0
    steps: Optional[int] = 1
    rounds: bool = False
    control: bool = False
    baseline: Optional[Callable[..., Any]] = None

    @property
    def comparable(self) -> bool:
        """Whether it can be run as a baseline."""
        return self.control or self.baseline is not None

    def aim(self, budget: Budget) -> Budget:
        """Returns the budget, with the recipe's mean bit-width where it limits neither bytes nor bits."""
        limited = any(limit is not None for limit in (budget.flash, budget.download, budget.mean_bits))
        return budget if limited or self.mean_bits is None else replace(budget, mean_bits=self.mean_bits)
