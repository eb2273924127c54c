"""Which filters go when bits and zeros are not enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic.errors import PlanError
from keras_xaic.models.channels import ChannelGroups, Keep, channel_groups, group_scores
from keras_xaic.models.costs import kept_shapes
from keras_xaic.models.kernels import Kernel, weighted_kernels
from keras_xaic.models.surgery import kept_values, remove_channels
from keras_xaic.planning import cost
from keras_xaic.planning.budget import Budget
from keras_xaic.planning.choice import choose_filters

if TYPE_CHECKING:
    from keras_xaic.relevance import Relevance

SPARSE_BITS = 1.25
"""Bits of download per weight that plans can reach with zeros, without giving up too much: 80 % zeros on a 4-bit grid."""
STEP = 0.96
"""Where a prediction was too hopeful, the next removal aims this much lower."""


@dataclass(frozen=True)
class Removal:
    """A model with filters gone.

    Attributes:
        remove: Channel group -> removed channels, ascending.
        model: The smaller model.
        relevance: Kernel key -> relevance of the weights that are left.
    """

    remove: dict[str, list[int]]
    model: Any
    relevance: Mapping[str, np.ndarray]


class FilterRemoval:
    """Removes ever more filters, least relevant first over the whole model.

    Scores are relevances of the filters, added up over the layers of a channel group and L2-normalised within it: strong
    removal by raw relevance empties the layers whose relevance is small.

    Args:
        model: The trained model.
        relevance: Its relevance.
        budget: The limits to come down to.
        bits: Bit-widths that kernels may get; filters go until the fewest fit.
        protect: Name patterns of layers that keep all filters.
    """

    def __init__(self, model: Any, relevance: Relevance, budget: Budget, bits: Sequence[int], protect: Sequence[str]) -> None:
        self.model, self.relevance, self.budget, self.bits, self.protect = model, relevance, budget, min(bits), protect
        self.groups: ChannelGroups = channel_groups(model)
        self.scores = group_scores(self.groups, relevance.filters, norm="l2")
        self.kernels = weighted_kernels(model)
        self.structure = cost.structure_bytes(model)
        self._aim, self._last = 1.0, np.inf

    def next(self) -> Optional[Removal]:
        """Returns the next smaller model, or None when the floors are reached."""
        keep = choose_filters(self.groups, self.scores, cost=self._pressure, target=self._aim, protect=self.protect)
        reached = self._pressure(keep)
        if reached >= self._last:
            return None
        self._aim, self._last = min(self._aim, reached) * STEP, reached
        values = {kernel.key: self.relevance.weights[kernel.key] for kernel in self.kernels}
        remove = {name: np.flatnonzero(~mask).tolist() for name, mask in keep.items() if not mask.all()}
        return Removal(remove, remove_channels(self.model, keep, self.groups), kept_values(self.groups, keep, values))

    def _pressure(self, keep: Keep) -> float:
        """How many times the smallest choice for what is left overruns the budget."""
        shapes = kept_shapes(self.groups, keep)
        flash = float(self.structure)
        download = cost.DOWNLOAD_SHARE * self.structure
        for kernel in self.kernels:
            shape = shapes[kernel.path][_position(kernel)]
            weights, channels = int(np.prod(shape)), int(np.prod([shape[axis] for axis in kernel.channel_axes]))
            storage = cost.best_storage(kernel.kind, self.bits)
            records = cost.record_bytes(kernel.kind, channels, cost.best_granularity(kernel.kind, storage))
            flash += cost.weight_bytes(weights, storage) + records
            download += weights * SPARSE_BITS / 8 + cost.DOWNLOAD_SHARE * records
        limits = ((flash, self.budget.flash_bytes), (download, self.budget.download_bytes))
        return max(value / limit for value, limit in limits if limit is not None)


def keep_masks(model: Any, remove: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
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


def _position(kernel: Kernel) -> int:
    return next(i for i, weight in enumerate(kernel.layer.weights) if weight is kernel.variable)
