"""A TFMOT pruning schedule whose end and ramp are the layer's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_model_optimization as tfmot

from keras_xaic._keras import Tensor, tf
from keras_xaic.errors import PlanError
from keras_xaic.planning.sparsity import kept_weights


class RelevanceSchedule(tfmot.sparsity.keras.PruningSchedule):
    """Ramps one layer to the sparsity that its relevance allows.

    The sparsity at step t is ``s_end * (1 - (1 - (t - begin) / (end - begin))^power)``: Zhu & Gupta 2017
    (arXiv 1710.01878), eq. 1 with initial sparsity 0, where the exponent is free. A layer whose relevance is spread evenly
    over its weights loses something with every weight, so it should ramp evenly (power near 1); a layer with much
    irrelevant weight can drop it at once (power 3 and more).

    Works wherever TFMOT takes a `PruningSchedule`:

    >>> schedule = RelevanceSchedule(final_sparsity=0.8, end_step=1000)
    >>> [round(float(schedule(step)[1]), 2) for step in (0, 500, 1000)]
    [0.0, 0.7, 0.8]

    Args:
        final_sparsity: Fraction of zero weights at the end, 0 <= s < 1.
        end_step: Training step at which it is reached.
        begin_step: Training step at which pruning begins.
        frequency: Masks are updated every that many steps.
        power: Exponent of the ramp, > 0; 3 is the polynomial decay of TFMOT.
    """

    def __init__(
        self, final_sparsity: float, end_step: int, begin_step: int = 0, frequency: int = 50, power: float = 3.0
    ) -> None:
        if not 0 <= final_sparsity < 1:
            raise PlanError(f"final_sparsity is {final_sparsity}", "a fraction, 0 <= s < 1")
        if not 0 <= begin_step < end_step:
            raise PlanError(f"pruning begins at step {begin_step} and ends at step {end_step}", "0 <= begin < end")
        if frequency < 1 or power <= 0:
            raise PlanError(f"frequency is {frequency} and power is {power}", "frequency >= 1 and power > 0")
        self.final_sparsity, self.begin_step, self.end_step = final_sparsity, begin_step, end_step
        self.frequency, self.power = frequency, power

    def __call__(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ``(update the mask now?, sparsity)`` for a training step, as TFMOT asks."""
        step = tf.cast(step, tf.int32)
        update = self._should_prune_in_step(step, self.begin_step, self.end_step, self.frequency)
        progress = (tf.cast(step, tf.float32) - self.begin_step) / (self.end_step - self.begin_step)
        remaining = 1.0 - tf.clip_by_value(progress, 0.0, 1.0)
        return tf.logical_or(update, tf.equal(step, self.end_step)), self.final_sparsity * (1.0 - remaining**self.power)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        names = ("final_sparsity", "end_step", "begin_step", "frequency", "power")
        return {"class_name": type(self).__name__, "config": {name: getattr(self, name) for name in names}}


def relevance_schedules(
    scores: Mapping[str, np.ndarray], final_sparsity: float, end_step: int, begin_step: int = 0, frequency: int = 50
) -> dict[str, RelevanceSchedule]:
    """Returns a schedule per kernel that together prune a fraction of all weights, where relevance is thin.

    The end of each layer follows from one ranking of all weights, scores L2-normalised per kernel; its ramp from how evenly
    the layer's relevance is spread (see `ramp_power`).

    >>> scores = {"a": np.array([9.0, 0.1, 0.1, 0.1]), "b": np.array([1.0, 1.0, 1.0, 1.0])}  # Relevance.weights of a model
    >>> schedules = relevance_schedules(scores, final_sparsity=0.5, end_step=1000)
    >>> sorted(schedules)
    ['a', 'b']

    Args:
        scores: Kernel key -> score of every weight, e.g. `Relevance.weights`.
        final_sparsity: Fraction of zero weights over all these kernels at the end, 0 <= s < 1.
        end_step: Training step at which it is reached.
        begin_step: Training step at which pruning begins.
        frequency: Masks are updated every that many steps.

    Returns:
        Kernel key -> schedule, which TFMOT's `prune_low_magnitude` takes as well as `PruneByRelevance`.

    Raises:
        PlanError: If a number is out of its range.
    """
    normalised = {key: np.abs(one) / max(float(np.linalg.norm(one)), 1e-30) for key, one in scores.items()}
    kept = kept_weights(normalised, final_sparsity)
    return {
        key: RelevanceSchedule(float(1.0 - mask.mean()), end_step, begin_step, frequency, ramp_power(scores[key]))
        for key, mask in kept.items()
    }


def ramp_power(relevance: object) -> float:
    """Returns the ramp's exponent: 3 where half the weights carry next to nothing, towards 1 where all carry alike.

    The measure is the Gini-like share of relevance in the lower half of the weights: 0.5 if all are equal, 0 if the lower
    half is worthless.
    """
    if relevance is None:
        return 3.0
    ranked = np.sort(np.abs(np.asarray(relevance, np.float64)).ravel())
    total = ranked.sum()
    if total <= 0:
        return 3.0
    lower = ranked[: ranked.size // 2].sum() / total
    return float(np.clip(3.0 - 4.0 * lower, 1.0, 3.0))
