"""What every kernel of one model could get, and the best choice under byte limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

from keras_xaic.grids import fit_scale, quantize
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.kernels import Kernel, weighted_kernels
from keras_xaic.planning import cost
from keras_xaic.planning.allocation import Candidate, allocate
from keras_xaic.planning.damage import rounding_damage
from keras_xaic.planning.plan_file import LayerPlan
from keras_xaic.planning.sparsity import kept_weights, weight_score

SPARSITIES = tuple(np.round(np.arange(0.0, 0.91, 0.05), 2))
"""Zeros alone are pushed to the last of these to meet a download budget; beyond it, filters must go too."""
ROBUST_BITS = 4
"""Zeros are chosen so that layers can keep this bit-width: fewer bits cost more accuracy than the zeros that replace them."""


class LayerOptions:
    """The kernels of a model with their relevance, ready to be given bits and zeros.

    Args:
        model: The model, after filter removal if there is any.
        relevance: Kernel key -> mean absolute relevance of every weight.
        bits: Bit-widths that a kernel may get.
        flash_correction: Bytes by which a file was measured to be larger than predicted.
    """

    def __init__(self, model: Any, relevance: Mapping[str, np.ndarray], bits: Sequence[int], flash_correction: int = 0) -> None:
        canonical = canonicalize(model).model
        self.kernels = weighted_kernels(canonical)
        self.bits = sorted(bits)
        self.values = {kernel.key: kernel.value for kernel in self.kernels}
        self.relevance = {kernel.key: np.abs(relevance[kernel.key]) for kernel in self.kernels}
        # Scores compare trained kernels: folding BatchNorm would let its gains decide.
        originals = {kernel.key: kernel.value for kernel in weighted_kernels(model)}
        self.scores = {
            kernel.key: weight_score(originals[kernel.key], self.relevance[kernel.key])
            for kernel in self.kernels
            if kernel.kind != "depthwise"
        }
        self.fixed = cost.structure_bytes(canonical) + flash_correction
        """Upper bound of the bytes that are no weights: as if every kernel had a step per channel."""

    def choose(self, flash: Optional[int], download: Optional[int], least_sparsity: float = 0.0) -> Optional[list[LayerPlan]]:
        """Returns the least damaging choice within the limits, or None if there is none.

        Args:
            flash: Bytes of `model.tflite`, or None.
            download: Bytes of `model.xaic`, or None.
            least_sparsity: Fraction of zeros that there shall be at least.
        """
        spare_flash = None if flash is None else flash - self.fixed
        for sparsity in (least_sparsity, *(one for one in SPARSITIES if one > least_sparsity)):
            masks = kept_weights(self.scores, sparsity) if sparsity else None
            candidates = self._candidates(masks)
            spare = None if download is None else download - round(cost.DOWNLOAD_SHARE * (self.fixed + self._all_records()))
            robust = {
                key: [c for c in options if c.bits >= min(ROBUST_BITS, self.bits[-1])] for key, options in candidates.items()
            }
            if allocate(robust, spare_flash, spare) is not None:
                chosen = allocate(candidates, spare_flash, spare)
                return self._plans(chosen, masks) if chosen is not None else None
            if download is None:
                break
        return None

    def smallest(self) -> list[LayerPlan]:
        """Returns the choice with the fewest bytes, for budgets that cannot be met."""
        masks = kept_weights(self.scores, SPARSITIES[-1])
        return self._plans(
            {key: min(o, key=lambda c: (c.flash_bytes, -c.bits)) for key, o in self._candidates(masks).items()}, masks
        )

    def flash_bytes(self, layers: Sequence[LayerPlan]) -> int:
        """Returns the predicted size of the file."""
        channels = {kernel.key: kernel.channels for kernel in self.kernels}
        unused = {channels[layer.key] for layer in layers if layer.granularity == "tensor"}
        unused -= {channels[layer.key] for layer in layers if layer.granularity == "channel"}
        return self.fixed - cost.ZERO_POINT_BYTES * sum(unused) + sum(layer.flash_bytes for layer in layers)

    def download_bytes(self, layers: Sequence[LayerPlan]) -> int:
        """Returns the predicted size of the download container."""
        return round(cost.DOWNLOAD_SHARE * (self.fixed + self._all_records())) + sum(layer.download_bytes for layer in layers)

    def _candidates(self, masks: Optional[Mapping[str, np.ndarray]]) -> dict[str, list[Candidate]]:
        return {kernel.key: [self._candidate(kernel, bits, masks) for bits in self.bits] for kernel in self.kernels}

    def _candidate(self, kernel: Kernel, bits: int, masks: Optional[Mapping[str, np.ndarray]]) -> Candidate:
        value = self.values[kernel.key]
        if masks is not None and kernel.key in masks:
            value = value * masks[kernel.key]
        storage = cost.best_storage(kernel.kind, bits)
        granularity = cost.best_granularity(kernel.kind, storage)
        grid = quantize(value, bits, fit_scale(value, bits, kernel.channel_axes if granularity == "channel" else ()))
        damage = rounding_damage(value, grid.values, self.relevance[kernel.key])
        flash = cost.weight_bytes(value.size, storage) + cost.record_bytes(kernel.kind, kernel.channels, granularity)
        return Candidate(bits, damage, flash, int(np.ceil(grid.entropy_bits * value.size / 8)))

    def _all_records(self) -> int:
        return sum(cost.record_bytes(kernel.kind, kernel.channels, "channel") for kernel in self.kernels)

    def _plans(self, chosen: Mapping[str, Candidate], masks: Optional[Mapping[str, np.ndarray]]) -> list[LayerPlan]:
        total = sum(float(value.sum()) for value in self.relevance.values()) or 1.0
        damage = sum(candidate.damage for candidate in chosen.values()) or 1.0
        plans = []
        for kernel in self.kernels:
            candidate = chosen[kernel.key]
            share = float(self.relevance[kernel.key].sum()) / total
            mask = None if masks is None else masks.get(kernel.key)
            storage = cost.best_storage(kernel.kind, candidate.bits)
            plans.append(
                LayerPlan(
                    key=kernel.key,
                    kind=kernel.kind,
                    weights=kernel.size,
                    bits=candidate.bits,
                    granularity=cost.best_granularity(kernel.kind, storage),
                    storage=storage,
                    sparsity=0.0 if mask is None else float(1.0 - mask.mean()),
                    relevance=share,
                    flash_bytes=candidate.flash_bytes,
                    download_bytes=candidate.download_bytes,
                    reason=f"{share:.1%} of the relevance, {candidate.damage / damage:.1%} of the predicted damage",
                )
            )
        return plans
