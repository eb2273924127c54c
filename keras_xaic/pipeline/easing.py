"""How far a named method goes where no size is given: as far as the accuracy allows, on validation data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Callable, Optional

from keras_xaic.compression import apply
from keras_xaic.data import Data, Samples
from keras_xaic.output_tasks import AnyTask
from keras_xaic.pipeline.judging import Judge, judging_parts
from keras_xaic.pipeline.rounds import Round
from keras_xaic.pipeline.run_settings import RunSettings
from keras_xaic.pipeline.workspace import Workspace
from keras_xaic.planning import Plan
from keras_xaic.recipes import Recipe
from keras_xaic.relevance import Relevance
from keras_xaic.report.wording import decimals
from keras_xaic.tflite import UNFINISHED, Finish

if TYPE_CHECKING:
    from keras_xaic._keras import Model

MOST_BITS = 8
"""Bits of plain int8."""
SHARES = (1.0, 0.5, 0.25)
"""How much of what a recipe takes away is tried in turn; after these comes plain int8, without training."""


def eased(recipe: Recipe, share: float) -> Recipe:
    """Returns a recipe that takes away a share of what it does: zeros, filters, and bits below 8."""
    if share == 1.0:
        return recipe
    bits = recipe.mean_bits
    entries = {name: share * getattr(recipe, name) for name in ("sparsity", "removal", "nonpositive")}
    return recipe.changed(mean_bits=None if bits is None else MOST_BITS - share * (MOST_BITS - bits), **entries)


def plain(recipe: Recipe) -> Recipe:
    """Returns a recipe that takes nothing away: 8 bits."""
    bits = (MOST_BITS,) if recipe.bits else ()
    return eased(recipe, 0.0).changed(bits=bits, grid="uniform", mean_bits=None, filters=False)


@dataclass(frozen=True)
class Easing:
    """Compresses a model by a recipe that names no size, and less where that loses too much. Test data is never seen.

    Attributes:
        model: The original.
        data: Its data.
        task: What it does.
        settings: What the run was to do; each try trains as many epochs, of limited minutes a part.
        samples: Calibration data.
        work: Where finished steps are kept.
        plan: Makes the plan of a recipe.
        finish: What files get for the programs that will run them.
    """

    model: Model
    data: Data
    task: AnyTask
    settings: RunSettings
    samples: Samples
    work: Workspace
    plan: Callable[[Recipe], Plan]
    finish: Finish = UNFINISHED

    def run(self, recipe: Recipe, relevance: Relevance) -> list[Round]:
        """Returns all tries; the last keeps the accuracy, or none does."""
        _, held_back = judging_parts(self.data, self.settings)
        judge, tries = Judge.of(self.model, self.task, held_back), []
        for number, one in enumerate(self._tries(recipe)):
            tries.append(self._try(number, one, relevance, judge))
            if tries[-1].drop <= self.settings.budget.max_drop:
                break
        return tries

    @staticmethod
    def _tries(recipe: Recipe) -> Iterator[Recipe]:
        known: list[Recipe] = []
        for one in (*(eased(recipe, share) for share in SHARES), plain(recipe)):
            if one not in known:
                known.append(one)
                yield one

    def _try(self, number: int, recipe: Recipe, relevance: Relevance, judge: Judge) -> Round:
        start, settings = time.perf_counter(), self.settings
        made = self.work.cached(
            "plan.json" if number == 0 else f"plan-{number}.json", lambda: self.plan(recipe), Plan.save, Plan.load
        )
        minutes, untrained = settings.training.minutes, number > 0 and recipe == plain(recipe)
        training = replace(
            settings.training,
            epochs=0 if untrained else settings.epochs,
            minutes=None if minutes is None else minutes * 0.5 ** (number + 1),
            seed=settings.seed,
        )
        checkpoint = self.work.path / "train" / (recipe.name if number == 0 else f"{recipe.name}-{number}")
        small = apply(
            self.model,
            made,
            self.data,
            relevance=relevance,
            training=training,
            calibration=settings.options.calibration,
            checkpoint=checkpoint,
            progress=self.work.progress,
        )
        return Round.of(small, self.samples, self.work.path / f"try-{number}.tflite", [judge], start, finish=self.finish)


def said_of_easing(recipe: Recipe, tries: list[Round], max_drop: float) -> Optional[str]:
    """Returns what is said where a recipe was eased; None where it was carried out as it is."""
    if len(tries) < 2:
        return None
    lost = ", ".join(decimals(one.drop, max_drop) for one in tries)
    return (
        f"{recipe.name} was eased: no more was taken away than loses at most {max_drop:g} on validation data. Its tries, each "
        f"with less than the one before, lost {lost}. A limit on flash or download, or a larger max_drop, insists."
    )
