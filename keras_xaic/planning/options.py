"""What every kernel of one model could get, and the best choice under limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional

import numpy as np

from keras_xaic.data import Samples
from keras_xaic.grids import QuantizedKernel, fit_scale, quantize
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.kernels import Kernel, weighted_kernels
from keras_xaic.planning import cost
from keras_xaic.planning.allocation import Candidate, Limits
from keras_xaic.planning.arena import predict_ram
from keras_xaic.planning.plan_file import LayerPlan, Score, pattern_sparsity
from keras_xaic.planning.policy import Policy
from keras_xaic.planning.sensitivity import Damage, Rounding
from keras_xaic.planning.sparsity import kept_weights, weight_score

SPARSITIES = tuple(np.round(np.arange(0.0, 0.91, 0.01), 2))
"""Zeros alone are pushed to the last of these to meet a download budget; beyond it, filters must go too."""
ROBUST_BITS = 4
"""Zeros are chosen so that layers can keep this bit-width: fewer bits cost more accuracy than the zeros that replace them."""
FLOAT_ENTROPY = 0.9
"""What is left of float32 weights after compression: only exponents repeat."""

Masks = Optional[Mapping[str, np.ndarray]]


class LayerOptions:
    """The kernels of a model with their relevance, ready to be given bits and zeros.

    Args:
        model: The model, after filter removal if there is any.
        relevance: Kernel key -> mean relevance of every weight, absolute or, for the score ``signed_relevance``, signed.
        policy: What every kernel may get.
        score: What ranks weights for pruning.
        flash_correction: Bytes by which a file was measured to be larger than predicted.
    """

    def __init__(
        self,
        model: Any,
        relevance: Mapping[str, np.ndarray],
        policy: Policy,
        score: Score = "geometric_mean",
        flash_correction: int = 0,
    ) -> None:
        self.model = canonicalize(model).model
        self.kernels = weighted_kernels(self.model)
        self.policy = policy
        self.values = {kernel.key: kernel.value for kernel in self.kernels}
        self.relevance = {kernel.key: np.abs(relevance[kernel.key]) for kernel in self.kernels}
        # Scores compare trained kernels: folding BatchNorm would let its gains decide.
        originals = {kernel.key: kernel.value for kernel in weighted_kernels(model)}
        prunable = [kernel.key for kernel in self.kernels if kernel.kind != "depthwise"]
        self.positive: Masks = None
        """Weights that are kept whatever the budget; None where the budget decides."""
        if score == "signed_relevance":
            self.positive = _positive({key: relevance[key] for key in prunable})
        self.scores = {key: weight_score(originals[key], self.relevance[key], score) for key in prunable}
        self.steps: dict[tuple[str, int], np.ndarray] = {}
        self.fixed = cost.structure_bytes(self.model, policy.activations) + flash_correction
        """Upper bound of the bytes that are no weights: as if every kernel had a step per channel."""

    def rounding(self, samples: Optional[Samples], seed: int = 0) -> Rounding:
        """Returns what every bit-width would make of the kernels, for `assess`."""
        rounded = {
            (kernel.key, bits): self._grid(kernel, bits, self.values[kernel.key]).values
            for kernel in self.kernels
            for bits in self.policy.choices(kernel.key)
            if bits != cost.FLOAT_BITS
        }
        return Rounding(self.model, self.values, rounded, self.relevance, samples, seed)

    def choose(
        self,
        damage: Damage,
        flash: Optional[int],
        download: Optional[int],
        mean_bits: Optional[float] = None,
        least_sparsity: float = 0.0,
    ) -> Optional[list[LayerPlan]]:
        """Returns the least damaging choice within the limits, or None if there is none.

        The fewest zeros with which layers can keep `ROBUST_BITS` are found by bisection: more zeros never take more bytes.

        Args:
            damage: What rounding does.
            flash: Bytes of `model.tflite`, or None.
            download: Bytes of `model.xaic`, or None.
            mean_bits: Mean bit-width over all weights, or None.
            least_sparsity: Fraction of zeros that there shall be at least.
        """
        spare = None if download is None else download - round(cost.DOWNLOAD_SHARE * (self.fixed + self._all_records()))
        limits = Limits(None if flash is None else flash - self.fixed, spare, mean_bits)
        levels = [least_sparsity]
        if download is not None and self.positive is None:
            levels += [one for one in SPARSITIES if one > least_sparsity]
        low, high = 0, len(levels)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._robust(damage, levels[middle], limits) else (middle + 1, high)
        if low == len(levels):
            return None
        masks = self._masks(levels[low])
        chosen = damage.sensitivity.allocate(self._candidates(damage, masks), limits)
        return None if chosen is None else self._plans(chosen, masks)

    def smallest(self, damage: Damage, zeros: bool = True) -> list[LayerPlan]:
        """Returns the choice with the fewest bytes, for budgets that cannot be met; plain int8 has no `zeros` to get there."""
        masks = self._masks(SPARSITIES[-1]) if zeros else None
        candidates = self._candidates(damage, masks)
        return self._plans({key: min(o, key=lambda c: (c.flash_bytes, -c.bits)) for key, o in candidates.items()}, masks)

    def flash_bytes(self, layers: Sequence[LayerPlan]) -> int:
        """Returns the predicted size of the file."""
        channels = {kernel.key: kernel.channels for kernel in self.kernels}
        unused = {channels[layer.key] for layer in layers if layer.granularity == "tensor"}
        unused -= {channels[layer.key] for layer in layers if layer.granularity == "channel"}
        return self.fixed - cost.ZERO_POINT_BYTES * sum(unused) + sum(layer.flash_bytes for layer in layers)

    def download_bytes(self, layers: Sequence[LayerPlan]) -> int:
        """Returns the predicted size of the download container."""
        return round(cost.DOWNLOAD_SHARE * (self.fixed + self._all_records())) + sum(layer.download_bytes for layer in layers)

    def ram_bytes(self, layers: Sequence[LayerPlan]) -> int:
        """Returns the predicted arena under TensorFlow Lite Micro; see `predict_ram`."""
        return predict_ram(self.model, layers, self.policy.activations)

    def _robust(self, damage: Damage, sparsity: float, limits: Limits) -> bool:
        """Whether all kernels fit with at least `ROBUST_BITS` (or the most they may have)."""
        candidates = {
            key: [one for one in options if one.bits >= min(ROBUST_BITS, options[-1].bits)]
            for key, options in self._candidates(damage, self._masks(sparsity)).items()
        }
        return damage.sensitivity.allocate(candidates, replace(limits, mean_bits=None)) is not None

    def _masks(self, sparsity: float) -> Masks:
        if self.positive is not None:
            return self.positive
        return kept_weights(self.scores, sparsity) if sparsity else None

    def _candidates(self, damage: Damage, masks: Masks) -> dict[str, list[Candidate]]:
        return {
            kernel.key: [self._candidate(damage, kernel, bits, masks) for bits in self.policy.choices(kernel.key)]
            for kernel in self.kernels
        }

    def _candidate(self, damage: Damage, kernel: Kernel, bits: int, masks: Masks) -> Candidate:
        value = self.values[kernel.key]
        if masks is not None and kernel.key in masks:
            value = value * masks[kernel.key]
        storage = cost.best_storage(kernel.kind, bits, self.policy.activations)
        granularity = cost.best_granularity(kernel.kind, storage, self.policy.activations)
        flash = cost.weight_bytes(value.size, storage) + self._records(kernel, granularity)
        if bits == cost.FLOAT_BITS:
            return Candidate(bits, 0.0, flash, round(FLOAT_ENTROPY * 4 * int(np.count_nonzero(value))), value.size)
        grid = self._grid(kernel, bits, value)
        expected = damage(kernel.key, bits, value, grid.values, self.relevance[kernel.key])
        return Candidate(bits, expected, flash, int(np.ceil(grid.entropy_bits * value.size / 8)), value.size)

    def _grid(self, kernel: Kernel, bits: int, value: np.ndarray) -> QuantizedKernel:
        """A kernel, perhaps with zeros in it, on the grid that fits it without zeros: the search for steps is the slow part."""
        if (kernel.key, bits) not in self.steps:
            storage = cost.best_storage(kernel.kind, bits, self.policy.activations)
            fine = cost.best_granularity(kernel.kind, storage, self.policy.activations) == "channel"
            self.steps[kernel.key, bits] = fit_scale(self.values[kernel.key], bits, kernel.channel_axes if fine else ())
        return quantize(value, bits, self.steps[kernel.key, bits])

    def _all_records(self) -> int:
        return sum(self._records(kernel, "channel") for kernel in self.kernels)

    def _records(self, kernel: Kernel, granularity: str) -> int:
        return cost.record_bytes(kernel.kind, kernel.channels, granularity, self.policy.activations)

    def _plans(self, chosen: Mapping[str, Candidate], masks: Masks) -> list[LayerPlan]:
        total = sum(float(value.sum()) for value in self.relevance.values()) or 1.0
        damage = sum(candidate.damage for candidate in chosen.values()) or 1.0
        plans = []
        for kernel in self.kernels:
            candidate = chosen[kernel.key]
            share = float(self.relevance[kernel.key].sum()) / total
            mask = None if masks is None else masks.get(kernel.key)
            pattern = "unstructured" if kernel.kind == "depthwise" else self.policy.pattern(kernel.key)
            storage = cost.best_storage(kernel.kind, candidate.bits, self.policy.activations)
            why = f"{share:.1%} of the relevance, {candidate.damage / damage:.1%} of the predicted damage"
            plans.append(
                LayerPlan(
                    key=kernel.key,
                    kind=kernel.kind,
                    weights=kernel.size,
                    bits=candidate.bits,
                    granularity=cost.best_granularity(kernel.kind, storage, self.policy.activations),
                    storage=storage,
                    sparsity=pattern_sparsity(pattern, 0.0 if mask is None else float(1.0 - mask.mean())),
                    pattern=pattern,
                    relevance=share,
                    flash_bytes=candidate.flash_bytes,
                    download_bytes=candidate.download_bytes,
                    reason=self.policy.reason(kernel.key) + why,
                )
            )
        return plans


def _positive(relevance: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which weights have positive relevance; every kernel keeps its floor (see `kept_weights`)."""
    masks = {}
    for key, scores in relevance.items():
        floor = kept_weights({key: scores}, 1.0)[key]
        masks[key] = (scores > 0) | floor
    return masks
