"""Relevance of single samples brought together over many, batch by batch, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_xaic._keras import Tensor, tf
from keras_xaic.errors import DataError, ModelError, require_one
from keras_xaic.relevance.choices import Reduce, Statistic

REDUCTIONS: dict[Reduce, Statistic] = {
    "mean_abs": "absolute",
    "mean": "signed",
    "sum": "signed",
    "rms": "squared",
    "momentum": "signed",
}
"""How samples are brought together -> what is summed (see `attribute` for the formulas)."""

MOMENTUM = 0.99
"""Weight of the past, per sample, of ``reduce="momentum"``."""


def check_reduction(reduce: Reduce) -> Statistic:
    """Returns the statistic that a reduction sums.

    Raises:
        DataError: If there is no such reduction.
    """
    require_one("reduce", reduce, REDUCTIONS, DataError)
    return REDUCTIONS[reduce]


def sample_weights(reduce: Reduce, count: int, size: int) -> np.ndarray:
    """Returns the weight of each of `count` real samples in a batch padded to `size`, float32 (size,)."""
    weights = np.zeros(size, np.float32)
    weights[:count] = MOMENTUM ** np.arange(count - 1, -1, -1) if reduce == "momentum" else 1.0
    return weights


def reduce_samples(values: Tensor, statistic: Statistic) -> Tensor:
    """Sums the chosen statistic of a tensor over its first axis, the samples."""
    raised = {"signed": tf.identity, "absolute": tf.abs, "squared": tf.square}[statistic]
    return tf.reduce_sum(raised(values), axis=0)


@dataclass
class Sums:
    """Running sums over samples.

    Attributes:
        reduce: How samples are brought together.
        arrays: Name -> sum of the statistic so far, float64.
        count: Samples so far.
        weight: Sum of the samples' weights so far.
    """

    reduce: Reduce
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    count: int = 0
    weight: float = 0.0

    def add(self, arrays: Mapping[str, Any], count: int) -> None:
        """Adds the sums of a batch of `count` samples."""
        past = MOMENTUM**count if self.reduce == "momentum" else 1.0
        for name, array in arrays.items():
            new = np.asarray(array)
            if name in self.arrays:
                if past != 1.0:
                    self.arrays[name] *= past
                self.arrays[name] += new
            else:
                self.arrays[name] = new.astype(np.float64)
        self.weight = past * self.weight + float(np.sum(sample_weights(self.reduce, count, count)))
        self.count += count

    def merge(self, later: Sums) -> None:
        """Adds the sums over the samples that come after those of these."""
        past = MOMENTUM**later.count if self.reduce == "momentum" else 1.0
        for name, array in later.arrays.items():
            self.arrays[name] = past * self.arrays[name] + array if name in self.arrays else array
        self.weight = past * self.weight + later.weight
        self.count += later.count

    def result(self) -> dict[str, np.ndarray]:
        """Returns name -> the reduced array, float32.

        Raises:
            ModelError: If sums exceed float32.
        """
        divisor = 1.0 if self.reduce == "sum" else self.weight
        finished = {}
        for name, array in self.arrays.items():
            value = array / divisor
            with np.errstate(over="ignore"):
                finished[name] = (np.sqrt(value) if self.reduce == "rms" else value).astype(np.float32)
            if not np.all(np.isfinite(finished[name])):
                raise ModelError(f"relevance brought together by {self.reduce} exceeds float32", "", "Use {reduce=mean_abs}")
        return finished
