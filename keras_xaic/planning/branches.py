"""Which residual branches go whole under a limit on time, and what that loses."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from typing import Optional

import numpy as np

from keras_xaic.models.branches import residual_branches
from keras_xaic.models.channels import ChannelGroups, Keep
from keras_xaic.planning.filter_ranking import lost

Timed = Mapping[str, float]
"""Layer path -> microseconds."""


class BranchRemoval:
    """The residual branches of a model, and what it loses with them and with filters, in one unit.

    What a sum is made of shares one channel group, whose score is the sum of those of all layers that make it: relevance is
    divided among them. A branch takes along the scores of its own of these layers, and of a group whose scores come down from S
    to s log(S / s) is lost, no matter whether channels or branches go (see `keras_xaic.planning.filter_ranking.lost`). Groups
    inside of a branch are gone with it: what they do is counted once, where the branch ends.

    Args:
        groups: The channel groups of the whole model.
        filters: Layer path -> score of every output channel.
        protect: Patterns of layer paths; branches with such a layer stay.
    """

    def __init__(self, groups: ChannelGroups, filters: Mapping[str, np.ndarray], protect: Sequence[str] = ()) -> None:
        self._producers = {name: group.producers for name, group in groups.items()}
        self._filters = {path: np.maximum(np.asarray(one, np.float64), 0.0) for path, one in filters.items()}
        self._whole = self._sums(groups, {})
        self.branches = {
            name: branch
            for name, branch in residual_branches(groups.operations).items()
            if self._is_scored(branch.layers)
            and not any(fnmatch.fnmatchcase(path, pattern) for path in branch.layers for pattern in protect)
        }
        """Those that may go: there are scores of what they end with."""

    def _is_scored(self, layers: Collection[str]) -> bool:
        return any(
            any(path in layers and self._filters.get(path, np.zeros(1)).sum() > 0.0 for path in producers)
            and any(path not in layers and self._filters.get(path, np.zeros(1)).sum() > 0.0 for path in producers)
            for producers in self._producers.values()
        )

    def _sums(self, groups: ChannelGroups, keep: Keep) -> dict[str, float]:
        """Returns layer path -> sum of the scores of its channels that stay, for every layer that makes channels."""
        found = {}
        for name, group in groups.items():
            for path in group.producers:
                scores = self._filters.get(path)
                if scores is not None:
                    mask = keep.get(name)
                    found[path] = float((scores if mask is None else scores[np.asarray(mask)[group.members[path]]]).sum())
        return found

    def lost(self, groups: ChannelGroups, keep: Keep) -> float:
        """Returns what is lost with all that is gone.

        Args:
            groups: The channel groups of the model without the branches that are gone.
            keep: Channel group of it -> (size,) bool, True for the channels that stay.
        """
        return self._loss(self._sums(groups, keep))

    def _loss(self, left: Mapping[str, float]) -> float:
        total = 0.0
        for producers in self._producers.values():
            whole, kept = (sum(sums.get(path, 0.0) for path in producers) for sums in (self._whole, left))
            if whole > 0.0 and any(path in left for path in producers):
                total += lost(whole, whole, kept)
        return total

    def next(self, gone: Collection[str], times: Timed, spare: float) -> Optional[str]:
        """Returns the branch that loses least for the time that it saves once those of `gone` are gone, or None.

        Args:
            gone: Names of branches.
            times: What every layer takes.
            spare: What has to be saved; more does not count.
        """
        without = {path for name in gone for path in self.branches[name].layers}
        start = {path: value for path, value in self._whole.items() if path not in without}
        best, least = None, np.inf
        for name, branch in self.branches.items():
            saved = sum(times.get(path, 0.0) for path in branch.layers if path not in without)
            if name in gone or saved <= 0.0:
                continue
            left = {path: value for path, value in start.items() if path not in branch.layers}
            worth = (self._loss(left) - self._loss(start)) / min(saved, spare)
            if worth < least:
                best, least = name, worth
        return best
