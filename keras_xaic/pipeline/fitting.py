"""Plans whose files are measured to fit before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Optional

from keras_xaic import tflite
from keras_xaic.compression import compress
from keras_xaic.data import Data, Samples
from keras_xaic.models import infer_task, weighted_kernels
from keras_xaic.planning import Budget, Plan, measure_damage, plan, with_grid
from keras_xaic.progress import Progress, silent
from keras_xaic.recipes import Recipe
from keras_xaic.relevance import Relevance
from keras_xaic.training import predict

TRIES = 3
"""How often a plan is made anew when the written file is not as large as predicted."""
TOLERANCE = 0.01
"""A prediction this close, as a share of the budget, is good enough."""
LEAST_ZEROS = 0.05
"""Fewer zeros than this are chance, not the work of masks."""


class Planner:
    """Plans one model by a recipe; what bit-widths do is measured once for all of its plans.

    Args:
        model: The trained model.
        relevance: Its relevance.
        recipe: What may be done.
        data: Where untrained files are calibrated.
        samples: Calibration data.
        seed: Written into plans.
        align: As for `keras_xaic.plan`.
        protect: As for `keras_xaic.plan`.
        progress: Told how far the work is.
    """

    def __init__(
        self,
        model: Any,
        relevance: Relevance,
        recipe: Recipe,
        data: Data,
        samples: Samples,
        *,
        seed: int = 0,
        align: int = 1,
        protect: Sequence[str] = (),
        progress: Progress = silent,
    ) -> None:
        self.model, self.relevance, self.recipe = model, relevance, recipe
        self.data, self.samples, self.progress = data, samples, progress
        values = [kernel.value for kernel in weighted_kernels(model)]
        zeros = sum(float((value == 0).sum()) for value in values) / max(1, sum(value.size for value in values))
        self.zeros = zeros if zeros > LEAST_ZEROS else 0.0
        self.seed, self.align, self.protect = seed, align, protect
        progress("plan", 0, TRIES, "measuring what bit-widths do")
        self.damage = measure_damage(
            model,
            relevance,
            sensitivity=recipe.sensitivity,
            samples=samples,
            bits=recipe.bits or (8,),
            seed=seed,
            activations=recipe.activations,
        )

    def plan(self, budget: Budget, filters: Optional[bool] = None, flash_correction: int = 0) -> Plan:
        """Returns the plan for a budget, sizes predicted.

        Args:
            budget: What may be spent.
            filters: Whether filters may go; None asks the recipe.
            flash_correction: Bytes by which a file was measured to be larger than predicted.
        """
        return plan(
            self.model,
            self.relevance,
            self.recipe.aim(budget),
            recipe=self.recipe.name,
            bits=self.recipe.bits,
            filters=self.recipe.filters if filters is None else filters,
            removal=self.recipe.removal,
            steps=self.recipe.steps,
            align=self.align,
            protect=self.protect,
            sparsity=max(self.recipe.sparsity, self.zeros),  # training brings zeros back to life that no mask holds
            score=self.recipe.score,
            sensitivity=self.damage,
            activations=self.recipe.activations,
            seed=self.seed,
            flash_correction=flash_correction,
        )

    def fitting(self, budget: Budget, filters: Optional[bool] = None) -> Plan:
        """Returns a plan whose file, written without training, is measured to fit: training does not change its size.

        Args:
            budget: What may be spent.
            filters: As for `plan`.
        """
        limit, best = budget.flash_bytes, None
        uniform = self.plan(budget, filters)  # bytes are planned for uniform grids; what other grids take more is measured
        made = with_grid(uniform, self.recipe.grid)
        for attempt in range(TRIES):
            if limit is None:
                break
            self.progress("plan", attempt, TRIES)
            size = len(tflite.build_tflite(self.untrained(made, "nearest"), self.samples))
            best = made if best is None or size <= limit else best
            miss = size - uniform.predicted_flash_bytes
            if size <= limit and abs(miss) < TOLERANCE * limit:
                break
            uniform = self.plan(budget, filters, miss)
            made = with_grid(uniform, self.recipe.grid)
        self.progress("plan", TRIES, TRIES)
        return best or made

    def untrained(self, made: Plan, rounding: Any = "outputs") -> Any:
        """Returns what a plan makes of the model without training."""
        return compress(
            self.model,
            made,
            self.data,
            relevance=self.relevance,
            epochs=0,
            calibration=len(self.samples),
            rounding=rounding,
        )


def predict_accuracy(model: Any, made: Plan, relevance: Relevance, data: Data, calibration: int = 256) -> tuple[float, float]:
    """Returns how good the original is, and the planned model before any training: what training has to win back.

    Filters that go are missed most; training wins most of that back. Rounding alone costs about what is seen here.

    Args:
        model: The trained model.
        made: The plan.
        relevance: What the plan was made from.
        data: Where a part of the training samples is held back to measure on; the test part is not looked at.
        calibration: Number of training samples for rounding and BatchNorm statistics.

    Returns:
        Accuracy in [0, 1], or minus the squared error for values; of the original, and of the planned model.
    """
    task = infer_task(model, data)
    _, held_back = data.split(seed=made.seed)
    answers = predict(model, held_back)
    right = answers.argmax(axis=-1) if task.kind == "classes" else answers
    held_back = held_back if held_back.y is not None else replace(held_back, y=right)
    small = compress(model, made, data, relevance=relevance, epochs=0, calibration=calibration)
    return task.figure(answers, held_back), task.figure(predict(small.model, held_back), held_back)
