"""Samples that judge the file of a round on the edge interpreter."""

from __future__ import annotations

import contextlib
import math
import pathlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

import numpy as np

from keras_xaic import edge
from keras_xaic.data import Array, Data, Samples, arrays_of
from keras_xaic.errors import DataError
from keras_xaic.metrics import NoValue
from keras_xaic.output_tasks import AnyTask, Tasks
from keras_xaic.pipeline.run_settings import RunSettings
from keras_xaic.training import predict

if TYPE_CHECKING:
    from keras_xaic._keras import Model

GROUPS = 10
"""Groups of samples that are left out in turn, to see how far the drop depends on which samples judge."""
FEW = 100
"""Below this many validation samples, a round has to keep its accuracy on as many training samples, too: where only a few
judge, a ruined model may be right by chance."""
MOST, SECONDS = 5000, 40
"""Most samples that judge where nothing is trained, and about how long they may take, if they are not fewer than `FEW`."""


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
        try:
            good, whole = self.task.goodness(outputs, samples), self._drop(outputs, targets)
        except NoValue:  # of a file that never says yes, say
            return -math.inf, math.inf, 0.0
        without = []
        for one in range(several):
            with contextlib.suppress(NoValue):  # of what is left without a group that has all samples of a class
                without.append(self._drop(outputs, targets, group != one))
        known = np.array([lost for lost in without if math.isfinite(lost)])
        doubt = math.sqrt((len(known) - 1) * float(known.var())) if len(known) > 1 else 0.0
        return good, whole, doubt

    def _drop(self, outputs: Any, targets: Any, chosen: Any = slice(None)) -> float:
        """Returns what is lost on some of the samples."""
        targets = targets[chosen]
        task: Any = self.task
        given, own = (task.score(values[chosen], targets) for values in (outputs, self.outputs))
        lost: Optional[float] = task.drop(own, given, targets)
        if lost is None:
            return math.inf
        columns = column_drops(task, outputs[chosen], self.outputs[chosen], targets)
        return max([lost, *(one.lost for one in columns if one.counts)])


def check_numbers_of(outputs: object, rows: Any, key: str) -> None:
    """Refuses samples for which a model gives NaN: no file can be compared with that, and no range be measured.

    Args:
        outputs: Of the original.
        rows: Which samples of the part they belong to.
        key: ``x_train`` or ``x_test``.

    Raises:
        DataError: Naming a sample.
    """
    found = np.any([np.isnan(one.reshape(len(one), -1)).any(axis=1) for one in map(np.asarray, arrays_of(outputs))], axis=0)
    if found.any():
        raise DataError(
            f"the model gives NaN for {np.sum(found)} of {len(found)} samples of {key}, such as {key}[{rows[found.argmax()]}]",
            "numbers",
            "Leave such samples out; often these are sequences that are padding alone",
        )


def judge_count(work: int) -> int:
    """Returns how many samples judge without training, of a model with so many multiply-accumulates."""
    return int(min(MOST, max(FEW, SECONDS * edge.SLOWEST // max(1, work))))


def judging_parts(data: Data, settings: RunSettings, count: int = MOST) -> tuple[Samples, Samples]:
    """Returns the samples to train on and those that judge.

    These are validation data; where nothing is trained, `count` of all.
    """
    train, held_back = data.split(seed=settings.seed)
    return train, data.calibration(count, settings.seed) if settings.epochs == 0 else held_back


class ColumnDrop(NamedTuple):
    """What happened to the worst of the values that stand side by side in an output.

    Attributes:
        lost: By how much of its variance it is worse, in per cent.
        name: Which it is.
        counts: Whether it counts by itself (see `Task.counts_each`).
    """

    lost: float
    name: str
    counts: bool


def column_drops(task: AnyTask, given: object, own: Any, targets: object) -> list[ColumnDrop]:
    """Returns what happened to the worst value of each regression's output.

    A mean over values of unlike size speaks of the largest alone.

    Args:
        task: What the model does.
        given: Outputs of the compressed model.
        own: Outputs of the original.
        targets: What both are judged on.
    """
    parts = list(zip(task.tasks, task.names)) if isinstance(task, Tasks) else [(task, "")]
    found = []
    for (one, name), *arrays in zip(parts, *(arrays_of(values) for values in (given, own, targets))):
        width = arrays[0].shape[-1] if one.kind == "regression" and arrays[0].ndim > 1 else 1
        if width < 2:
            continue
        compressed, original, truth = (np.asarray(array, np.float64).reshape(-1, width) for array in arrays)
        more = ((compressed - truth) ** 2 - (original - truth) ** 2).mean(axis=0)
        variance = truth.var(axis=0)
        lost = 100.0 * np.divide(more, variance, out=np.zeros(width), where=variance > 0.0)
        worst = int(lost.argmax())
        which = f"value {worst} of output {name!r}" if name else f"value {worst} of the output"
        found.append(ColumnDrop(float(lost[worst]), which, one.counts_each(width)))
    return found
