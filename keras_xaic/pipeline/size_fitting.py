"""Plans whose files are measured to fit before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic import tflite
from keras_xaic.compression import apply
from keras_xaic.data import Data, Samples, joined
from keras_xaic.errors import ExportError
from keras_xaic.models import fitted, infer_task, ports_of, weighted_kernels
from keras_xaic.models.front import front_of
from keras_xaic.models.operations import Operations
from keras_xaic.pipeline.other_matrices import OtherMatrices
from keras_xaic.pipeline.pacing import Pace, in_slowdown
from keras_xaic.planning import Budget, Plan, measure_damage, plan, with_grid
from keras_xaic.progress import Progress, silent
from keras_xaic.recipes import Recipe
from keras_xaic.relevance import Relevance
from keras_xaic.settings import Training
from keras_xaic.tasks import with_task
from keras_xaic.training import predict
from keras_xaic.units import LARGEST

if TYPE_CHECKING:
    from keras_xaic._keras import Model

TRIES = 5
"""How often a plan is made again when the written file is not as large as predicted."""
TOLERANCE = 0.01
"""A prediction this close, as a share of the budget, is good enough."""
SLACK = 0.02
"""A download this much below its limit, as a share of it, is good enough; above it, zeros are given back."""
LATE, EARLY = 0.03, 0.1
"""A file that is measured to take this share longer than its limit is in time: two measurements differ by as much. Above this
share of time to spare, filters are given back."""
LEAST_ZEROS = 0.05
"""Fewer zeros than this are chance, not the work of masks."""
WEIGHED = 16
"""Samples that files to weigh are calibrated on."""
NOISE = 32
"""Inputs of noise that files are weighed with where there is no data."""


class SizeFitter:
    """Plans one model by a recipe; what bit-widths do is measured once for all of its plans.

    Args:
        model: The trained model.
        relevance: Its relevance.
        recipe: What may be done.
        data: Where untrained files are calibrated; None calibrates them on noise, which does not change their size by much.
        samples: Calibration data to measure what bit-widths do; None predicts it from relevance alone.
        pace: What limits of time mean, of the original that `model` is or is made of; None: they are predicted alone.
        packed: Whether few bits are packed even where no limit asks for it (see `PlanOptions`).
        finish: What files get for the programs that will run them; its bytes count.
        seed: Written into plans.
        progress: Told how far the work is.
    """

    def __init__(
        self,
        model: Model,
        relevance: Relevance,
        recipe: Recipe,
        data: Optional[Data],
        samples: Optional[Samples],
        *,
        pace: Optional[Pace] = None,
        packed: bool = False,
        finish: tflite.Finish = tflite.UNFINISHED,
        seed: int = 0,
        progress: Progress = silent,
    ) -> None:
        self.model, self.relevance, self.recipe = model, relevance, recipe
        self.data = noise_for(model) if data is None else data
        self.calibration = self.data.train if samples is None else samples
        self.progress = progress
        self.seed, self.pace, self.finish = seed, pace, finish
        self._weights: dict[tuple[bool, str], dict[str, Any]] = {}
        options = recipe.plan_options(sparsity=max(recipe.sparsity, _zeros_of(model)), packed=packed)
        measured = measure_damage(model, relevance, options, samples=samples, seed=seed, progress=progress)
        self.options = replace(options, sensitivity=measured)
        self.others = OtherMatrices(model, self.calibration, options)

    def plan(self, budget: Budget, filters: Optional[bool] = None, flash_correction: int = 0) -> Plan:
        """Returns the plan for a budget, sizes predicted.

        Args:
            budget: What may be spent.
            filters: Whether filters may go; None asks the recipe.
            flash_correction: Bytes by which a file was measured to be larger than predicted.
        """
        limits = budget if budget.latency is None else in_slowdown(budget, self._slowdown(budget))
        return plan(
            self.model,
            self.relevance,
            self.recipe.aim(limits),
            self.options if filters is None else replace(self.options, filters=filters),
            seed=self.seed,
            recipe=self.recipe.name,
            flash_correction=flash_correction,
            plain=None if self.pace is None else self.pace.plain,
        )

    def _slowdown(self, budget: Budget) -> Optional[float]:
        """Returns the limit of time as a multiple of plain int8's; None where there is none."""
        return budget.max_slowdown if self.pace is None else self.pace.slowdown(budget)

    def fitting(self, budget: Budget, filters: Optional[bool] = None) -> Plan:
        """Returns a plan whose file, written without training, is measured to fit; its predictions are these measurements.

        Training does not change flash and time. It does change the download, whose prediction counts every weight by itself,
        while the container also sees patterns: there the measurement is the better start.

        Args:
            budget: What may be spent.
            filters: As for `plan`.
        """
        flash, download = budget.flash_bytes, budget.download_bytes if self.recipe.bits else None
        rounded = self.others.kept if download is None else self.others.least_damaging(self, budget, filters)
        slowdown = self._slowdown(budget)
        most_early = EARLY if (flash, download) == (None, None) else math.inf  # else other limits may be what took filters
        aim, correction, tried, before = in_slowdown(budget, slowdown), 0, [], None
        fits, overruns = 0, math.inf  # what was aimed at: the most of which the file fitted, the least of which it did not
        for attempt in range(TRIES):
            uniform = self.beside(rounded, aim, filters, correction)  # as uniform grids; what others take more is measured
            made = with_grid(uniform, self.recipe.grid)
            self.progress("plan", attempt, TRIES)
            sizes, late = self._weighed(made, timed=slowdown is not None), 0.0
            size, written = sizes["predicted_flash_bytes"], sizes["predicted_download_bytes"]
            if slowdown is not None and "predicted_slowdown" in sizes:
                late = sizes["predicted_slowdown"] / slowdown - 1.0
            tried.append(made.model_copy(update={**sizes, "budget": self.recipe.aim(budget)}))
            miss = size - uniform.predicted_flash_bytes
            near = flash is None or (size <= flash and abs(miss) < TOLERANCE * flash)
            used = 1.0 if download is None else written / download
            in_time = -most_early <= late <= LATE or (late < 0 and not made.remove)
            same = (made.layers, rounded) == before
            if near and (in_time or same) and (1.0 - SLACK <= used <= 1.0 or same):
                break
            if not in_time and uniform.predicted_slowdown is not None:
                aimed_at = uniform.predicted_slowdown * (1.0 - LATE / 2) / (1.0 + late)
                aim = in_slowdown(aim, aimed_at)
            correction, before = correction + miss, (made.layers, rounded)
            if download is not None:
                aimed = aim.download_bytes or 0
                if used > 1.0:  # of a limit that binds nothing the file says nothing
                    aimed = min(aimed, uniform.predicted_download_bytes)
                if flash is not None and abs(miss) >= TOLERANCE * flash:  # other filters go next: this says nothing about them
                    fits, overruns = 0, math.inf
                else:
                    fits, overruns = (max(fits, aimed), overruns) if used <= 1.0 else (fits, min(overruns, aimed))
                # What predictions miss is structure for the most part, which takes its bytes whatever the weights get.
                following = aimed + round(download * (1.0 - SLACK / 2)) - written
                if not fits < following < overruns and overruns < math.inf:  # of a small model sizes come in leaps
                    following = (fits + int(overruns)) // 2
                # A limit far from what is possible leads to aims that are no sizes.
                aim = replace(aim, download=min(max(following, 1), LARGEST))
                if used > 1.0 and self.others.values:
                    rounded = self.others.least_damaging(self, aim, filters, correction, beyond=rounded)
        self.progress("plan", TRIES, TRIES)
        # Within the limits the one that uses them best: what it could leave out, the program would have left out.
        return min(
            tried, key=lambda one: (_overrun(one, flash, download, slowdown), -one.predicted_download_bytes, one.sparsity)
        )

    def beside(
        self, rounded: Mapping[str, int], budget: Budget, filters: Optional[bool] = None, flash_correction: int = 0
    ) -> Plan:
        """Returns the plan for what the download limit leaves beside matrices in no kernel, of so many bits (see `plan`)."""
        taken = 0 if budget.download_bytes is None else self.others.coded_bytes(rounded)
        if taken:
            budget = replace(budget, download=max(1, (budget.download_bytes or 0) - taken))
        made = self.plan(budget, filters, flash_correction)
        found = {"rounded": dict(rounded), "predicted_download_bytes": made.predicted_download_bytes + taken}
        return made.model_copy(update=found)

    def _weighed(self, made: Plan, timed: bool) -> dict[str, Any]:
        """Returns what the file of a plan measures, by the names of its predictions; the same plan is not written twice."""
        key = timed, made.model_dump_json(include={"layers", "branches", "remove", "rounded", "lookup", "activations"})
        if key not in self._weights:
            # In steps other filters go than are planned, within the same bytes; what their layers get is planned again then.
            content = self._written(self.untrained(made.model_copy(update={"filters": None}), "nearest"))
            written = len(tflite.pack_download(content))
            found: dict[str, Any] = {"predicted_flash_bytes": len(content), "predicted_download_bytes": written}
            if timed and self.pace is not None:
                found["predicted_slowdown"] = self.pace.ratio(content)
            self._weights[key] = found
        return self._weights[key]

    def _written(self, small: Any) -> bytes:
        """Returns a file to weigh. What sizes depend on does not need all samples; a layer that is dead on a few may live."""
        try:
            return self.finish(tflite.build_tflite(small, self.calibration.take(slice(0, WEIGHED))))
        except ExportError:
            if len(self.calibration) <= WEIGHED:
                raise
            return self.finish(tflite.build_tflite(small, self.calibration))

    def untrained(self, made: Plan, rounding: Any = "outputs") -> Any:
        """Returns what a plan makes of the model without training."""
        return apply(
            self.model,
            made,
            self.data,
            relevance=self.relevance,
            training=Training(epochs=0, rounding=rounding),
            calibration=len(self.calibration),
        )


def _zeros_of(model: Model) -> float:
    """Returns the fraction of zeros, 0 where it is chance; training would bring to life those that no mask holds."""
    values = [kernel.value for kernel in weighted_kernels(model)]
    zeros = sum(float((value == 0).sum()) for value in values) / max(1, sum(value.size for value in values))
    return zeros if zeros > LEAST_ZEROS else 0.0


def noise_for(model: Model) -> Data:
    """Returns random inputs of the model's shape for measuring what does not depend on what they are.

    They are from 0 to 1, behind a change of units that the model begins with.
    """
    random = np.random.default_rng(0)
    shapes = [[1 if size is None else size for size in tensor.shape[1:]] for tensor in model.inputs]
    arrays = [random.random((NOISE, *shape), np.float32) for shape in shapes]
    # Whole numbers may be numbers of rows in a table, of which there is at least one.
    arrays = [one if tensor.dtype.is_floating else np.zeros(one.shape, np.int32) for one, tensor in zip(arrays, model.inputs)]
    operations = Operations(model)
    fronts = [
        front_of(operations, key) if tensor.dtype == "float32" else None for key, tensor in zip(operations.inputs, model.inputs)
    ]
    arrays = [one if front is None else front.before(one) for front, one in zip(fronts, arrays)]
    return Data(Samples(joined(arrays, ports_of(model).inputs)))


def _overrun(made: Plan, flash: Optional[int], download: Optional[int], slowdown: Optional[float]) -> float:
    """Returns by which share of its limit what overruns it most does; 0 within all limits."""
    sizes = ((made.predicted_flash_bytes, flash), (made.predicted_download_bytes, download))
    over = [0.0, *(size / limit - 1.0 for size, limit in sizes if limit is not None)]
    if slowdown is not None and made.predicted_slowdown is not None:
        late = made.predicted_slowdown / slowdown - 1.0
        over.append(late if late > LATE else 0.0)
    return max(over)


def predict_accuracy(model: Model, made: Plan, relevance: Relevance, data: Data, calibration: int = 256) -> tuple[Any, Any]:
    """Returns how good the original is, and the planned model before any training: what training has to win back.

    Filters that go are missed most; training wins most of that back. Rounding alone costs about what is seen here.

    Args:
        model: The trained model.
        made: The plan.
        relevance: What the plan was made from.
        data: Whose validation data it is measured on; the test part is not looked at.
        calibration: Number of training samples for rounding and BatchNorm statistics.

    Returns:
        The task's metric of the original, and of the planned model; of several outputs one per output.
    """
    data = fitted(model, data)
    task = infer_task(model, data, strict=False)
    data = with_task(data, task)
    _, held_back = data.split(seed=made.seed)
    answers = predict(model, held_back)
    held_back = task.labelled(held_back, answers)
    small = apply(model, made, data, relevance=relevance, training=Training(epochs=0), calibration=calibration)
    return task.score(answers, held_back.y), task.score(predict(small.model, held_back), held_back.y)
