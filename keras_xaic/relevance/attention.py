"""LRP through multi-head attention, its attention weights held constant (Ali et al. 2022, arXiv 2202.07304, section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from keras_xaic._keras import Tensor, tf
from keras_xaic.models.operations import Operation
from keras_xaic.relevance.engine import Record
from keras_xaic.relevance.linear import MatrixMap
from keras_xaic.relevance.propagation import copy_of
from keras_xaic.relevance.rules import backward, divide, over_positions, stabilised
from keras_xaic.relevance.shares import Share


def attention_relevance(
    operation: Operation, tensors: Mapping[str, Tensor], relevance: Tensor, record: Record, epsilon: float
) -> dict[str, Tensor]:
    """Returns the relevance of the inputs; everything goes through the values, query and key get none.

    With constant attention weights A the layer is linear: ``V = value W_v + b_v``, ``C = A V``, ``y = C W_o + b_o``; each of
    the three steps follows the epsilon rule.
    """
    layer, path = operation.layer, operation.path
    seen: dict[str, Tensor] = {}

    def run(query: Tensor, value: Tensor, key: Optional[Tensor] = None, **options: object) -> Tensor:
        seen["value"] = value
        mask = options.get("attention_mask")
        if options.get("use_causal_mask"):
            causal = tf.linalg.band_part(tf.ones((1, query.shape[1], value.shape[1]), tf.bool), -1, 0)
            mask = causal if mask is None else tf.logical_and(tf.cast(mask, tf.bool), causal)
        queries, keys = layer._query_dense(query), layer._key_dense(value if key is None else key)
        seen["v"] = layer._value_dense(value)
        _, weights = layer._compute_attention(queries, keys, seen["v"], mask)
        seen["c"] = tf.einsum(layer._combine_equation, tf.stop_gradient(weights), seen["v"])
        seen["y"] = layer._output_dense(seen["c"])
        return seen["y"]

    keys = list(dict.fromkeys(operation.inputs))
    inputs = {key: copy_of(tensors[key]) for key in keys}
    operation.call(inputs, run)
    value, v, c, y = (seen[name] for name in ("value", "v", "c", "y"))

    s = divide(relevance, stabilised(y, epsilon))
    if layer._output_dense.bias is not None:
        record.add_bias(path, layer._output_dense.bias * over_positions(s))
    of_c = c * backward(y, c, s)
    kernel = layer._output_dense.kernel  # (heads, dimension, out)
    _record(record, f"{path}/output_kernel", kernel, kernel.shape[0] * kernel.shape[1], c, s)
    of_v = v * backward(c, v, divide(of_c, stabilised(c, epsilon)))
    s = divide(of_v, stabilised(v, epsilon))
    of_value = value * backward(v, value, s)
    kernel = layer._value_dense.kernel  # (in, heads, dimension)
    _record(record, f"{path}/value_kernel", kernel, kernel.shape[0], value, s)
    for name, dense in (("query", layer._query_dense), ("key", layer._key_dense)):
        record.add_zeros(f"{path}/{name}_kernel", tuple(dense.kernel.shape))
    result = {key: tf.zeros_like(x) for key, x in inputs.items()}
    result[next(key for key, x in inputs.items() if x is value)] = of_value
    return result


def _record(record: Record, key: str, kernel: Any, rows: int, x: Tensor, s: Tensor) -> None:
    """Shares of a kernel that is a matrix once heads and their dimensions are laid side by side."""
    linear = MatrixMap(key, tuple(kernel.shape), rows)
    x, s = tf.reshape(x, (x.shape[0], -1, rows)), tf.reshape(s, (x.shape[0], -1, linear.columns))
    record.add_shares(linear, [Share(tf.convert_to_tensor(kernel), [(x, s)])])
