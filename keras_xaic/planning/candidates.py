"""What every kernel of one model could get: bits and zeros, each with the damage and the bytes that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Optional, cast

import numpy as np

from keras_xaic.data import Samples
from keras_xaic.grids import QuantizedKernel, fit_scale, quantize
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.kernels import weighted_kernels
from keras_xaic.planning import cost
from keras_xaic.planning.accounts import Accounts
from keras_xaic.planning.allocation import Candidate
from keras_xaic.planning.options import PlanOptions
from keras_xaic.planning.plan import LayerPlan, pattern_sparsity
from keras_xaic.planning.sensitivity import Damage, RoundedKernels
from keras_xaic.planning.sparsity import kept_weights, weight_score

if TYPE_CHECKING:
    from keras_xaic._keras import Model
    from keras_xaic.planning.storages import Storage

SPARSITIES = tuple(np.round(np.arange(0.0, 0.91, 0.05), 2))
"""Zeros that a kernel may get to meet a download budget; beyond the last, filters must go too."""
FLOAT_ENTROPY = 0.9
"""What is left of float32 weights after compression: only exponents repeat."""
Mask = Optional[np.ndarray]


class LayerOptions:
    """The kernels of a model with their relevance, ready to be given bits and zeros.

    Args:
        model: The model, after filter removal if there is any.
        relevance: Kernel key -> mean relevance of every weight, absolute or, for the score ``signed_relevance``, signed.
        options: What every kernel may get, and what ranks weights for pruning.
        flash_correction: Bytes by which a file was measured to be larger than predicted.
        rounding: What says how much rounding hurts, where that is not `relevance`.
    """

    def __init__(
        self,
        model: Model,
        relevance: Mapping[str, np.ndarray],
        options: PlanOptions,
        flash_correction: int = 0,
        rounding: Optional[Mapping[str, np.ndarray]] = None,
    ) -> None:
        self.model = canonicalize(model).model
        self.options = options
        self.accounts = Accounts(self.model, options.activations, flash_correction)
        self.kernels = self.accounts.kernels
        self.values = {key: kernel.value for key, kernel in self.kernels.items()}
        weighed = relevance if rounding is None else rounding
        self.relevance = {key: np.abs(weighed[key]) for key in self.kernels}
        # Scores compare trained kernels: folding BatchNorm would let its gains decide.
        originals = {kernel.key: kernel.value for kernel in weighted_kernels(model)}
        prunable = [key for key, kernel in self.kernels.items() if kernel.kind != "depthwise"]
        self.positive: Optional[dict[str, np.ndarray]] = None
        """Weights that are kept whatever the budget; None where the budget decides."""
        if options.score == "signed_relevance":
            self.positive = _positive({key: relevance[key] for key in prunable}, options.nonpositive)
        self.scores = {key: weight_score(originals[key], np.abs(relevance[key]), options.score) for key in prunable}
        self.steps: dict[tuple[str, int], np.ndarray] = {}

    def rounding(self, samples: Optional[Samples], seed: int = 0) -> RoundedKernels:
        """Returns what every bit-width would make of the kernels, for `assess`."""
        rounded = {
            (key, bits): self._grid(key, bits, value).values
            for key, value in self.values.items()
            for bits in self.options.choices(key)
            if bits != cost.FLOAT_BITS
        }
        return RoundedKernels(self.model, self.values, rounded, self.relevance, samples, seed)

    def levels(self, least_sparsity: float) -> dict[str, list[Mask]]:
        """Returns, for every kernel, the masks that it may get, the fewest zeros first."""
        if self.positive is not None:
            return {key: [self.positive.get(key)] for key in self.kernels}
        least = kept_weights(self.scores, least_sparsity)
        levels: dict[str, list[Mask]] = {}
        for key, value in self.values.items():
            if key not in self.scores:
                levels[key] = [None]
                continue
            first = least[key]
            more = [one for one in SPARSITIES if one > 1.0 - float(first.mean())]
            masks = [kept_weights({key: self.scores[key]}, one)[key] for one in more]
            levels[key] = [None if first.all() else first]
            levels[key] += [mask for mask in masks if value[~mask].any()]  # zeros need no mask
        return levels

    def candidates(self, damage: Damage, key: str, masks: Sequence[Mask]) -> list[Candidate]:
        """Returns what a kernel could get: every bit-width with each of the masks, in the smallest storage that is no table."""
        return [self._candidate(damage, key, bits, mask) for mask in masks for bits in self.options.choices(key)]

    def _candidate(self, damage: Damage, key: str, bits: int, mask: Mask) -> Candidate:
        original, relevance = self.values[key], self.relevance[key]
        value = original if mask is None else original * mask
        zeros = 0.0 if mask is None else float(1.0 - mask.mean())
        flash = self.accounts.kernel_bytes(key, self.accounts.granularity(key, bits), self.accounts.storage(key, bits))
        expected = damage.of_zeros(key, original, value, relevance)
        if bits == cost.FLOAT_BITS:
            download = round(FLOAT_ENTROPY * 4 * int(np.count_nonzero(value)))
        else:
            grid = self._grid(key, bits, value)
            expected += damage(key, bits, value, grid.values, relevance)
            download = int(np.ceil(grid.entropy_bits * value.size / 8))
        return Candidate(bits, expected, flash, download, value.size, zeros)

    def _grid(self, key: str, bits: int, value: np.ndarray) -> QuantizedKernel:
        """A kernel, perhaps with zeros in it, on the grid that fits it without zeros: the search for steps is the slow part."""
        if (key, bits) not in self.steps:
            fine = self.accounts.granularity(key, bits) == "channel"
            self.steps[key, bits] = fit_scale(self.values[key], bits, self.kernels[key].channel_axes if fine else ())
        return quantize(value, bits, self.steps[key, bits])

    def layers(self, chosen: Mapping[str, Candidate]) -> list[LayerPlan]:
        """Returns the entries of the plan for a choice; kernels are looked up where the table is worth its bytes."""
        total = sum(float(value.sum()) for value in self.relevance.values()) or 1.0
        damage = sum(candidate.damage for candidate in chosen.values()) or 1.0
        plans, table = [], self.accounts.table(chosen)
        for key, kernel in self.kernels.items():
            candidate = chosen[key]
            share = float(self.relevance[key].sum()) / total
            pattern = "unstructured" if kernel.kind == "depthwise" else self.options.pattern(key)
            granularity = self.accounts.granularity(key, candidate.bits)
            storage = cast("Storage", candidate.stored or self.accounts.storage(key, candidate.bits))
            flash_bytes = self.accounts.kernel_bytes(key, granularity, storage)
            flash_bytes -= self.accounts.saved(key, candidate) if table else 0
            why = f"{share:.1%} of the relevance, {candidate.damage / damage:.1%} of the predicted damage"
            plans.append(
                LayerPlan(
                    key=key,
                    kind=kernel.kind,
                    weights=kernel.size,
                    bits=candidate.bits,
                    granularity=granularity,
                    storage=storage,
                    sparsity=pattern_sparsity(pattern, candidate.sparsity),
                    pattern=pattern,
                    relevance=share,
                    flash_bytes=flash_bytes,
                    download_bytes=candidate.download_bytes,
                    reason=self.options.reason(key) + why,
                )
            )
        return plans


def _positive(relevance: Mapping[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
    """Which weights stay where a share of those without positive relevance goes, those that matter least first.

    Every kernel keeps its floor (see `kept_weights`).
    """
    masks = {}
    for key, scores in relevance.items():
        floor = kept_weights({key: scores}, 1.0)[key]
        going = np.flatnonzero(scores <= 0)
        first = going[np.argsort(np.abs(scores.ravel()[going]), kind="stable")]  # by rank: many may have exactly none
        masks[key] = np.ones(scores.shape, bool)
        masks[key].flat[first[: round(share * going.size)]] = False
        masks[key] |= floor
    return masks
