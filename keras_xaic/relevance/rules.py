"""LRP rules for weighted layers: how relevance of a layer's outputs goes to its inputs and weights.

Notation: inputs x_i, weights w_ij, bias b_j, ``z_j = sum_i x_i w_ij + b_j``, relevance R_j of output j; ``p+`` and ``p-`` are
the positive and negative part of p. Each rule gives messages R_ij; the input gets ``R_i = sum_j R_ij`` and weight ij of that
call gets R_ij (summed over the positions at which a convolution uses it). Overview: Montavon et al. 2019, "Layer-Wise Relevance
Propagation: An Overview" (LNCS 11700, chapter 10).
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Optional, Union

import numpy as np

from keras_xaic.errors import ModelError
from keras_xaic.lazy import tf
from keras_xaic.relevance.shares import Share

if TYPE_CHECKING:
    from keras_xaic._keras import Tensor
    from keras_xaic.relevance.linear import LinearMap

LARGEST = float(np.finfo(np.float32).max)
EPSILON = 1e-6
"""Default of the stabiliser, relative to the mean |z| of the layer and sample."""


def stabilised(z: Tensor, epsilon: float) -> Tensor:
    """Returns ``z + sign(z) epsilon mean|z|``, the mean over everything but the samples, with sign(0) = 1."""
    if epsilon == 0:
        return z
    scale = epsilon * tf.reduce_mean(tf.abs(z), axis=tuple(range(1, z.shape.rank)), keepdims=True)
    return z + tf.where(z >= 0, scale, -scale)


def total(terms: Iterable[Tensor]) -> Any:
    """Returns the sum of at least one tensor (its own type: `sum` might give a 0)."""
    return sum(terms)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Returns a / b, and 0 where b is 0: what no input caused is given to no input."""
    return tf.math.divide_no_nan(a, b)


@dataclass(frozen=True)
class Call:
    """One call of a weighted layer, as a rule sees it.

    Attributes:
        linear: The layer's linear map.
        x: Input, (n, ...), a tensor of its own.
        weight: The kernel.
        z: Output before any activation, bias included.
        nonnegative: Whether x is known to have no negative entries (half of some rules' work falls away).
    """

    linear: LinearMap
    x: Tensor
    weight: Tensor
    z: Tensor
    nonnegative: bool = False

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """The linear map at other inputs or weights, without bias."""
        return self.linear(x, weight, self.z)

    @property
    def signs(self) -> list[Tensor]:
        """Positive and negative part of x; only the first where x has no negative entries."""
        return [self.x] if self.nonnegative else [positive(self.x), negative(self.x)]


def positive(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return tf.nn.relu(x)


def negative(x: Tensor) -> Tensor:
    """min(x, 0)."""
    return -tf.nn.relu(-x)


def backward(y: Tensor, x: Tensor, s: Tensor) -> Tensor:
    """``sum_j s_j dy_j/dx_i``; the forward pass that y came from is not computed again, its gradient is all that is used.

    y must be made from x for this purpose: `tf.gradients` searches everything that follows from x.
    """
    return tf.gradients(y, x, grad_ys=s)[0]


class Propagated(NamedTuple):
    """What a rule gives: relevance of the input, the shares of the weights, and that of the bias, (n, channels) or None."""

    below: Tensor
    shares: Sequence[Share]
    bias: Optional[Tensor] = None

    def __add__(self, other: Any) -> Propagated:
        if self.bias is None or other.bias is None:
            return Propagated(self.below + other.below, [*self.shares, *other.shares])
        return Propagated(self.below + other.below, [*self.shares, *other.shares], self.bias + other.bias)


def over_positions(r: Tensor) -> Tensor:
    """Sums (n, ..., channels) over positions: (n, channels)."""
    return tf.reduce_sum(r, axis=tuple(range(1, r.shape.rank - 1))) if r.shape.rank > 2 else r


def _is_number(value: object) -> bool:
    """Whether it is a number that float32 holds, in which relevance is computed."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and bool(-LARGEST <= value <= LARGEST)  # type: ignore[operator]


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


_STABILISER = "it moves the denominator away from zero (Bach et al. 2015, equation 58)"


@dataclass(frozen=True)
class Rule:
    """Base of the rules; instances are immutable, know nothing of a model, and refuse parameters that make no sense.

    Attributes:
        name: How users name it; `RULES` lists the rules that can be named.
        first_layer: Whether it is meant for the first layer alone.
    """

    name: ClassVar[str]
    first_layer: ClassVar[bool] = False

    @classmethod
    def parameters(cls) -> tuple[str, ...]:
        """Names of the parameters, in the order in which they follow the name of the rule."""
        return tuple(one.name for one in fields(cls) if one.init)

    def _require(self, parameter: str, least: float, why: str) -> None:
        """Refuses a parameter that is no number, less than `least`, or beyond float32, in which relevance is computed.

        Raises:
            ModelError: Naming the rule, the parameter and why.
        """
        value = getattr(self, parameter)
        if not _is_number(value) or value < least:
            raise ModelError(f"rule {self.name} has {parameter} {_shown(value)}", f"a number, {least:g} or more: {why}")
        object.__setattr__(self, parameter, float(value))

    def apply(self, call: Call, relevance: Tensor) -> Propagated:
        """Returns the relevance of the input, the shares of the weights, and the relevance of the bias.

        Args:
            call: The call of the layer.
            relevance: R_j, of the shape of `call.z`.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Epsilon(Rule):
    """LRP-epsilon: ``R_ij = x_i w_ij R_j / (z_j + sign(z_j) epsilon mean|z|)`` (Bach et al. 2015, equation 58).

    The bias takes its share ``b_j R_j / z_j``. The stabiliser is relative to the mean |z| of the layer, sample by sample: an
    absolute one swallows all relevance where activations are small.

    Args:
        epsilon: The stabiliser. Larger values (0.01 to 0.25) give smoother, less noisy relevance and lose some of it.
    """

    name = "lrp.epsilon"
    epsilon: float = EPSILON

    def __post_init__(self) -> None:
        self._require("epsilon", 0.0, _STABILISER)

    def apply(self, call: Call, relevance: Tensor) -> Propagated:
        """See `Rule.apply`."""
        s = divide(relevance, stabilised(call.z, self.epsilon))
        bias = None if call.linear.bias is None else call.linear.bias * over_positions(s)
        y = call.forward(call.x, call.weight)
        return Propagated(call.x * backward(y, call.x, s), [Share(call.weight, [(call.x, s)])], bias)


@dataclass(frozen=True)
class Z(Epsilon):
    """LRP-0, the z-rule: `Epsilon` without a stabiliser (Bach et al. 2015, equation 56)."""

    name = "lrp.z"
    epsilon: float = field(default=0.0, init=False)


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """``R_ij = (alpha (x_i w_ij)+ / sum_i (x_i w_ij)+ - beta (x_i w_ij)- / sum_i (x_i w_ij)-) R_j``, bias-free.

    Bach et al. 2015, equation 60, with alpha - beta = 1 and without the bias in the sums, so that it conserves relevance.

    Args:
        alpha: Share of what speaks for the output.
        beta: Share of what speaks against it.
    """

    name = "lrp.alpha_beta"
    alpha: float = 1.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        self._require("beta", 0.0, "a share of what speaks against the output (Bach et al. 2015, section 2.3)")
        self._require("alpha", 1.0, "alpha - beta = 1 conserves relevance (Bach et al. 2015, equation 60)")
        if not math.isclose(self.alpha - self.beta, 1.0, abs_tol=1e-6):
            raise ModelError(
                f"rule {self.name} has alpha {self.alpha:g} and beta {self.beta:g}",
                "alpha - beta = 1, which conserves relevance (Bach et al. 2015, equation 60)",
            )

    def apply(self, call: Call, relevance: Tensor) -> Propagated:
        """See `Rule.apply`."""
        w_for, w_against = positive(call.weight), negative(call.weight)
        speaks_for = self._part(call, (w_for, w_against), self.alpha * relevance)
        if self.beta == 0:
            return speaks_for
        return speaks_for + self._part(call, (w_against, w_for), -self.beta * relevance)

    def _part(self, call: Call, weights: tuple[Tensor, Tensor], relevance: Tensor) -> Propagated:
        """Positive inputs meet the first weights, negative inputs the second; all products have one sign."""
        terms = [(x, w, call.forward(x, w)) for x, w in zip(call.signs, weights)]
        s = divide(relevance, total(y for _, _, y in terms))
        return Propagated(total(x * backward(y, x, s) for x, _, y in terms), [Share(w, [(x, s)]) for x, w, _ in terms])


@dataclass(frozen=True)
class ZPlus(AlphaBeta):
    """The z+ rule: `AlphaBeta` with alpha 1 and beta 0 (Montavon et al. 2017, equation 12, for inputs of either sign)."""

    name = "lrp.z_plus"
    alpha: float = field(default=1.0, init=False)
    beta: float = field(default=0.0, init=False)


@dataclass(frozen=True)
class Alpha1Beta0(ZPlus):
    """`AlphaBeta` with alpha 1 and beta 0: `ZPlus` under another name."""

    name = "lrp.alpha_1_beta_0"


@dataclass(frozen=True)
class Alpha2Beta1(AlphaBeta):
    """`AlphaBeta` with alpha 2 and beta 1."""

    name = "lrp.alpha_2_beta_1"
    alpha: float = field(default=2.0, init=False)
    beta: float = field(default=1.0, init=False)


@dataclass(frozen=True)
class Gamma(Rule):
    """LRP-gamma: favours positive contributions (Montavon et al. 2019, section 10.2.3; generalised as in Andeol et al. 2022).

    With ``w> = w + gamma w+`` and ``w< = w + gamma w-``, outputs with z_j > 0 use
    ``R_ij = (x_i+ w>_ij + x_i- w<_ij) R_j / (sum_i of the same + b_j + gamma b_j+)`` and outputs with z_j < 0 the mirror image,
    ``R_ij = (x_i+ w<_ij + x_i- w>_ij) R_j / (sum_i of the same + b_j + gamma b_j-)``.

    Args:
        gamma: 0 gives LRP-0, large values approach z+.
        epsilon: Relative stabiliser of the denominator.
    """

    name = "lrp.gamma"
    gamma: float = 0.25
    epsilon: float = EPSILON

    def __post_init__(self) -> None:
        self._require("gamma", 0.0, "it favours what speaks for the output (Montavon et al. 2019, section 10.2.3)")
        self._require("epsilon", 0.0, _STABILISER)

    def apply(self, call: Call, relevance: Tensor) -> Propagated:
        """See `Rule.apply`."""
        up = call.weight + self.gamma * positive(call.weight)
        down = call.weight + self.gamma * negative(call.weight)
        above = self._part(call, (up, down), positive, tf.where(call.z > 0, relevance, 0.0))
        return above + self._part(call, (down, up), negative, tf.where(call.z < 0, relevance, 0.0))

    def _part(self, call: Call, weights: tuple[Tensor, Tensor], side: Any, relevance: Tensor) -> Propagated:
        terms = [(x, w, call.forward(x, w)) for x, w in zip(call.signs, weights)]
        bias = call.linear.bias
        bias = None if bias is None else bias + self.gamma * side(bias)
        z = total(y for _, _, y in terms) + (0.0 if bias is None else bias)
        s = divide(relevance, stabilised(z, self.epsilon))
        return Propagated(
            total(x * backward(y, x, s) for x, _, y in terms),
            [Share(w, [(x, s)]) for x, w, _ in terms],
            None if bias is None else bias * over_positions(s),
        )


@dataclass(frozen=True)
class WSquare(Rule):
    """The w^2 rule: ``R_ij = w_ij^2 / sum_i w_ij^2 R_j``, for inputs without bounds (Montavon et al. 2017, equation 13)."""

    name = "lrp.w_square"
    first_layer = True

    def factor(self, weight: Tensor) -> Tensor:
        """What stands in for the weights."""
        return tf.square(weight)

    def apply(self, call: Call, relevance: Tensor) -> Propagated:
        """See `Rule.apply`."""
        factor, ones = self.factor(call.weight), tf.ones_like(call.x)
        y = call.forward(ones, factor)
        s = divide(relevance, y)
        return Propagated(backward(y, ones, s), [Share(factor, [(ones, s)])])


@dataclass(frozen=True)
class Flat(WSquare):
    """The flat rule: every input of an output gets the same, ``R_ij = R_j / (number of inputs)`` (Lapuschkin et al. 2019)."""

    name = "lrp.flat"
    first_layer = True

    def factor(self, weight: Tensor) -> Tensor:
        """What stands in for the weights."""
        return tf.ones_like(weight)


@dataclass(frozen=True)
class ZBox(Rule):
    """The z^B rule for inputs within bounds l <= x <= h, meant for the first layer (Montavon et al. 2017, equation 14).

    ``R_ij = (x_i w_ij - l_i w_ij+ - h_i w_ij-) / sum_i of the same * R_j``

    Args:
        low: Lower bound, a number or one per channel.
        high: Upper bound, likewise.
    """

    name = "lrp.z_box"
    low: Union[float, tuple[float, ...]] = 0.0
    high: Union[float, tuple[float, ...]] = 1.0

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            given = getattr(self, name)
            many = tuple(given) if isinstance(given, (tuple, list, np.ndarray)) and np.ndim(given) == 1 else (given,)
            if not many or not all(_is_number(one) for one in many):
                raise ModelError(f"rule {self.name} has {name} {_shown(given)}", "a number, or one per channel")
            bounds = tuple(float(one) for one in many)
            object.__setattr__(self, name, bounds[0] if given is many[0] else bounds)
        low, high = np.atleast_1d(self.low), np.atleast_1d(self.high)
        if len({len(low), len(high)} - {1}) > 1 or not np.all(low < high):
            raise ModelError(
                f"rule {self.name} has the bounds {self.low} to {self.high}",
                "low below high in every channel: inputs lie between them (Montavon et al. 2017, equation 14)",
            )

    def apply(self, call: Call, relevance: Tensor) -> Propagated:
        """See `Rule.apply`."""
        terms = []
        for bound, weight in ((self.low, positive(call.weight)), (self.high, negative(call.weight))):
            x = call.x - tf.constant(np.asarray(bound, np.float32))
            terms.append((x, weight, call.forward(x, weight)))
        s = divide(relevance, total(y for _, _, y in terms))
        return Propagated(total(x * backward(y, x, s) for x, _, y in terms), [Share(w, [(x, s)]) for x, w, _ in terms])


RULES: dict[str, Rule] = {
    rule.name: rule for rule in (Epsilon(), Z(), Gamma(), ZPlus(), Alpha1Beta0(), Alpha2Beta1(), Flat(), WSquare(), ZBox())
}
"""Rules for weighted layers by their standard names."""
