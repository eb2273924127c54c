"""Samples that judge the file of a round on the edge interpreter."""

from __future__ import annotations

import math
import pathlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic import edge
from keras_xaic.data import Array, Samples, arrays_of
from keras_xaic.output_tasks import AnyTask
from keras_xaic.training import predict

if TYPE_CHECKING:
    from keras_xaic._keras import Model

GROUPS = 10
"""Groups of samples that are left out in turn, to see how far the drop depends on which samples judge."""


@dataclass(frozen=True)
class Judge:
    """Training samples that judge the file of a round.

    Attributes:
        samples: With labels: their own, else what the original says.
        task: What the model does.
        outputs: What the original says about them, in Keras.
    """

    samples: Samples
    task: AnyTask
    outputs: Array

    @classmethod
    def of(cls, model: Model, task: AnyTask, samples: Samples) -> Judge:
        """Returns the judge whose measure is `model`."""
        outputs = predict(model, samples)
        return cls(task.labelled(samples, outputs), task, outputs)

    def __call__(self, path: pathlib.Path) -> tuple[float, float, float]:
        """Judges a file on the edge interpreter.

        Returns:
            How good it is (higher is better), its drop in the unit of `max_drop`, and the drop's standard error (jackknife over
            `GROUPS` groups of samples).
        """
        samples = self.samples
        outputs: Any = edge.run_file(path, samples.x, scale=samples.scale, offset=samples.offset).together
        if not all(np.isfinite(one).all() for one in arrays_of(outputs)):
            return -math.inf, math.inf, 0.0
        targets = samples.y
        group, several = np.arange(len(targets)) % GROUPS, min(GROUPS, len(targets)) if len(targets) > 1 else 0
        without = [self._drop(outputs, targets, group != one) for one in range(several)]
        known = np.array([lost for lost in without if math.isfinite(lost)])
        doubt = math.sqrt((len(known) - 1) * float(known.var())) if len(known) > 1 else 0.0
        return self.task.goodness(outputs, samples), self._drop(outputs, targets), doubt

    def _drop(self, outputs: Any, targets: Any, chosen: Any = slice(None)) -> float:
        """Returns what is lost on some of the samples."""
        targets = targets[chosen]
        task: Any = self.task
        given, own = (task.score(values[chosen], targets) for values in (outputs, self.outputs))
        lost: Optional[float] = task.drop(own, given, targets)
        return math.inf if lost is None else lost
