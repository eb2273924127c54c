"""Entropy-constrained assignment of weights to grid levels: what every level costs, and which one a weight gets.

A weight x, in steps, goes to the level k with the least ``(x - k)^2 + lambda * I_k``, where ``I_k = -log2 P_k`` is the
information content of the level (Chou, Lookabaugh & Gray 1989; Becking et al. 2022, arXiv 2109.04236, eq. 1). The costs are
parabolas of the same width, so the levels that win form intervals: one search among sorted thresholds assigns a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np

ROUNDS = 8
"""How often levels are assigned and counted again: the counts that prices are made of should be those of the result."""
ZERO_SHARE = 0.5
"""Zero is priced as if at least this share of the weights had it (published). Without it whichever level leads at first drains
the others, and a dense kernel can end without a single zero."""
Pricing = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(ascending weights in steps, counts of the last assignment) -> ``lambda * I_k`` of every level."""


@dataclass(frozen=True)
class Prices:
    """What each level of one kernel costs.

    Attributes:
        levels: Ascending levels, int64, 0 among them.
        cost: ``lambda * I_k`` of each level, in squared steps.
    """

    levels: np.ndarray
    cost: np.ndarray

    def without_zero(self) -> Prices:
        """Returns the prices of the other levels."""
        other = self.levels != 0
        return Prices(self.levels[other], self.cost[other])

    @property
    def zero(self) -> float:
        """The price of level 0."""
        return float(self.cost[self.levels == 0][0])

    @property
    def thresholds(self) -> np.ndarray:
        """Ascending places where the best level changes, one fewer than levels; nobody takes a level between equal ones."""
        winners: list[int] = []
        places: list[float] = []
        for number in range(len(self.levels)):
            place = -np.inf
            while winners:
                place = self._meet(winners[-1], number)
                if not places or place > places[-1]:
                    break
                winners.pop()
                places.pop()
            if winners:
                places.append(place)
            winners.append(number)
        # Levels between two winners have empty intervals where these meet; those beyond the last winner lie infinitely far.
        full = np.full(len(self.levels) - 1, np.inf)
        full[: winners[0]] = -np.inf
        for left, right, place in zip(winners, winners[1:], places):
            full[left:right] = place
        return full

    def _meet(self, left: int, right: int) -> float:
        a, b = float(self.levels[left]), float(self.levels[right])
        return (b * b + self.cost[right] - a * a - self.cost[left]) / (2.0 * (b - a))

    def assign(self, x: np.ndarray) -> np.ndarray:
        """Returns the level of every weight in steps, int64."""
        return self.levels[np.searchsorted(self.thresholds, x, side="right")]

    def count(self, ordered: np.ndarray) -> np.ndarray:
        """Returns how many of the ascending weights in steps go to each level."""
        ends = np.searchsorted(ordered, self.thresholds, side="left")
        return np.diff(np.concatenate([[0], ends, [len(ordered)]]))


def information(counts: np.ndarray) -> np.ndarray:
    """Returns the bits ``-log2 P_k`` that each level takes, with one further weight on every level.

    The further weight keeps levels alive that nobody uses at the moment: it is what they cost an adaptive coder.
    """
    return -np.log2((counts + 1.0) / (counts.sum() + len(counts)))


def settle(x: np.ndarray, limit: int, pricing: Pricing) -> Prices:
    """Returns prices that agree with the assignment they lead to, starting from the nearest levels.

    Args:
        x: Weights in steps.
        limit: Largest level.
        pricing: Makes prices of counts (see `price_by_weight` and `price_for_sparsity`).
    """
    ordered = np.sort(np.asarray(x, np.float64).ravel())
    levels = np.arange(-limit, limit + 1)
    prices = Prices(levels, np.zeros(len(levels)))
    for _ in range(ROUNDS):
        counts = prices.count(ordered)
        following = Prices(levels, pricing(ordered, counts))
        if np.allclose(following.cost, prices.cost, rtol=1e-3):
            break
        prices = following
    return prices


def price_by_weight(weight: float) -> Pricing:
    """Prices with lambda as a share `weight` of the one at which the largest weight would become zero.

    ``lambda = weight * ((0 - x)^2 - (c - x)^2) / (I_c - I_0)`` for the outermost level c in use and the outermost weight x, the
    larger of both sides. Becking et al. state this idea; their published code squares outside the difference, a slip that is
    not repeated here. The share is free of units, so one number serves all layers.

    Args:
        weight: 0 to 1; 0 leaves the nearest levels. Multiply by `size_share` for a whole model.
    """

    def prices(ordered: np.ndarray, counts: np.ndarray) -> np.ndarray:
        zero, used = len(counts) // 2, np.flatnonzero(counts)
        bits = information(_with_zeros(counts, max(ZERO_SHARE, counts[zero] / counts.sum())))
        largest = 0.0
        for place, x in ((used[0], ordered[0]), (used[-1], ordered[-1])):
            if place != zero:
                gained = x**2 - (place - zero - x) ** 2
                largest = max(largest, gained / max(bits[place] - bits[zero], 1.0))
        return weight * largest * bits

    return prices


def size_share(weights: int, largest: int) -> float:
    """Returns the published factor that spares small layers: ``(N / N_largest + 0.05) / 1.05``."""
    return (weights / largest + 0.05) / 1.05


def price_for_sparsity(sparsity: float) -> Pricing:
    """Prices with the lambda at which a fraction `sparsity` of the weights becomes zero (by bisection).

    The zero level is priced as if it had that probability already, which the result then makes true. Where the nearest levels
    are sparser than that, lambda is 0.

    Args:
        sparsity: 0 to 1, exclusive.
    """

    def prices(ordered: np.ndarray, counts: np.ndarray) -> np.ndarray:
        zero = len(counts) // 2
        levels = np.arange(len(counts)) - zero
        bits = information(_with_zeros(counts, sparsity))
        bits[zero] = min(bits[zero], np.delete(bits, zero).min() - 0.1)  # or no lambda would favour it

        def zeros(price: float) -> float:
            return Prices(levels, price * bits).count(ordered)[zero] / len(ordered)

        low, high = 0.0, 1.0
        while zeros(high) < sparsity and high < 1e6:
            high *= 2.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if zeros(middle) >= sparsity else (middle, high)
        return high * bits

    return prices


def _with_zeros(counts: np.ndarray, sparsity: float) -> np.ndarray:
    zero = len(counts) // 2
    others = counts.astype(np.float64)
    others[zero] = 0.0
    total = counts.sum()
    result = others * (1.0 - sparsity) * total / max(others.sum(), 1.0)
    result[zero] = sparsity * total
    return result


def relevance_exponent(
    x: np.ndarray, prices: Prices, log_relevance: np.ndarray, least: float, most: float, first: float
) -> float:
    """Returns the exponent beta for which ECQx makes `least` to `most` of the weights zero, the closest to `first`.

    ECQx multiplies the cost of level 0 by ``2 * R^beta`` (Becking et al. 2022, eq. 3), R in (0, 1]. A weight becomes zero when
    ``2 * R^beta * zero < other``, i.e. when beta exceeds ``log(other / (2 * zero)) / log R``. So sparsity never falls with
    beta, and the beta of a sparsity is a quantile of these numbers: no search is needed.

    Args:
        x: Weights in steps.
        prices: What levels cost.
        log_relevance: log R of every weight, <= 0.
        least: Smallest fraction of zeros.
        most: Largest fraction of zeros.
        first: Published start, see `first_exponent`.

    Returns:
        beta, within [0, 1] as published.
    """
    others = prices.without_zero()
    nearest = others.assign(x)
    other = np.square(x - nearest) + others.cost[np.searchsorted(others.levels, nearest)]
    zero = np.square(x) + prices.zero
    with np.errstate(divide="ignore"):
        turning = np.sort((np.log(other / (2.0 * zero)) / np.minimum(log_relevance, -1e-9)).ravel())

    def beta(fraction: float) -> float:
        count = min(max(round(fraction * len(turning)), 0), len(turning))
        below = turning[count - 1] if count else -1.0
        above = turning[count] if count < len(turning) else 2.0
        return float((np.clip(below, -1.0, 2.0) + np.clip(above, -1.0, 2.0)) / 2.0)

    return float(np.clip(np.clip(first, beta(least), beta(most)), 0.0, 1.0))


def first_exponent(log_relevance: np.ndarray) -> float:
    """Returns the beta at which a weight of mean relevance keeps its cost: ``mean(R)^beta = 1/2`` (published start)."""
    mean = float(np.exp(log_relevance).mean())
    return float(np.log(0.5) / np.log(mean)) if 0.0 < mean < 1.0 else 1.0
