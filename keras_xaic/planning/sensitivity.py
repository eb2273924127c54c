"""How large a rounding error is, and what it does to the model: the methods that predict damage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Optional

import numpy as np

from keras_xaic.data import Samples
from keras_xaic.errors import PlanError
from keras_xaic.models.costs import macs
from keras_xaic.planning.allocation import Allocate, allocate, allocate_uniform
from keras_xaic.planning.output_divergence import hessian_traces, measured_damage
from keras_xaic.progress import Progress, silent

if TYPE_CHECKING:
    from keras_xaic._keras import Model

TIE_BREAKER = 1e-3
"""Weight of the plain relative error: it decides where relevance is zero (e.g. behind units that never fire)."""


def rounding_damage(kernel: np.ndarray, rounded: np.ndarray, relevance: np.ndarray) -> float:
    """Returns the relevance-weighted squared relative error ``sum A^2 ((q - w) / w)^2``.

    A weight's relevance is its share of the output, w * d(output)/dw along the attribution rule, so a relative error e of
    the weight moves the output by A * e; independent errors add up in squares.

    Args:
        kernel: The weights w.
        rounded: The weights on the grid, q; same shape.
        relevance: Mean absolute relevance A of every weight; same shape.
    """
    live = kernel != 0
    w, a = kernel[live].astype(np.float64), relevance[live].astype(np.float64)
    error = rounded[live].astype(np.float64) - w
    plain = np.square(error).sum() / max(np.square(w).sum(), 1e-30)
    return float((np.square(a) * np.square(error / w)).sum() + TIE_BREAKER * np.square(a).sum() * plain)


def squared_error(kernel: np.ndarray, rounded: np.ndarray, relevance: np.ndarray) -> float:
    """Returns ``sum (q - w)^2``; relevance is not used."""
    return float(np.square(rounded.astype(np.float64) - kernel).sum())


def relative_error(kernel: np.ndarray, rounded: np.ndarray, relevance: np.ndarray) -> float:
    """Returns ``sum (q - w)^2 / sum w^2``, the inverse of the signal-to-noise ratio; relevance is not used."""
    return squared_error(kernel, rounded, relevance) / max(float(np.square(kernel.astype(np.float64)).sum()), 1e-30)


def score_weighted_error(kernel: np.ndarray, rounded: np.ndarray, relevance: np.ndarray) -> float:
    """Returns the mean relevance of the weights that are not zero, times their relative squared error."""
    live = kernel != 0
    return float(relevance[live].mean()) * relative_error(kernel, rounded, relevance) if live.any() else 0.0


SAMPLES = 64
"""Calibration samples that are measured on; twice as many gave the same bit-widths."""
FEWEST, WORK = 8, 4e11
"""Of large models fewer samples are measured on: as many as make this many multiply-accumulates, at least 8."""
ZERO_COST = 3.0
"""Damage of a zero, as a multiple of what the same error by rounding does: a weight under a mask cannot make up for anything.
On validation data, after short training: 0.2 and 1 lose 2.4 and 1 points to 3 on ResNet-8 (`docs/decisions/010`)."""
Choice = tuple[str, int]
"""Kernel key and bit-width."""
ErrorOf = Callable[[np.ndarray, np.ndarray, np.ndarray], float]
"""Weights, rounded weights and relevance, all of one shape, to the size of the error."""


@dataclass(frozen=True)
class RoundedKernels:
    """A model before anything is decided, and what every bit-width would make of its kernels.

    Attributes:
        model: Canonical model.
        values: Kernel key -> weights.
        rounded: Kernel key and bit-width -> weights on the grid.
        relevance: Kernel key -> mean absolute relevance of every weight.
        samples: Calibration data; None where the method needs none.
        seed: Seed of everything random.
        progress: Told how far measuring is.
    """

    model: Model
    values: Mapping[str, np.ndarray]
    rounded: Mapping[Choice, np.ndarray]
    relevance: Mapping[str, np.ndarray]
    samples: Optional[Samples]
    seed: int = 0
    progress: Progress = silent


@dataclass(frozen=True)
class Sensitivity:
    """One way to predict damage: the size of an error times what such an error does.

    Attributes:
        name: What `plan(sensitivity=...)` takes.
        source: Where it comes from.
        error: Size of a rounding error.
        factors: What a unit of error does, per kernel and bit-width; None for 1 everywhere. Computed once, on the whole model:
            it stays valid when weights are zeroed or filters go, while the error is computed again.
        needs_samples: Whether `factors` needs calibration data.
        allocate: How bit-widths are chosen from damages.
    """

    name: str
    source: str
    error: ErrorOf
    factors: Optional[Callable[[RoundedKernels], Mapping[Choice, float]]] = None
    needs_samples: bool = False
    allocate: Allocate = allocate


@dataclass(frozen=True)
class Damage:
    """A sensitivity that has seen its model."""

    sensitivity: Sensitivity
    factors: Mapping[Choice, float] = field(default_factory=dict)

    def __call__(self, key: str, bits: int, value: np.ndarray, rounded: np.ndarray, relevance: np.ndarray) -> float:
        """Returns the predicted damage of rounding a kernel to a bit-width."""
        return self.factors.get((key, bits), 1.0) * self.sensitivity.error(value, rounded, relevance)

    def of_zeros(self, key: str, value: np.ndarray, masked: np.ndarray, relevance: np.ndarray) -> float:
        """Returns the predicted damage of setting weights of a kernel to zero, in the same unit.

        Zeros are rounding errors of the whole weight, calibrated as those of the fewest bits, the largest that were measured.
        """
        if masked is value:
            return 0.0
        fewest = min((bits for name, bits in self.factors if name == key), default=0)
        return ZERO_COST * self.factors.get((key, fewest), 1.0) * self.sensitivity.error(value, masked, relevance)


def sample_count(work: int) -> int:
    """Returns how many samples are measured on where each costs up to so many multiply-accumulates."""
    return int(min(SAMPLES, max(FEWEST, WORK // max(1, work))))


def _measured(error: ErrorOf, weight: float = 1.0) -> Callable[[RoundedKernels], Mapping[Choice, float]]:
    """Factors that make damage on the whole model ``measured^weight * error^(1 - weight)``."""

    def factors(rounding: RoundedKernels) -> Mapping[Choice, float]:
        assert rounding.samples is not None
        count = sample_count(sum(macs(rounding.model).values()) * len(rounding.rounded))
        some = rounding.samples.take(slice(0, count))
        measured = measured_damage(rounding.model, rounding.rounded, some, rounding.progress)
        predicted = {
            (key, bits): error(rounding.values[key], rounded, rounding.relevance[key])
            for (key, bits), rounded in rounding.rounded.items()
        }
        return {choice: (damage / max(predicted[choice], 1e-30)) ** weight for choice, damage in measured.items()}

    return factors


def _curvature(rounding: RoundedKernels) -> Mapping[Choice, float]:
    """Mean diagonal of the Hessian, ``tr(H) / n``; damage is that times ``||q - w||^2`` (HAWQ-V2)."""
    assert rounding.samples is not None
    traces = hessian_traces(rounding.model, rounding.samples.take(slice(0, SAMPLES)), rounding.seed)
    least = 1e-6 * max(1e-30, *(abs(trace) for trace in traces.values()))
    return {(key, bits): max(traces[key], least) / rounding.values[key].size for key, bits in rounding.rounded}


SENSITIVITIES: dict[str, Sensitivity] = {
    one.name: one
    for one in (
        Sensitivity("relevance", "keras-xaic: relevance-weighted relative error", rounding_damage),
        Sensitivity(
            "measured", "Cai et al. 2020, arXiv 2001.00281: output divergence", squared_error, _measured(squared_error), True
        ),
        Sensitivity(
            "combined",
            "keras-xaic: geometric mean of relevance-weighted error and measured output divergence",
            rounding_damage,
            _measured(rounding_damage, 0.5),
            True,
        ),
        Sensitivity("hessian", "Dong et al. 2020, arXiv 1911.03852: mean Hessian trace", squared_error, _curvature, True),
        Sensitivity(
            "mean_score", "Soroush et al. 2023, arXiv 2507.05286: more bits the higher the score", score_weighted_error
        ),
        Sensitivity("weight_error", "relative squared rounding error", relative_error),
        Sensitivity("uniform", "the largest bit-width that fits everywhere", relative_error, allocate=allocate_uniform),
    )
}
"""Name -> method. Methods that need calibration data cannot be used without it."""


def find_sensitivity(name: str, samples: Optional[Samples]) -> Sensitivity:
    """Returns the method called `name`; ``auto`` is ``combined`` with calibration data, ``relevance`` without.

    Raises:
        PlanError: If there is none of that name, or it needs data that is not given.
    """
    if name == "auto":
        name = "relevance" if samples is None else "combined"
    if name not in SENSITIVITIES:
        raise PlanError(f"there is no sensitivity {name!r}", f"auto, {', '.join(SENSITIVITIES)}")
    if SENSITIVITIES[name].needs_samples and samples is None:
        raise PlanError(f"sensitivity {name!r} without calibration data", "samples=...", "Or use relevance")
    return SENSITIVITIES[name]


def assess(rounding: RoundedKernels, name: str = "auto") -> Damage:
    """Returns the damage function of the method called `name` for one model; measures where the method measures.

    Raises:
        PlanError: See `find_sensitivity`.
    """
    found = find_sensitivity(name, rounding.samples)
    return Damage(found, {} if found.factors is None else found.factors(rounding))
