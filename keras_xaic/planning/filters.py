"""Which filters go when bits and zeros are not enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import numpy as np

from keras_xaic.budget import Budget
from keras_xaic.errors import PlanError
from keras_xaic.models.channels import ChannelGroups, Keep, channel_groups, group_scores
from keras_xaic.models.costs import kept_macs, kept_parameters, kept_shapes
from keras_xaic.models.kernels import kernels_in
from keras_xaic.models.surgery import kept_values, remove_branches, remove_channels
from keras_xaic.planning import cost
from keras_xaic.planning.branches import BranchRemoval
from keras_xaic.planning.filter_ranking import choose_filters
from keras_xaic.planning.latency import Times
from keras_xaic.planning.plan import FilterPlan, LayerPlan
from keras_xaic.planning.ram import ModelArena, Stored, position
from keras_xaic.planning.storages import Activations, Granularity, Storage, can_be_packed

if TYPE_CHECKING:
    from keras_xaic._keras import Model
    from keras_xaic.relevance import Relevance

SPARSE_BITS = 1.25
"""Bits of download per weight that plans can reach with zeros, without giving up too much: 80 % zeros on a 4-bit grid."""
PLAIN_BITS = 7.0
"""Bits of download per weight without zeros: the entropy of int8 weights."""
STEP = 0.96
"""Where a prediction was too hopeful, the next removal aims this much lower."""


@dataclass(frozen=True)
class Removal:
    """A model with filters gone.

    Attributes:
        branches: Residual branch that is gone -> its layers.
        remove: Channel group -> removed channels, ascending.
        model: The smaller model.
        relevance: Kernel key -> relevance of the weights that are left.
        rounding: The same, of what says how much rounding hurts.
    """

    branches: dict[str, list[str]]
    remove: dict[str, list[int]]
    model: Model
    relevance: Mapping[str, np.ndarray]
    rounding: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class KernelCost:
    """What one kernel costs.

    Attributes:
        storage: How its weights are stored.
        bits: Its bit-width; None counts it as stored, not as looked up.
        download: Bytes of download of every weight.
        granularity: How fine its scales are.
        fastest: Whether its time counts as that of the fastest storage: where that is not decided yet.
    """

    storage: Storage
    bits: Optional[int]
    download: float
    granularity: Granularity
    fastest: bool = False

    @property
    def timed(self) -> Storage:
        """The storage that its time is that of."""
        return "int8" if self.fastest else self.storage

    @property
    def unpacked(self) -> bool:
        """Whether TensorFlow Lite Micro unpacks it into RAM."""
        return self.storage == "int4"


class FilterCost:
    """How many times what is left of a model overruns its limits; 1 or less is within all of them.

    Args:
        groups: The model's channel groups.
        limits: The limits, of which at least one is set.
        costs: Kernel key -> its cost; kernels that are not named cost what plain int8 does.
        fixed: Bytes of flash that are neither kernels nor zero points and count, too; None: kernels alone count.
        activations: Type of activations between layers, which bytes of biases and RAM depend on.

    Raises:
        PlanError: If there is no limit.
    """

    def __init__(
        self,
        groups: ChannelGroups,
        limits: FilterPlan,
        costs: Mapping[str, KernelCost],
        fixed: Optional[int] = None,
        activations: Activations = "int8",
    ) -> None:
        if not limits.limits:
            raise PlanError(
                "the plan for filters has no limit",
                "one of macs, parameters, flash_bytes, download_bytes, ram_bytes, microseconds",
            )
        self.groups, self.limits, self.costs, self.fixed = groups, limits.limits, costs, fixed
        self.activations = activations
        self.kernels = kernels_in(groups.operations)
        self._stored = {key: Stored(one.unpacked, one.granularity == "channel") for key, one in costs.items()}
        self._arena = ModelArena(groups, activations) if "ram_bytes" in self.limits else None
        self._times = Times(groups.operations.model, activations) if "microseconds" in self.limits else None

    def __call__(self, keep: Keep) -> float:
        """Returns the largest ratio of cost and limit for the channels that stay."""
        return max(value / self.limits[name] for name, value in self.left(keep).items())

    def left(self, keep: Keep) -> dict[str, float]:
        """Returns the cost of what stays, by the names of the limits."""
        left = {}
        if "macs" in self.limits:
            left["macs"] = float(sum(kept_macs(self.groups, keep).values()))
        if "parameters" in self.limits:
            left["parameters"] = float(sum(kept_parameters(self.groups, keep).values()))
        if "flash_bytes" in self.limits or "download_bytes" in self.limits:
            left["flash_bytes"], left["download_bytes"] = self._bytes(keep)
        if self._arena is not None:
            left["ram_bytes"] = float(self._arena(keep, self._stored))
        if self._times is not None:
            left["microseconds"] = self._times(self._timed, kept_shapes(self.groups, keep))
        return {name: left[name] for name in self.limits}

    @property
    def _timed(self) -> dict[str, Storage]:
        return {key: one.timed for key, one in self.costs.items()}

    def times(self) -> dict[str, float]:
        """Returns layer path -> what its kernels take, whole, under a limit on time."""
        return {} if self._times is None else self._times.of_layers(self._timed)

    def _bytes(self, keep: Keep) -> tuple[float, float]:
        shapes = kept_shapes(self.groups, keep)
        flash, fine = float(self.fixed or 0), set()
        download = cost.DOWNLOAD_SHARE * flash
        for kernel in self.kernels:
            shape = shapes[kernel.path][position(kernel)]
            weights, channels = int(np.prod(shape)), int(np.prod([shape[axis] for axis in kernel.channel_axes]))
            one = self.costs.get(kernel.key, KernelCost("int8", None, PLAIN_BITS / 8, "channel"))
            packed = one.storage != "int4" or can_be_packed(kernel.kind, shape, self.activations)
            storage = one.storage if packed else "int8"
            records = cost.record_bytes(kernel.kind, channels, one.granularity, storage, self.activations)
            flash += cost.weight_bytes(weights, storage, one.bits, self.activations) + records
            download += weights * one.download + cost.DOWNLOAD_SHARE * records
            if one.granularity == "channel" and self.fixed is not None:
                fine.add(channels)
        zero_points = cost.ZERO_POINT_BYTES * sum(fine)
        return flash + zero_points, download + cost.DOWNLOAD_SHARE * zero_points


def limits_of(
    layers: Sequence[LayerPlan],
    budget: Budget,
    activations: Activations = "int8",
    time: Optional[float] = None,
    lookup: bool = True,
) -> dict[str, Optional[float]]:
    """Returns what `FilterPlan` limits so that the choice of `layers` keeps its predicted size, and what the budget limits.

    Args:
        layers: What the kernels get.
        budget: What may be spent.
        activations: Type of activations between layers.
        time: Predicted microseconds, or None.
        lookup: Whether the file looks kernels up, as `Plan.lookup` says.
    """
    limits: dict[str, Optional[float]] = {"macs": budget.macs_limit, "ram_bytes": budget.ram_bytes, "microseconds": time}
    if budget.flash is not None:
        limits["flash_bytes"] = sum(layer.flash_bytes for layer in layers)
    if budget.download is not None:
        weights = sum(
            cost.weight_bytes(layer.weights, layer.storage, layer.bits if lookup else None, activations) for layer in layers
        )
        records = sum(layer.flash_bytes for layer in layers) - weights
        limits["download_bytes"] = sum(layer.download_bytes for layer in layers) + round(cost.DOWNLOAD_SHARE * records)
    return limits


def planned_costs(layers: Sequence[LayerPlan], lookup: bool = True) -> dict[str, KernelCost]:
    """Returns what every kernel costs with what the plan gives it; `lookup` as for `limits_of`."""
    return {
        one.key: KernelCost(
            one.storage, one.bits if lookup else None, one.download_bytes / max(1, one.weights), one.granularity
        )
        for one in layers
    }


@dataclass(frozen=True)
class _Start:
    """What filters are taken from: a model without some of its branches, its scores, and how far it overruns the limits."""

    branches: dict[str, list[str]]
    model: Model
    groups: ChannelGroups
    scores: Mapping[str, np.ndarray]
    pressure: FilterCost


class FilterRemoval:
    """Removes ever more filters, least relevant first over the whole model; under a limit on time, for the time that they save.

    Scores are relevances of the filters, added up over the layers of a channel group and L2-normalised within it: strong
    removal by raw relevance empties the layers whose relevance is small. Under a limit on time residual branches go whole
    where that loses less than the filters that would go in their place (see `BranchRemoval`).

    Args:
        model: The trained model.
        relevance: Its relevance.
        budget: The limits to reach.
        bits: Bit-widths that kernels may get; filters go until the fewest fit. () stands for plain int8 without zeros.
        how: Alignment, floors and protected layers; its limits are those of the budget.
        activations: Type of activations between layers.
        time: Predicted microseconds, or None.
        flash_correction: Bytes by which a file was measured to be larger than predicted.
        branches: Whether branches may go.
    """

    def __init__(
        self,
        model: Model,
        relevance: Relevance,
        budget: Budget,
        bits: Sequence[int],
        how: FilterPlan,
        activations: Activations = "int8",
        time: Optional[float] = None,
        flash_correction: int = 0,
        branches: bool = True,
    ) -> None:
        self.relevance, self._bits, self._activations = relevance, bits, activations
        limits: dict[str, Optional[float]] = {
            "macs": budget.macs_limit,
            "flash_bytes": None if budget.flash_bytes is None else max(1, budget.flash_bytes - flash_correction),
            "download_bytes": budget.download_bytes,
            "ram_bytes": budget.ram_bytes,  # as if nothing were unpacked: what is chosen afterwards says whether it is
            "microseconds": time,
        }
        self.how = how.model_copy(update=limits)
        self._aim, self._last = 1.0, np.inf
        self._from = self._without({}, model)
        if branches and time is not None:
            self._from = self._best_of(BranchRemoval(self._from.groups, relevance.filters, how.protect), self._from)

    def _without(self, branches: dict[str, list[str]], model: Model) -> _Start:
        """Returns what filters are taken from, `model`, which `branches` are gone of already."""
        groups = channel_groups(model)
        fewest, download = (min(self._bits), SPARSE_BITS) if self._bits else (8, PLAIN_BITS)
        costs = {}
        for kernel in kernels_in(groups.operations):
            storage = cost.best_storage(kernel.kind, fewest, self._activations)
            granularity = cost.best_granularity(kernel.kind, storage, self._activations)
            costs[kernel.key] = KernelCost(storage, None, download / 8, granularity, fastest=True)
        fixed = cost.structure_bytes(model, self._activations, zero_points=False)
        pressure = FilterCost(groups, self.how, costs, fixed, self._activations)
        return _Start(branches, model, groups, group_scores(groups, self.relevance.filters, norm="l2"), pressure)

    def _best_of(self, removal: BranchRemoval, start: _Start) -> _Start:
        """Returns what is left of the model without the branches whose removal loses least, filters that go then included.

        One more goes as long as that is better.
        """
        best, least = start, self._loss(removal, start)
        while (name := self._following(removal, best)) is not None:
            branches = {**best.branches, name: list(removal.branches[name].layers)}
            one = self._without(branches, remove_branches(start.model, branches, start.groups))
            loss = self._loss(removal, one)
            if loss >= least:
                break
            best, least = one, loss
        return best

    def _following(self, removal: BranchRemoval, start: _Start) -> Optional[str]:
        """Returns the next branch that could go, where time is still missing."""
        late = start.pressure.left({})["microseconds"] - start.pressure.limits["microseconds"]
        return removal.next(start.branches, start.pressure.times(), late) if late > 0.0 else None

    def _loss(self, removal: BranchRemoval, start: _Start) -> tuple[float, float]:
        """Returns by how much the limits are missed, and what is lost on the way there."""
        keep = choose(start.groups, start.scores, start.pressure, 1.0, self.how)
        return max(1.0, start.pressure(keep)), removal.lost(start.groups, keep)

    def next(self) -> Optional[Removal]:
        """Returns the next smaller model, or None when the floors are reached."""
        groups, pressure = self._from.groups, self._from.pressure
        keep = choose(groups, self._from.scores, pressure, self._aim, self.how)
        reached = pressure(keep)
        if reached >= self._last:
            return None
        self._aim, self._last = min(self._aim, reached) * STEP, reached
        remove = {name: np.flatnonzero(~mask).tolist() for name, mask in keep.items() if not mask.all()}
        left = [
            kept_values(groups, keep, {kernel.key: scores[kernel.key] for kernel in pressure.kernels})
            for scores in (self.relevance.weights, self.relevance.of_rounding)
        ]
        return Removal(self._from.branches, remove, remove_channels(self._from.model, keep, groups), *left)


def choose_next(
    model: Model,
    filters: Mapping[str, np.ndarray],
    how: FilterPlan,
    layers: Sequence[LayerPlan],
    last: bool,
    activations: Activations = "int8",
    lookup: bool = True,
) -> dict[str, np.ndarray]:
    """Returns keep masks for the next step: all of what is left of the way to the limits, or half of it in ratio.

    A model that costs four times the limit goes to twice the limit: the first steps remove most, so that training
    between and after them is that of a small model.

    Args:
        model: The model as it stands.
        filters: Layer path -> score of every filter of this model.
        how: The limits to reach, and floors.
        layers: What the kernels will get.
        last: Whether the limits must hold after this step.
        activations: Type of activations between layers.
        lookup: As for `limits_of`.
    """
    groups, costs = channel_groups(model), planned_costs(layers, lookup)
    goal = FilterCost(groups, how, costs, activations=activations)
    if not last:
        limits, left = how.limits, goal.left({})
        aims = {name: math.ceil(math.sqrt(max(limit, left[name]) * limit)) for name, limit in limits.items()}
        goal = FilterCost(groups, how.model_copy(update=aims), costs, activations=activations)
    return choose(groups, group_scores(groups, filters, norm="l2"), goal, 1.0, how)


def choose(
    groups: ChannelGroups, scores: Mapping[str, np.ndarray], pressure: FilterCost, target: float, how: FilterPlan
) -> dict[str, np.ndarray]:
    """Returns keep masks that bring `pressure` to `target`, or as near as the floors of `how` allow; see `choose_filters`.

    Time is what layers differ most in: under a limit on it, filters go by their scores for what they save.
    """
    return choose_filters(
        groups,
        scores,
        cost=pressure,
        target=target,
        by_saving="microseconds" in pressure.limits,
        min_filters=how.min_filters,
        align=how.align,
        protect=how.protect,
    )


def keep_masks(model: Model, remove: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Returns channel group -> boolean mask of the channels that stay.

    Args:
        model: The model that the plan was made for.
        remove: Channel group -> removed channels, as in `Plan.remove`.

    Raises:
        PlanError: If the model has no such group or channel.
    """
    groups, masks = channel_groups(model) if remove else {}, {}
    for name, channels in remove.items():
        if name not in groups:
            raise PlanError(f"the plan removes channels of {name!r}", f"one of the channel groups {', '.join(groups)}")
        if min(channels, default=0) < 0 or max(channels, default=0) >= groups[name].size:
            raise PlanError(f"the plan removes channel {max(channels)} of {name!r}", f"channels 0 to {groups[name].size - 1}")
        masks[name] = np.ones(groups[name].size, bool)
        masks[name][list(channels)] = False
    return masks
