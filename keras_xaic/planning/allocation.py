"""Bit-widths under byte budgets as an integer program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
from scipy import optimize, sparse


@dataclass(frozen=True)
class Candidate:
    """One way to store one kernel.

    Attributes:
        bits: Bit-width.
        damage: Predicted damage, see `rounding_damage`.
        flash_bytes: Bytes in the file.
        download_bytes: Bytes after entropy coding.
    """

    bits: int
    damage: float
    flash_bytes: int
    download_bytes: int


def allocate(
    candidates: Mapping[str, Sequence[Candidate]], flash: Optional[int], download: Optional[int]
) -> Optional[dict[str, Candidate]]:
    """Picks one candidate per kernel with the least total damage within the budgets.

    A multiple-choice knapsack: minimise the sum of damages over x in {0, 1}, one candidate per kernel, flash and download
    within their limits; solved to optimality by HiGHS (`scipy.optimize.milp`).

    Args:
        candidates: Kernel key -> its candidates.
        flash: Bytes of flash for all kernels together, or None.
        download: Bytes of download for all kernels together, or None.

    Returns:
        Kernel key -> chosen candidate, or None if no choice fits.
    """
    flat = [(key, candidate) for key, options in candidates.items() for candidate in options]
    if not flat:
        return {}
    keys = list(candidates)
    damage = np.array([candidate.damage for _, candidate in flat])
    damage = damage / max(float(damage.max()), 1e-30)
    # Equal damage is broken towards fewer bytes, so that the answer does not depend on the solver's mood.
    flash_bytes = np.array([candidate.flash_bytes for _, candidate in flat], np.float64)
    download_bytes = np.array([candidate.download_bytes for _, candidate in flat], np.float64)
    cost = damage + 1e-9 * (flash_bytes / flash_bytes.sum() + download_bytes / max(1.0, download_bytes.sum()))
    rows = [keys.index(key) for key, _ in flat]
    one_each = sparse.csr_matrix((np.ones(len(flat)), (rows, range(len(flat)))), shape=(len(keys), len(flat)))
    constraints = [optimize.LinearConstraint(one_each, 1, 1)]
    if flash is not None:
        constraints.append(optimize.LinearConstraint(flash_bytes[None], -np.inf, flash))
    if download is not None:
        constraints.append(optimize.LinearConstraint(download_bytes[None], -np.inf, download))
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
