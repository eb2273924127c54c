"""Does a compressed model decide for the same reasons? Relevance maps of it and of the original, sample by sample."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic.budget import Budget
from keras_xaic.data import Array, Samples
from keras_xaic.errors import ModelError, PlanError
from keras_xaic.output_tasks import AnyTask, Tasks
from keras_xaic.relevance import Attribution, mean_similarity, rank_similarity
from keras_xaic.relevance.choices import Target
from keras_xaic.relevance.similarity import as_maps, cosine_similarity, top_overlap
from keras_xaic.training import predict

if TYPE_CHECKING:
    from keras_xaic._keras import Model

RULE = "lrp.gamma"
"""Rule of the comparison: signed, and stable where epsilon rules follow the smallest change (docs/layers.md, Stability)."""
COMPARED = 256
"""Samples over which explanations are compared."""
TAKEN = 64
"""Samples from which parts are taken away (see `keras_xaic.pipeline.removal`)."""
TRIED = 8
"""Samples that tell, before work, whether a model's explanations can be compared at all."""


def way_of(model: Model) -> Attribution:
    """Returns what gives the relevance maps of a model.

    Raises:
        ModelError: If the rule does not take the model.
    """
    return Attribution(model, rule=RULE, allow_approximate=True)


def together(maps: list[np.ndarray]) -> np.ndarray:
    """Returns the maps of all inputs side by side, (N, positions); those of one input as they are."""
    if len(maps) == 1:
        return maps[0]
    return np.concatenate([as_maps(one).reshape(len(one), -1) for one in maps], axis=1)


def explained(task: AnyTask, samples: Samples, outputs: Array) -> tuple[Samples, Target]:
    """Returns samples that say what is explained, and where relevance starts: both models must explain the same.

    That is the true class, without labels what the original decides for; all outputs where they are values.

    Args:
        task: What the model does.
        samples: The samples.
        outputs: What the original says about them.
    """
    does: Any = task
    if isinstance(task, Tasks) or task.classifies:
        return replace(samples, y=does.labelled(samples, outputs).y, task=task), "true"
    return replace(samples, y=None, task=task), "all"


@dataclass(frozen=True)
class Likeness:
    """How alike the reasons of two models are, sample by sample, by several yardsticks: (N,), NaN where one says nothing.

    Attributes:
        spearman: Rank correlation of their relevance maps.
        cosine: Cosine of these maps.
        top10: Share of the tenth of the positions that speaks most for the target in one that does so in the other.
        held_out: Rank correlation of what taking away parts of the input does to them (see `removal_similarity`): nothing that
            training or planning looks at; of some of the samples.
    """

    spearman: np.ndarray
    cosine: np.ndarray
    top10: np.ndarray
    held_out: np.ndarray

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray, removal: Optional[np.ndarray] = None) -> Likeness:
        """Compares the maps of two models; `removal` are the samples' values of the yardstick that needs none."""
        none = np.full(len(first), np.nan)
        found = rank_similarity(first, second), cosine_similarity(first, second), top_overlap(first, second)
        return cls(*found, none if removal is None else removal)

    def facts(self, chosen: Any = slice(None)) -> dict[str, Optional[float]]:
        """Returns the means over samples for report.json."""
        return {name: mean_similarity(values[chosen]) for name, values in vars(self).items()}


@dataclass(frozen=True)
class Reasons:
    """What the original looks at in some samples.

    Attributes:
        model: The original.
        samples: At most `COMPARED` samples, with what is explained.
        target: Where relevance starts.
    """

    model: Model
    samples: Samples
    target: Target

    @classmethod
    def of(cls, model: Model, task: AnyTask, samples: Samples, outputs: Array) -> Reasons:
        """Returns what `model` looks at, whose outputs on the samples are given."""
        some = slice(COMPARED)
        return cls(model, *explained(task, samples.take(some), outputs[some]))

    @functools.cached_property
    def maps(self) -> np.ndarray:
        """The original's relevance of every input value."""
        return together(way_of(self.model).input_relevance(self.samples, target=self.target))

    def similarity(self, small: Model) -> tuple[Optional[float], float]:
        """Compares a compressed model.

        Returns:
            The mean rank correlation of both models' maps, None where no sample has one; and the standard error of that mean.
        """
        try:
            maps = together(way_of(small).input_relevance(self.samples, target=self.target))
            found = rank_similarity(self.maps, maps)
        except ModelError:  # relevance that is not finite, e.g. of a model that a round has ruined
            return None, 0.0
        known = found[np.isfinite(found)]
        return mean_similarity(found), float(known.std() / math.sqrt(known.size)) if known.size else 0.0


def check_reasons(model: Model, task: AnyTask, samples: Samples, budget: Budget) -> None:
    """Refuses a limit on the similarity of explanations for a model whose explanations cannot be compared.

    Raises:
        PlanError: If there is such a limit, and a few of the samples show that nothing could be measured.
    """
    if budget.min_similarity is None:
        return
    few = samples.take(slice(TRIED))
    why = f"no sample has two inputs that matter differently by {RULE}"
    try:
        reasons = Reasons.of(model, task, few, predict(model, few))
        if np.isfinite(rank_similarity(reasons.maps, reasons.maps)).any():
            return
    except ModelError as error:
        why = error.found
    raise PlanError(
        f"min_similarity is {budget.min_similarity:g}, and explanations of this model cannot be compared: {why}",
        "a model whose inputs get relevance",
        "Leave out {min_similarity}",
    )
