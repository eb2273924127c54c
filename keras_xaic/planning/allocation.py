"""Bit-widths under linear budgets as an integer program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Callable, Optional

import numpy as np
from scipy import optimize, sparse

from keras_xaic.silence import muted_stdout


@dataclass(frozen=True)
class Candidate:
    """One way to store one kernel.

    Attributes:
        bits: Bit-width.
        damage: Predicted damage, see `keras_xaic.planning.sensitivity`.
        flash_bytes: Bytes in the file.
        download_bytes: Bytes after entropy coding.
        weights: Number of weights.
        sparsity: Fraction of zeros that masks make.
        stored: How it lies in the file; None leaves that to its bit-width.
        microseconds: Predicted time, see `keras_xaic.planning.latency`.
    """

    bits: int
    damage: float
    flash_bytes: int
    download_bytes: int
    weights: int = 0
    sparsity: float = 0.0
    stored: Optional[str] = None
    microseconds: float = 0.0


@dataclass(frozen=True)
class Limits:
    """What all kernels together may take; None means no limit.

    Attributes:
        flash: Bytes of flash.
        download: Bytes of download.
        mean_bits: Mean bit-width over all weights.
        microseconds: Predicted time.
    """

    flash: Optional[int] = None
    download: Optional[int] = None
    mean_bits: Optional[float] = None
    microseconds: Optional[float] = None

    def less(self, flash: int, download: int) -> Limits:
        """Returns what is left of the limits on bytes where so many are taken already."""
        return replace(
            self,
            flash=None if self.flash is None else self.flash - flash,
            download=None if self.download is None else self.download - download,
        )

    def rows(self, candidates: Sequence[Candidate], total_weights: int) -> list[tuple[np.ndarray, float]]:
        """Returns ``(a, b)`` for every limit: the candidates chosen by x in {0, 1} must keep ``a x <= b``."""
        rows = []
        if self.flash is not None:
            rows.append((np.array([one.flash_bytes for one in candidates], np.float64), float(self.flash)))
        if self.download is not None:
            rows.append((np.array([one.download_bytes for one in candidates], np.float64), float(self.download)))
        if self.mean_bits is not None:
            rows.append((np.array([one.bits * one.weights for one in candidates], np.float64), self.mean_bits * total_weights))
        if self.microseconds is not None:
            rows.append((np.array([one.microseconds for one in candidates], np.float64), self.microseconds))
        return rows


Allocate = Callable[[Mapping[str, Sequence[Candidate]], Limits], Optional[dict[str, Candidate]]]
"""Kernel key -> its candidates, and limits; to kernel key -> chosen candidate, or None if no choice fits."""


def allocate(candidates: Mapping[str, Sequence[Candidate]], limits: Limits) -> Optional[dict[str, Candidate]]:
    """Picks one candidate per kernel with the least total damage within the limits.

    A multiple-choice knapsack: minimise the sum of damages over x in {0, 1}, one candidate per kernel, every limit kept;
    solved to optimality by HiGHS (`scipy.optimize.milp`).

    Args:
        candidates: Kernel key -> its candidates.
        limits: What all kernels together may take.

    Returns:
        Kernel key -> chosen candidate, or None if no choice fits.
    """
    flat = [(key, candidate) for key, options in candidates.items() for candidate in options]
    if not flat:
        return {}
    place = {key: row for row, key in enumerate(candidates)}
    damage = np.array([candidate.damage for _, candidate in flat])
    damage = damage / max(float(damage.max()), 1e-30)
    # Equal damage is broken towards fewer bytes, so that the answer does not depend on the solver's mood.
    flash_bytes = np.array([candidate.flash_bytes for _, candidate in flat], np.float64)
    download_bytes = np.array([candidate.download_bytes for _, candidate in flat], np.float64)
    cost = damage + 1e-9 * (flash_bytes / max(1.0, flash_bytes.sum()) + download_bytes / max(1.0, download_bytes.sum()))
    rows = [place[key] for key, _ in flat]
    one_each = sparse.csr_matrix((np.ones(len(flat)), (rows, range(len(flat)))), shape=(len(place), len(flat)))
    constraints = [optimize.LinearConstraint(one_each, 1, 1)]
    for row, most in limits.rows([candidate for _, candidate in flat], _total_weights(candidates)):
        constraints.append(optimize.LinearConstraint(row[None], -np.inf, most))
    with muted_stdout():  # HiGHS of scipy 1.17 prints lines that were meant for its authors
        result = optimize.milp(
            cost,
            constraints=constraints,
            integrality=np.ones(len(flat)),
            bounds=optimize.Bounds(0, 1),
            options={"mip_rel_gap": 1e-6},
        )
    if result.x is None:
        return None
    return {key: candidate for (key, candidate), taken in zip(flat, result.x) if taken > 0.5}


def allocate_uniform(candidates: Mapping[str, Sequence[Candidate]], limits: Limits) -> Optional[dict[str, Candidate]]:
    """Picks the largest bit-width that all kernels can have within the limits, with the fewest zeros that allow any.

    Kernels with a single bit-width keep it. Zeros are the same step of every kernel's own candidates.
    """
    by_bits = {
        key: {bits: [one for one in options if one.bits == bits] for bits in {one.bits for one in options}}
        for key, options in candidates.items()
    }
    free = [set(options) for options in by_bits.values() if len(options) > 1]
    shared = set.intersection(*free) if free else {0}
    for level in range(max((len(one) for options in by_bits.values() for one in options.values()), default=0)):
        for bits in sorted(shared, reverse=True):
            chosen = {}
            for key, options in by_bits.items():
                levels = options[bits] if len(options) > 1 else next(iter(options.values()))
                chosen[key] = levels[min(level, len(levels) - 1)]
            rows = limits.rows(list(chosen.values()), _total_weights(candidates))
            if all(float(row.sum()) <= most for row, most in rows):
                return chosen
    return None


def _total_weights(candidates: Mapping[str, Sequence[Candidate]]) -> int:
    return sum(options[0].weights for options in candidates.values() if options)
