"""Which filters go: ranked over the whole model, within floors, down to a cost."""

from __future__ import annotations

import fnmatch
import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Optional, Union

import numpy as np

from keras_xaic.errors import PlanError
from keras_xaic.models.channels import ChannelGroup, ChannelGroups

Cost = Callable[[Mapping[str, np.ndarray]], Union[int, float]]
"""Keep masks -> bytes, multiply-accumulates or parameters that are left; must not rise when more is removed."""
BLOCKS = (8, 16)
"""Fast kernels compute so many channels together: fewer of them save nothing until a whole block is gone."""


def choose_filters(
    groups: ChannelGroups,
    scores: Mapping[str, np.ndarray],
    *,
    fraction: Optional[float] = None,
    cost: Optional[Cost] = None,
    target: Optional[float] = None,
    by_saving: bool = False,
    min_filters: int = 4,
    min_fraction: float = 0.05,
    align: int = 1,
    protect: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Chooses the channels that stay: those with the lowest scores anywhere in the model go first.

    With `by_saving` those go first whose scores are lowest for what their removal saves: where a few wide layers cost most of
    the time, the channels of the others stay.

    Either a `fraction` of all removable channels goes, or as few as bring `cost` to `target`. Then channels that went without
    need come back, the most important first: those that cost little while another layer decided. Where floors do not allow the
    target, as much goes as they allow: compare the cost of the result with the target.

    >>> from keras_xaic._keras import keras, layers
    >>> from keras_xaic.models import channel_groups, group_scores, kept_parameters
    >>> model = keras.Sequential([layers.Input((4,)), layers.Dense(8, name="hidden"), layers.Dense(2)])
    >>> groups = channel_groups(model)
    >>> cost = lambda keep: sum(kept_parameters(groups, keep).values())
    >>> keep = choose_filters(groups, group_scores(groups, {"hidden": np.arange(8.0)}), cost=cost, target=44)
    >>> keep["hidden"].tolist(), cost(keep)
    ([False, False, True, True, True, True, True, True], 44)

    Args:
        groups: The model's channel groups.
        scores: Group name -> (size,) scores, the higher the more it matters (see `group_scores`). Groups that are not
            named, or are not removable, stay whole.
        fraction: Part of the channels in `scores` that goes, in [0, 1), before floors and alignment.
        cost: Called with keep masks about ``log2(channels)`` times, and once for every few channels that come back.
        target: What `cost` must fall to.
        by_saving: Whether the scores that go are set against what `cost` falls by; it is then called a few times for every
            block of channels (see `BLOCKS`) that goes.
        min_filters: Channels that every group keeps at least (all it has, if it has fewer).
        min_fraction: Part of its channels that every group keeps at least, in [0, 1].
        align: The number of channels that stay is a multiple of this, rounded up, where a group loses any (4 or 8 suits SIMD
            units).
        protect: Patterns (``stem*``) of layer paths; groups with such a layer among their producers stay whole.

    Returns:
        Group name -> (size,) bool, for the groups that lose channels.

    Raises:
        PlanError: If an argument is out of range or scores do not fit the groups.
    """
    _check_arguments(fraction, cost, target, min_filters, min_fraction, align)
    ranking = _Ranking(groups, scores, min_filters, min_fraction, align, protect)
    if cost is None or target is None:
        return ranking.keep(round((fraction or 0.0) * ranking.total))
    if by_saving:
        ranking.order = ranking.by_saving(cost, target)
    low, high = 0, len(ranking.order)
    while low < high:  # cost falls with the number of removals, so the fewest that suffice are found by bisection
        middle = (low + high) // 2
        low, high = (low, middle) if cost(ranking.keep(middle)) <= target else (middle + 1, high)
    return ranking.give_back(low, lambda keep: cost(keep) <= target)


def lost(whole: float, before: float, after: float) -> float:
    """Returns what a removal costs that takes the sum of a group's scores, `whole` of all channels, from `before` to `after`.

    Every group loses by shares of what is left of it, so that no layer is emptied for those around it (see
    `docs/decisions/018`).
    """
    least = 1e-9 * whole
    return math.log(max(before, least) / max(after, least))


class _Ranking:
    """The channels that may go, the least important first, equal scores in network order."""

    def __init__(
        self,
        groups: ChannelGroups,
        scores: Mapping[str, np.ndarray],
        min_filters: int,
        min_fraction: float,
        align: int,
        protect: Sequence[str],
    ) -> None:
        for name, one in scores.items():
            if name not in groups or np.shape(one) != (groups[name].size,):
                expected = f"({groups[name].size},)" if name in groups else f"one of the groups {', '.join(groups)}"
                raise PlanError(f"scores of shape {np.shape(one)} for the channel group {name!r}", expected)
            if not np.isfinite(np.asarray(one, np.float64)).all():
                raise PlanError(f"the scores of the channel group {name!r} contain NaN or infinity", "finite scores")
        free = [group for group in groups.removable if group.name in scores and not _protected(group, protect)]
        self.align = align
        self.total = sum(group.size for group in free)
        self.scores = {group.name: np.asarray(scores[group.name], np.float64) for group in free}
        self.floor = {group.name: self._floor(group, min_filters, min_fraction) for group in free}
        ranked = {group.name: np.argsort(self.scores[group.name], kind="stable") for group in free}
        self.ranked = {name: one[: one.size - self.floor[name]].tolist() for name, one in ranked.items()}
        candidates = [
            (float(self.scores[name][channel]), number, channel, name)
            for number, (name, channels) in enumerate(self.ranked.items())
            for channel in channels
        ]
        self.order = [(name, channel) for _, _, channel, name in sorted(candidates)]

    def _floor(self, group: ChannelGroup, min_filters: int, min_fraction: float) -> int:
        return min(group.size, self._aligned(max(1, min_filters, math.ceil(group.size * min_fraction))))

    def _aligned(self, count: int) -> int:
        return -(-count // self.align) * self.align

    def by_saving(self, cost: Cost, target: float) -> list[tuple[str, int]]:
        """Returns the order that brings `cost` to `target`, what has the lowest score for what it saves first.

        What a removal saves becomes less the more of other layers is gone, so that what was found out earlier is too hopeful:
        only what comes first is looked at again.
        """
        gone, now = dict.fromkeys(self.ranked, 0), float(cost({}))
        order: list[tuple[str, int]] = []
        heap = [(0.0, 0.0, number, name, -1, 0, now) for number, name in enumerate(self.ranked)]
        while heap and now > target:
            *_, number, name, seen, count, after = heapq.heappop(heap)
            if seen == len(order):
                order += [(name, channel) for channel in self.ranked[name][gone[name] : count]]
                gone[name], now = count, after
            found = [self._saving(name, fewer, gone, now, cost, target) for fewer in self._blocks(name, gone[name])]
            if found:
                heapq.heappush(heap, (*min(found)[:2], number, name, len(order), *min(found)[2:]))
        return order

    def _blocks(self, name: str, gone: int) -> list[int]:
        """Returns how many channels of a group may be gone next: as many as leave whole blocks, or one more than now."""
        size, most = len(self.scores[name]), len(self.ranked[name])
        left = size - gone
        widths = {(left - 1) // block * block for block in BLOCKS} if left > min(BLOCKS) else {left - 1}
        return sorted({min(most, size - self._aligned(width)) for width in widths} - set(range(gone + 1)))

    def _saving(
        self, name: str, count: int, gone: Mapping[str, int], now: float, cost: Cost, target: float
    ) -> tuple[float, float, int, float]:
        """Returns loss for what is saved, the loss, and what was asked for with its cost, if `count` channels of a group go.

        What is saved beyond `target` does not count.
        """
        after = float(cost(self._masks({one: self.ranked[one][:many] for one, many in {**gone, name: count}.items()})))
        whole = float(np.maximum(self.scores[name], 0.0).sum())
        left = [
            whole - float(np.maximum(self.scores[name][self.ranked[name][:many]], 0.0).sum()) for many in (gone[name], count)
        ]
        loss = lost(whole, *left) if whole > 0.0 else 0.0
        return loss / (now - max(after, target)) if after < now else math.inf, loss, count, after

    def keep(self, count: int) -> dict[str, np.ndarray]:
        """Masks after removing the first `count` channels and giving back what alignment asks for."""
        return self._masks(self._gone(count))

    def give_back(self, count: int, fits: Callable[[Mapping[str, np.ndarray]], bool]) -> dict[str, np.ndarray]:
        """Masks after removing the first `count` channels and giving back, the most important first, what still fits."""
        gone = self._gone(count)
        undecided = set(gone) if fits(self._masks(gone)) else set()
        while undecided:
            name = max(sorted(undecided), key=lambda one: self.scores[one][gone[one][-1]])
            fewer = {**gone, name: gone[name][: -self.align]}
            if fits(self._masks(fewer)):
                gone = fewer
            if gone is not fewer or not fewer[name]:
                undecided.remove(name)
        return self._masks(gone)

    def _gone(self, count: int) -> dict[str, list[int]]:
        """Group -> what goes of it, the most important last, after alignment."""
        removed: dict[str, list[int]] = {}
        for name, channel in self.order[:count]:
            removed.setdefault(name, []).append(channel)
        for name, channels in removed.items():
            size = len(self.scores[name])
            removed[name] = channels[: size - min(size, self._aligned(size - len(channels)))]
        return {name: channels for name, channels in removed.items() if channels}

    def _masks(self, gone: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
        masks = {}
        for name, channels in gone.items():
            if channels:
                masks[name] = np.ones(len(self.scores[name]), bool)
                masks[name][list(channels)] = False
        return masks


def _protected(group: ChannelGroup, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for path in group.producers for pattern in patterns)


def _check_arguments(
    fraction: Optional[float],
    cost: Optional[Cost],
    target: Optional[float],
    min_filters: int,
    min_fraction: float,
    align: int,
) -> None:
    if (cost is None) != (target is None) or (fraction is None) == (cost is None):
        raise PlanError("choose_filters does not know how much to remove", "either fraction, or cost and target together")
    if fraction is not None and not 0 <= fraction < 1:
        raise PlanError(f"fraction={fraction}", "at least 0 and below 1")
    if not 0 <= min_fraction <= 1:
        raise PlanError(f"min_fraction={min_fraction}", "0 to 1")
    if min_filters < 0 or align < 1:
        raise PlanError(f"min_filters={min_filters}, align={align}", "min_filters of at least 0 and align of at least 1")
