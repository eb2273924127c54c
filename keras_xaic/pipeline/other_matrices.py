"""How many bits the matrices get that are in no kernel, where the download is limited."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, Protocol

import numpy as np

from keras_xaic.data import Samples, arrays_of
from keras_xaic.models import remove_channels, weighted_kernels
from keras_xaic.models.kernels import other_matrices
from keras_xaic.planning import Budget, Plan, PlanOptions
from keras_xaic.quantization.other_weights import bits_of, coded_bytes, has_bytes, round_others
from keras_xaic.training import predict

if TYPE_CHECKING:
    from keras_xaic._keras import Model

JUDGES = 128
"""Samples that say how far outputs move."""
MUCH = 0.05
"""Share of all weights below which they are left alone, and a layer among them."""


class Planner(Protocol):
    """What makes plans, and of them models (see `SizeFitter`)."""

    def beside(
        self, rounded: Mapping[str, int], budget: Budget, filters: Optional[bool] = None, flash_correction: int = 0
    ) -> Plan:
        """Returns the plan for what is left beside matrices of so many bits."""

    def untrained(self, made: Plan, rounding: Any = "outputs") -> Any:
        """Returns what a plan makes of the model without training."""


class OtherMatrices:
    """The matrices of recurrent, attention and embedding layers of a model.

    Args:
        model: The model as it stands.
        samples: Calibration data.
        options: The bits that they may get, as kernels may; those with 8 are rounded no more than the file rounds them.
    """

    def __init__(self, model: Model, samples: Samples, options: PlanOptions) -> None:
        self.model, self.samples = model, samples.take(slice(0, JUDGES))
        found = {
            path: [value for value in (one.numpy() for one in matrices) if has_bytes(value)]
            for path, matrices in other_matrices(model).items()
        }
        sizes = {path: sum(one.size for one in matrices) for path, matrices in found.items()}
        least = MUCH * (sum(sizes.values()) + sum(kernel.size for kernel in weighted_kernels(model)))
        self.values = {path: matrices for path, matrices in found.items() if matrices and sizes[path] >= least}
        self._sizes: dict[tuple[str, int], float] = {}
        bits = {path: max(map(bits_of, matrices)) for path, matrices in self.values.items()}
        self.kept = {path: few for path, few in bits.items() if few < 8}
        """Layer path -> bits of those that lie on so few levels already, as earlier rounds leave them: they stay there."""
        self.widths = {path: sorted({*options.choices(path), *(() if options.is_pinned(path) else (8,))}) for path in bits}

    def _coded_bytes(self, path: str, bits: int) -> float:
        if (path, bits) not in self._sizes:
            self._sizes[path, bits] = sum(coded_bytes(one, bits) for one in self.values[path])
        return self._sizes[path, bits]

    def coded_bytes(self, rounded: Mapping[str, int]) -> int:
        """Returns about how many bytes of the download they take at these bits; at 8 where nothing is said."""
        return round(sum(self._coded_bytes(path, rounded.get(path, 8)) for path in self.values))

    def least_damaging(
        self,
        planner: Planner,
        budget: Budget,
        filters: Optional[bool],
        flash_correction: int = 0,
        beyond: Optional[Mapping[str, int]] = None,
    ) -> dict[str, int]:
        """Returns layer path -> bits with which the model fits a download limit and its outputs move least, before training.

        Few bits here leave many for kernels, and the other way round: from the most bits that fit with all filters down, until
        it gets worse.

        Args:
            planner: Makes the plans.
            budget: With a limit on the download.
            filters: Whether filters may be removed (see `SizeFitter.plan`).
            flash_correction: See `SizeFitter.plan`.
            beyond: What was found for a larger limit, and too much.
        """
        limit, steps = budget.download_bytes or 1, self._steps
        if len(steps) == 1 or beyond == steps[-1]:
            return steps[-1]
        first, last = 0, len(steps) - 1
        if planner.beside(steps[last], budget, False, flash_correction).predicted_download_bytes <= limit:
            filters, high = False, last
            while first < high:
                middle = (first + high) // 2
                fits = planner.beside(steps[middle], budget, False, flash_correction).predicted_download_bytes <= limit
                first, high = (first, middle) if fits else (middle + 1, high)
        best, least = steps[last], (math.inf, math.inf)
        for number in sorted({min(last, first + more) for more in (0, 1, 2, 4, 8, 16, 32)} | {last}):
            made = planner.beside(steps[number], budget, filters, flash_correction)
            overrun = max(0.0, made.predicted_download_bytes / limit - 1.0)
            damage = (overrun, math.inf if overrun else self._moved(planner.untrained(made, "nearest").model))
            if damage >= least and least[0] == 0.0:
                break
            if damage < least:
                best, least = steps[number], damage
        return best

    @functools.cached_property
    def _steps(self) -> list[dict[str, int]]:
        """Ever fewer bits, from those that the matrices have: each step takes them where outputs move least for a byte."""
        bits = {path: min(self.kept.get(path, 8), widths[-1]) for path, widths in self.widths.items()}
        steps = [self._rounded(bits)]
        while following := {path: fewer for path, few in bits.items() if (fewer := self._fewer(path, few)) is not None}:
            path = min(following, key=lambda one: self._price(one, bits[one], following[one]))
            bits = {**bits, path: following[path]}
            steps.append(self._rounded(bits))
        return steps

    def _fewer(self, path: str, bits: int) -> Optional[int]:
        return max((one for one in self.widths[path] if one < bits), default=None)

    @staticmethod
    def _rounded(bits: Mapping[str, int]) -> dict[str, int]:
        return {path: few for path, few in bits.items() if few < 8}

    def _price(self, path: str, bits: int, fewer: int) -> float:
        """Returns by how much more outputs move for a byte that is saved."""
        saved = self._coded_bytes(path, bits) - self._coded_bytes(path, fewer)
        return (self._alone(path, fewer) - self._alone(path, bits)) / max(saved, 1.0)

    def _alone(self, path: str, bits: int) -> float:
        """Returns by how much outputs move when the matrices of one layer are rounded."""
        if bits == 8:
            return 0.0
        weights = self._clone.get_weights()
        round_others(self._clone, {path: bits})
        moved = self._moved(self._clone)
        self._clone.set_weights(weights)
        return moved

    @functools.cached_property
    def _clone(self) -> Model:
        return remove_channels(self.model, {})

    def _moved(self, small: Model) -> float:
        """Returns by how much outputs differ from the original's: squared, over their variance, of several outputs the sum."""
        pairs = zip(arrays_of(self._outputs), arrays_of(predict(small, self.samples)))
        moved = sum(float(np.square(one - other).mean() / max(float(one.var()), 1e-12)) for one, other in pairs)
        return moved if math.isfinite(moved) else math.inf

    @functools.cached_property
    def _outputs(self) -> Any:
        return predict(self.model, self.samples)
