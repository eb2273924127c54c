"""What every kernel of one model could get, and the best choice under limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional, cast

import numpy as np

from keras_xaic.data import Samples
from keras_xaic.grids import QuantizedKernel, fit_scale, quantize
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.kernels import Kernel, KernelKind, weighted_kernels
from keras_xaic.planning import cost
from keras_xaic.planning.allocation import Candidate, Limits, allocate
from keras_xaic.planning.latency import StoredAs, Times, microseconds
from keras_xaic.planning.options import PlanOptions
from keras_xaic.planning.plan import LayerPlan, pattern_sparsity
from keras_xaic.planning.ram import predict_ram
from keras_xaic.planning.sensitivity import Damage, RoundedKernels
from keras_xaic.planning.sparsity import kept_weights, weight_score
from keras_xaic.planning.storages import SLOW, Granularity, Storage

if TYPE_CHECKING:
    from keras_xaic._keras import Model

SPARSITIES = tuple(np.round(np.arange(0.0, 0.91, 0.05), 2))
"""Zeros that a kernel may get to meet a download budget; beyond the last, filters must go too."""
LITTLE = 0.002
"""Share of plain int8's time that a layer may take longer for bytes that nobody has limited."""
GUESSES = 3
"""How often bits are chosen again for the bytes that are left by the scales which the choice before needs."""
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
        self.kernels = weighted_kernels(self.model)
        self.by_key = {kernel.key: kernel for kernel in self.kernels}
        self.options = options
        self.values = {kernel.key: kernel.value for kernel in self.kernels}
        weighed = relevance if rounding is None else rounding
        self.relevance = {kernel.key: np.abs(weighed[kernel.key]) for kernel in self.kernels}
        # Scores compare trained kernels: folding BatchNorm would let its gains decide.
        originals = {kernel.key: kernel.value for kernel in weighted_kernels(model)}
        prunable = [kernel.key for kernel in self.kernels if kernel.kind != "depthwise"]
        self.positive: Optional[dict[str, np.ndarray]] = None
        """Weights that are kept whatever the budget; None where the budget decides."""
        if options.score == "signed_relevance":
            self.positive = _positive({key: relevance[key] for key in prunable}, options.nonpositive)
        self.scores = {key: weight_score(originals[key], np.abs(relevance[key]), options.score) for key in prunable}
        self.steps: dict[tuple[str, int], np.ndarray] = {}
        self.times = Times(self.model, options.activations)
        self.works = self.times.works()
        self.fixed = cost.structure_bytes(self.model, options.activations) + flash_correction
        """Upper bound of the bytes that are no weights: as if every kernel had a scale per channel."""

    def rounding(self, samples: Optional[Samples], seed: int = 0) -> RoundedKernels:
        """Returns what every bit-width would make of the kernels, for `assess`."""
        rounded = {
            (kernel.key, bits): self._grid(kernel, bits, self.values[kernel.key]).values
            for kernel in self.kernels
            for bits in self.options.choices(kernel.key)
            if bits != cost.FLOAT_BITS
        }
        return RoundedKernels(self.model, self.values, rounded, self.relevance, samples, seed)

    def choose(
        self, damage: Damage, limits: Limits, least_sparsity: float = 0.0, insist: bool = False
    ) -> Optional[list[LayerPlan]]:
        """Returns the least damaging choice of bits and zeros for all kernels within the limits, or None if there is none.

        Kernels that the file looks up (see `keras_xaic.tflite.look_up`) count with fewer bytes of flash only if they would get
        so few bits without a limit on flash, too: flash alone brings no kernel down to three values, but where nothing else
        fits and the caller insists.

        Args:
            damage: What rounding and zeros do.
            limits: Bytes of `model.tflite` and of `model.xaic`, mean bit-width over all weights, and predicted time. Without a
                limit on the download there are no more zeros than `least_sparsity`; with one on time nothing is looked up.
            least_sparsity: Fraction of zeros that there shall be at least.
            insist: Whether flash alone may do so: no filters are left that could go for it.
        """
        flash, download, time = limits.flash, limits.download, limits.microseconds
        in_time = None if time is None else time - self.times.fixed
        limits = replace(limits, microseconds=in_time)
        levels = {key: masks if download is not None else masks[:1] for key, masks in self._levels(least_sparsity).items()}
        smallest = {
            kernel.key: [self._looked_up(kernel.key, one) for one in self._smallest(damage, kernel, levels[kernel.key][-1])]
            for kernel in self.kernels
        }
        if time is not None:
            smallest = {key: self._ways(key, found) for key, found in smallest.items()}
        if damage.sensitivity.allocate(smallest, replace(self._room(limits), mean_bits=None)) is None:
            return None  # said before all candidates are weighed: those of large kernels take a while
        candidates = {
            kernel.key: [
                self._candidate(damage, kernel, bits, mask)
                for mask in levels[kernel.key]
                for bits in self.options.choices(kernel.key)
            ]
            for kernel in self.kernels
        }
        if time is not None:
            candidates = {key: self._ways(key, found) for key, found in candidates.items()}
        chosen = self._within(damage, candidates, limits if time is not None else replace(limits, flash=None))
        if flash is None or time is not None or chosen is None:
            return None if chosen is None else self._plans(chosen)
        ways = [self._in_flash(damage, candidates, chosen, limits, insist)]
        dense = [key for key, one in chosen.items() if self.by_key[key].kind == "dense" and self._saved(key, one)]
        if dense and not self.options.packed:  # dense kernels are fast when they are packed, and slowest when looked up
            fixed = {key: [self._packed(key, one) for one in candidates[key]] for key in dense}
            first = {key: self._packed(key, one) if key in fixed else one for key, one in chosen.items()}
            ways.append(self._in_flash(damage, {**candidates, **fixed}, first, limits, insist=False))
        found = [layers for layers in ways if layers is not None]
        return min(found, key=lambda layers: self._least_time(layers, flash)) if found else None

    def _in_flash(
        self,
        damage: Damage,
        candidates: Mapping[str, Sequence[Candidate]],
        chosen: Mapping[str, Candidate],
        limits: Limits,
        insist: bool,
    ) -> Optional[list[LayerPlan]]:
        """Returns the least damaging of candidates within all limits; `chosen` are those without one on flash."""
        table = self._table(chosen)
        saved = {key for key, one in chosen.items() if table and self._saved(key, one)}
        candidates = {
            key: [self._looked_up(key, one) for one in found] if key in saved else found for key, found in candidates.items()
        }
        layers = self._plans(chosen)
        if limits.flash is None or self.flash_bytes(layers) <= limits.flash:
            return layers  # the limit on flash does not bind
        within = self._within(damage, candidates, limits, table)
        if within is None and insist:
            few = {key: [self._looked_up(key, one) for one in found] for key, found in candidates.items() if key not in saved}
            within = self._within(damage, {**candidates, **few}, limits, cost.TABLE_BYTES)
        return None if within is None else self._plans(within)

    def _packed(self, key: str, one: Candidate) -> Candidate:
        """Returns a candidate in the smallest storage that is no table."""
        return replace(one, stored=self._storage(self.by_key[key], one.bits))

    def _least_time(self, layers: Sequence[LayerPlan], flash: Optional[int]) -> float:
        plain = self.times.fixed + sum(self._time(layer.key, "int8") for layer in layers)
        return self.microseconds(self.fastest(layers, flash, plain)[0])

    def _within(
        self, damage: Damage, candidates: Mapping[str, Sequence[Candidate]], limits: Limits, table: int = 0
    ) -> Optional[dict[str, Candidate]]:
        """Returns the least damaging of candidates within limits of the whole file, `table` included.

        Which scales and zero points it needs is known when something is chosen: weights get the bytes that these leave.
        """
        room, least = self._room(limits, table), self._room(limits, table, fine=True)
        for _ in range(GUESSES):
            chosen = damage.sensitivity.allocate(candidates, room)
            if chosen is None:
                break
            layers = self._plans(chosen)
            over = Limits(*(None if most is None else max(0, size - most) for size, most in self._sizes(layers, limits)))
            if not over.flash and not over.download:
                return chosen
            room = replace(room, flash=_less(room.flash, over.flash), download=_less(room.download, over.download))
        return damage.sensitivity.allocate(candidates, least)

    def _sizes(self, layers: Sequence[LayerPlan], limits: Limits) -> tuple[tuple[int, Optional[int]], ...]:
        return (self.flash_bytes(layers), limits.flash), (self.download_bytes(layers), limits.download)

    def _room(self, limits: Limits, table: int = 0, fine: bool = False) -> Limits:
        """Returns what limits of the whole file leave for weights: at most, or, if all scales are `fine`, at least."""
        spared, records = (0, self._all_records()) if fine else (self._spared(), self._least_records())
        fixed = self.fixed - spared
        download = round(cost.DOWNLOAD_SHARE * (fixed + records))
        return replace(limits, flash=_less(limits.flash, fixed + table), download=_less(limits.download, download))

    def _coarse(self, kind: KernelKind) -> bool:
        """Returns whether a kernel of this kind may do with one scale."""
        smallest = cost.best_storage(kind, 2, self.options.activations)
        return cost.best_granularity(kind, smallest, self.options.activations) == "tensor"

    def _spared(self) -> int:
        """Returns the bytes of the zero points that no kernel needs where all do with as few scales as they may."""
        fine = {kernel.channels for kernel in self.kernels if not self._coarse(kernel.kind)}
        return cost.ZERO_POINT_BYTES * sum({kernel.channels for kernel in self.kernels} - fine)

    def _least_records(self) -> int:
        """Returns the bytes of biases and scales where all kernels do with as few scales as they may."""
        return sum(
            self._records(kernel, "tensor" if self._coarse(kernel.kind) else "channel", "int8") for kernel in self.kernels
        )

    def best_effort(self, damage: Damage, limits: Limits, least_sparsity: float = 0.0) -> list[LayerPlan]:
        """Returns the best choice where none meets all limits: these are eased, where they must be, to the least there is.

        Flash comes first: the limit on the download is eased to what is possible with the least flash.

        Args:
            damage: As for `choose`.
            limits: As for `choose`.
            least_sparsity: As for `choose`.
        """
        insisted = self.choose(damage, limits, least_sparsity, insist=True)
        if insisted is not None:
            return insisted
        flash, download, mean_bits = limits.flash, limits.download, limits.mean_bits
        least = self._least(damage, limits, least_sparsity)
        layers = self._plans(least)
        size = self.flash_bytes(layers)
        eased = Limits(
            None if flash is None else max(flash, size),
            None if download is None else max(download, self.download_bytes(layers)),
            None if mean_bits is None else max(mean_bits, _mean_bits(least.values())),
        )
        # A table that is worth its bytes only with enough small kernels makes sizes leap: what fits less flash fits more, too.
        tries = [eased] if flash is None else [eased, replace(eased, flash=size)]
        found = (self.choose(damage, one, least_sparsity, insist=True) for one in tries)
        return next((one for one in found if one is not None), layers)

    def _least(self, damage: Damage, limits: Limits, least_sparsity: float) -> dict[str, Candidate]:
        """Returns what takes the least flash, where that is limited, with only as many zeros as the download asks for."""
        levels = self._levels(least_sparsity)
        deepest = max(map(len, levels.values())) if limits.download is not None else 1
        chosen: dict[str, Candidate] = {}
        for depth in range(deepest):
            for kernel in self.kernels:
                masks = levels[kernel.key]
                ways = self._smallest(damage, kernel, masks[min(depth, len(masks) - 1)])
                chosen[kernel.key] = min(
                    (self._looked_up(kernel.key, one) for one in ways),
                    key=lambda one: (one.flash_bytes if limits.flash is not None else 0, one.download_bytes, one.bits),
                )
            if limits.download is None or self.download_bytes(self._plans(chosen)) <= limits.download:
                break
        return chosen

    def fastest(self, layers: Sequence[LayerPlan], flash: Optional[int], plain: float) -> tuple[list[LayerPlan], bool]:
        """Returns layers as they take the least time within the limit on flash, and whether any is looked up.

        A byte a weight holds the same grid, takes the same download and is as fast as plain int8; packing makes layers slow
        that fast kernels do not take so. Those that have to be packed for flash are the ones that it costs least time; nothing
        is looked up that need not be.

        Args:
            layers: What was chosen.
            flash: Bytes of `model.tflite`, or None.
            plain: Microseconds of plain int8, which the cost is told in.
        """
        for may_look_up in (False, True):
            ways = {layer.key: self._storages_of(layer, may_look_up) for layer in layers}
            offered = {
                key: [
                    Candidate(one.bits, self._cost(key, stored, plain), one.flash_bytes, 0, stored=stored)
                    for stored, one in found
                ]
                for key, found in ways.items()
            }
            table = cost.TABLE_BYTES if may_look_up else 0
            chosen = allocate(offered, Limits(None if flash is None else flash - self._overhead(layers) - table))
            if chosen is not None:
                taken = [(str(chosen[key].stored), dict(found)[chosen[key].stored]) for key, found in ways.items()]
                break
        else:
            taken = [(self._stored_as(layer), layer) for layer in layers]
        return [self._told(stored, layer, plain) for stored, layer in taken], any(stored == "lookup" for stored, _ in taken)

    def _storages_of(self, layer: LayerPlan, may_look_up: bool) -> list[tuple[Any, LayerPlan]]:
        """Returns the ways to store what a layer was given, each with the bytes that it takes."""
        if layer.is_float:
            return [("float32", layer)]
        smallest = self._storage(self.by_key[layer.key], layer.bits)
        found: list[tuple[Any, LayerPlan]] = []
        looked_up = may_look_up and self._stored_as(layer) == "lookup"
        for storage in dict.fromkeys((layer.storage, smallest, "int8")):
            if looked_up and storage == "int4":  # a file that looks up one kernel does so with all that get smaller
                continue
            one = layer.model_copy(update={"storage": storage})
            found.append((storage, one.model_copy(update={"flash_bytes": self._stored_bytes(one)})))
        if looked_up:
            found.append(("lookup", layer))
        return found

    def _told(self, stored: Any, layer: LayerPlan, plain: float) -> LayerPlan:
        """Returns a layer with what its storage costs in time."""
        taken, usual = self._time(layer.key, stored), self._time(layer.key, "float32" if layer.is_float else "int8")
        slowdown = round(taken / usual, 2) if usual > 0 else 1.0
        if slowdown <= SLOW:
            return layer.model_copy(update={"slowdown": slowdown})
        how = "looked up" if stored == "lookup" else "packed"
        said = f"{how} for flash: {slowdown:.1f} times its time, {(taken - usual) / max(plain, 1e-9):+.0%} of plain int8's"
        return layer.model_copy(update={"slowdown": slowdown, "reason": f"{layer.reason}; {said}"})

    def microseconds(self, layers: Sequence[LayerPlan]) -> float:
        """Returns the predicted time of the file (see `keras_xaic.planning.latency`)."""
        return self.times.fixed + sum(self._time(layer.key, self._stored_as(layer)) for layer in layers)

    def _time(self, key: str, stored: Any) -> float:
        return microseconds(self.works[key], stored, "int8" if stored == "float32" else self.options.activations)

    def _cost(self, key: str, stored: Any, plain: float) -> float:
        """Returns the time that a storage takes where that is worth more bytes; else that of a byte a weight."""
        taken, usual = self._time(key, stored), self._time(key, "int8")
        is_little = usual < taken <= max(SLOW * usual, usual + LITTLE * plain)
        return usual if is_little else taken

    def _stored_as(self, layer: LayerPlan) -> StoredAs:
        return "lookup" if layer.flash_bytes < self._stored_bytes(layer) else layer.storage

    def _ways(self, key: str, found: Sequence[Candidate]) -> list[Candidate]:
        """Returns candidates in every storage that holds them, each with the time that it takes; none is looked up."""
        ways, kernel = [], self.by_key[key]
        for one in found:
            smallest = self._storage(kernel, one.bits)
            granularity = cost.best_granularity(kernel.kind, smallest, self.options.activations)
            for storage in dict.fromkeys((smallest, "float32" if smallest == "float32" else "int8")):
                flash = cost.weight_bytes(one.weights, storage) + self._records(kernel, granularity, storage)
                ways.append(replace(one, stored=storage, flash_bytes=flash, microseconds=self._time(key, storage)))
        return ways

    def flash_bytes(self, layers: Sequence[LayerPlan]) -> int:
        """Returns the predicted size of the file."""
        looked_up = any(layer.flash_bytes < self._stored_bytes(layer) for layer in layers)
        table = cost.TABLE_BYTES if looked_up else 0
        return self._overhead(layers) + table + sum(layer.flash_bytes for layer in layers)

    def _overhead(self, layers: Sequence[LayerPlan]) -> int:
        """Returns the bytes that are no weights, with the zero points that these layers need."""
        channels = {kernel.key: kernel.channels for kernel in self.kernels}
        unused = {channels[layer.key] for layer in layers if layer.granularity == "tensor"}
        unused -= {channels[layer.key] for layer in layers if layer.granularity == "channel"}
        return self.fixed - cost.ZERO_POINT_BYTES * sum(unused)

    def download_bytes(self, layers: Sequence[LayerPlan]) -> int:
        """Returns the predicted size of the download container."""
        records = sum(self._records(self.by_key[layer.key], layer.granularity, "int8") for layer in layers)
        return round(cost.DOWNLOAD_SHARE * (self._overhead(layers) + records)) + sum(layer.download_bytes for layer in layers)

    def ram_bytes(self, layers: Sequence[LayerPlan]) -> int:
        """Returns the predicted arena under TensorFlow Lite Micro; see `predict_ram`."""
        return predict_ram(self.model, layers, self.options.activations)

    def _levels(self, least_sparsity: float) -> dict[str, list[Mask]]:
        """Returns, for every kernel, the masks that it may get, the fewest zeros first."""
        if self.positive is not None:
            return {kernel.key: [self.positive.get(kernel.key)] for kernel in self.kernels}
        least = kept_weights(self.scores, least_sparsity)
        levels: dict[str, list[Mask]] = {}
        for kernel in self.kernels:
            if kernel.key not in self.scores:
                levels[kernel.key] = [None]
                continue
            first = least[kernel.key]
            more = [one for one in SPARSITIES if one > 1.0 - float(first.mean())]
            masks = [kept_weights({kernel.key: self.scores[kernel.key]}, one)[kernel.key] for one in more]
            levels[kernel.key] = [None if first.all() else first]
            levels[kernel.key] += [mask for mask in masks if self.values[kernel.key][~mask].any()]  # zeros need no mask
        return levels

    def _smallest(self, damage: Damage, kernel: Kernel, mask: Mask) -> list[Candidate]:
        return [self._candidate(damage, kernel, bits, mask) for bits in self.options.choices(kernel.key)]

    def _candidate(self, damage: Damage, kernel: Kernel, bits: int, mask: Mask) -> Candidate:
        original, relevance = self.values[kernel.key], self.relevance[kernel.key]
        value = original if mask is None else original * mask
        zeros = 0.0 if mask is None else float(1.0 - mask.mean())
        storage = self._storage(kernel, bits)
        granularity = cost.best_granularity(kernel.kind, storage, self.options.activations)
        flash = cost.weight_bytes(value.size, storage) + self._records(kernel, granularity, storage)
        expected = damage.of_zeros(kernel.key, original, value, relevance)
        if bits == cost.FLOAT_BITS:
            download = round(FLOAT_ENTROPY * 4 * int(np.count_nonzero(value)))
        else:
            grid = self._grid(kernel, bits, value)
            expected += damage(kernel.key, bits, value, grid.values, relevance)
            download = int(np.ceil(grid.entropy_bits * value.size / 8))
        return Candidate(bits, expected, flash, download, value.size, zeros)

    def _looked_up(self, key: str, one: Candidate) -> Candidate:
        """Returns a candidate with the bytes that it takes in a file that looks up what it can."""
        return replace(one, flash_bytes=one.flash_bytes - self._saved(key, one))

    def _table(self, chosen: Mapping[str, Candidate]) -> int:
        """Returns the bytes of the table that kernels are looked up in, 0 where they would not save as many."""
        return cost.TABLE_BYTES if sum(self._saved(key, one) for key, one in chosen.items()) > cost.TABLE_BYTES else 0

    def _stored_bytes(self, layer: LayerPlan) -> int:
        records = self._records(self.by_key[layer.key], layer.granularity, layer.storage)
        return cost.weight_bytes(layer.weights, layer.storage) + records

    def _saved(self, key: str, one: Candidate) -> int:
        if one.stored is not None:
            return 0
        storage = self._storage(self.by_key[key], one.bits)
        looked_up = cost.weight_bytes(one.weights, storage, one.bits, self.options.activations)
        return cost.weight_bytes(one.weights, storage) - looked_up

    def _storage(self, kernel: Kernel, bits: int) -> Storage:
        return cost.best_storage(kernel.kind, bits, self.options.activations, kernel.shape)

    def _grid(self, kernel: Kernel, bits: int, value: np.ndarray) -> QuantizedKernel:
        """A kernel, perhaps with zeros in it, on the grid that fits it without zeros: the search for steps is the slow part."""
        if (kernel.key, bits) not in self.steps:
            storage = self._storage(kernel, bits)
            fine = cost.best_granularity(kernel.kind, storage, self.options.activations) == "channel"
            self.steps[kernel.key, bits] = fit_scale(self.values[kernel.key], bits, kernel.channel_axes if fine else ())
        return quantize(value, bits, self.steps[kernel.key, bits])

    def _all_records(self) -> int:
        return sum(self._records(kernel, "channel", "int8") for kernel in self.kernels)

    def _records(self, kernel: Kernel, granularity: Granularity, storage: Storage) -> int:
        return cost.record_bytes(kernel.kind, kernel.channels, granularity, storage, self.options.activations)

    def _plans(self, chosen: Mapping[str, Candidate]) -> list[LayerPlan]:
        total = sum(float(value.sum()) for value in self.relevance.values()) or 1.0
        damage = sum(candidate.damage for candidate in chosen.values()) or 1.0
        plans, table = [], self._table(chosen)
        for kernel in self.kernels:
            candidate = chosen[kernel.key]
            share = float(self.relevance[kernel.key].sum()) / total
            pattern = "unstructured" if kernel.kind == "depthwise" else self.options.pattern(kernel.key)
            smallest = self._storage(kernel, candidate.bits)
            granularity = cost.best_granularity(kernel.kind, smallest, self.options.activations)
            storage = cast("Storage", candidate.stored or smallest)
            flash_bytes = cost.weight_bytes(kernel.size, storage) + self._records(kernel, granularity, storage)
            flash_bytes -= self._saved(kernel.key, candidate) if table else 0
            why = f"{share:.1%} of the relevance, {candidate.damage / damage:.1%} of the predicted damage"
            plans.append(
                LayerPlan(
                    key=kernel.key,
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
                    reason=self.options.reason(kernel.key) + why,
                )
            )
        return plans


def _less(limit: Optional[int], taken: Optional[int]) -> Optional[int]:
    """Returns a limit without what is taken already."""
    return None if limit is None else limit - (taken or 0)


def _mean_bits(chosen: Collection[Candidate]) -> float:
    return sum(one.bits * one.weights for one in chosen) / max(1, sum(one.weights for one in chosen))


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
