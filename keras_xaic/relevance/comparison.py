"""Both engines on the same samples: the largest difference per layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic.arguments import an, checked
from keras_xaic.errors import DataError
from keras_xaic.relevance.attribution import Attribution, Progress
from keras_xaic.relevance.composites import RuleLike
from keras_xaic.relevance.container import Relevance

if TYPE_CHECKING:
    from keras_xaic._keras import Model


@dataclass(frozen=True)
class Difference:
    """How far two engines are apart at one kernel.

    Attributes:
        name: Weight key.
        largest: Largest absolute difference of its relevance.
        relative: The same, as a part of the kernel's largest relevance.
    """

    name: str
    largest: float
    relative: float


def cross_check(model: Model, x: Any, y: Any = None, *, rule: RuleLike = "lrp.epsilon", **options: Any) -> list[Difference]:
    """Runs the native and the iNNvestigate engine and compares them, kernel by kernel.

    Args:
        model: See `attribute`.
        x: See `attribute`.
        y: See `attribute`.
        rule: An LRP rule that iNNvestigate has.
        **options: Further arguments of `attribute`; `progress` is called for both runs, one after the other.

    Returns:
        One entry per kernel, in network order.

    Raises:
        ModelError: If one of the engines cannot treat the model.
    """
    engines = [Attribution(model, rule=rule, engine=engine) for engine in ("native", "innvestigate")]
    progress: Optional[Progress] = options.pop("progress", None)
    results: list[Relevance] = []
    for i, engine in enumerate(engines):
        report = None if progress is None else (lambda done, total, i=i: progress(done + i * total, 2 * total))
        results.append(engine.run(x, y, progress=report, **options))
    return compare(*results)


@checked(first=an(Relevance), second=an(Relevance))
def compare(first: Relevance, second: Relevance) -> list[Difference]:
    """Returns the largest difference between two relevances of one model, kernel by kernel.

    Raises:
        DataError: If they are of two models.
    """
    shapes = [{(key, weights.shape) for key, weights in one.weights.items()} for one in (first, second)]
    unlike = ", ".join(f"{key} {shape}" for key, shape in sorted(shapes[0] ^ shapes[1]))
    if unlike:
        raise DataError(f"relevance of two models, of which one has the kernels {unlike} and the other has not", "of one model")
    rows = []
    for key, weights in first.weights.items():
        largest = float(np.abs(weights - second.weights[key]).max())
        scale = float(np.abs(weights).max())
        rows.append(Difference(key, largest, largest / scale if scale else largest))
    return rows
