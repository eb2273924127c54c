"""What weights get of the relevance that passes through them, summed over samples.

A rule writes the relevance of the weights of one layer for one sample n as

    R_w[n] = sum over shares of  weight * (gradient of the linear map with respect to its kernel at (input[n], signal[n]))

because every message that crosses weight w_ij is input_i * w_ij * signal_j. Over samples it is summed signed, absolute or
squared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_xaic.lazy import tf

if TYPE_CHECKING:
    from keras_xaic._keras import Tensor
    from keras_xaic.relevance.linear import LinearMap

_ELEMENTS_AT_ONCE = 1 << 22  # of per-sample kernels held at a time: 16 MB in float32


@dataclass(frozen=True)
class Share:
    """One part of the relevance of a layer's weights.

    Attributes:
        weight: Factor of the kernel's shape.
        pairs: (input, signal) pairs that go with it. No two pairs of a layer are non-zero at the same input, output and
            weight (positive and negative parts exclude each other).
    """

    weight: Tensor
    pairs: Sequence[tuple[Tensor, Tensor]]


def sum_signed(linear: LinearMap, shares: Sequence[Share]) -> Tensor:
    """Returns sum_n R_w[n], of the kernel's shape."""
    total = tf.zeros(linear.shape)
    for share in shares:
        for x, s in share.pairs:
            y = linear(x, share.weight, s)  # only its gradient is computed
            total += share.weight * tf.gradients(y, share.weight, grad_ys=s)[0]
    return total


def sum_powers(linear: LinearMap, shares: Sequence[Share], power: int, calls: int = 1) -> Tensor:
    """Returns sum_n |R_w[n]|^power, of the kernel's shape.

    Args:
        linear: The linear map the shares belong to.
        shares: Its shares; those of all calls where the layer is shared.
        power: 1 or 2.
        calls: How many calls of the layer the shares come from.
    """
    factors = [linear.split(share.weight) for share in shares]
    blocks = [[linear.blocks(x, s) for x, s in share.pairs] for share in shares]
    reduced = []
    for k in range(len(factors[0])):
        parts = [(factor[k], [pair[k] for pair in pairs]) for factor, pairs in zip(factors, blocks)]
        if calls == 1 and linear.positions_of(parts[0][1][0][1]) == 1:
            reduced.append(_at_one_position(linear, parts, power))
        else:
            reduced.append(_sample_by_sample(linear, parts, power))
    return linear.assemble(reduced)


def _at_one_position(linear: LinearMap, parts: Any, power: int) -> Tensor:
    """One product per weight and sample: the power of the product is the product of the powers, one matrix product in all."""
    raised = tf.abs if power == 1 else tf.square
    total: Any = 0.0
    for weight, pairs in parts:
        total += raised(weight) * sum(linear.meet_samples(raised(x), raised(s)) for x, s in pairs)
    return total


def _sample_by_sample(linear: LinearMap, parts: Any, power: int) -> Tensor:
    raised = tf.abs if power == 1 else tf.square
    count = parts[0][1][0][0].shape[0]
    step = max(1, _ELEMENTS_AT_ONCE // max(1, int(parts[0][0].shape.num_elements())))
    total: Any = 0.0
    for start in range(0, count, step):
        some = slice(start, start + step)
        relevance = sum(weight * sum(linear.meet(x[some], s[some]) for x, s in pairs) for weight, pairs in parts)
        total += tf.reduce_sum(raised(relevance), axis=0)
    return total
