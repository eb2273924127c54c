"""LRP through recurrent layers: gates are constants, everything else follows the epsilon rule.

Arras et al. 2017, "Explaining recurrent neural network predictions in sentiment analysis" (arXiv 1706.07206, section 2.2.2):
in a product of a gate and a signal the signal gets all the relevance. The candidate of an LSTM or GRU is a weighted layer with
inputs x_t and h_{t-1}; the new state is a weighted sum of the old one and the candidate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from keras_xaic._keras import Layer, Tensor, layers, tf
from keras_xaic.models.masking import mask_of
from keras_xaic.models.operations import Operation
from keras_xaic.relevance.engine import Record
from keras_xaic.relevance.linear import MatrixMap
from keras_xaic.relevance.rules import divide, stabilised
from keras_xaic.relevance.shares import Share


def recurrent_relevance(
    operation: Operation, tensors: Mapping[str, Tensor], relevance: Tensor, record: Record, epsilon: float
) -> dict[str, Tensor]:
    """Returns the relevance of the input sequence, by key, and records that of the kernels."""
    key, layer = operation.inputs[0], operation.layer
    x = tensors[key]
    mask = mask_of(x) if operation.mask is None else tensors[operation.mask]
    if not isinstance(layer, layers.Bidirectional):
        return {key: _through(layer, operation.path + "/", x, mask, relevance, record, epsilon)}
    both = (layer.forward_layer, layer.backward_layer)
    if layer.merge_mode == "concat":
        parts = tf.split(relevance, [part.units for part in both], axis=-1)
    else:  # sum or average: the z-rule needs the outputs of the two directions
        ys = [part(x, mask=mask, training=False) for part in both]
        if both[0].return_sequences:
            ys[1] = tf.reverse(ys[1], axis=[1])
        s = divide(relevance, stabilised(ys[0] + ys[1], epsilon))
        parts = [y * s for y in ys]
    if both[0].return_sequences:
        parts[1] = tf.reverse(parts[1], axis=[1])  # back to the order in which that direction runs
    names = ("forward_", "backward_")
    return {
        key: tf.add_n(
            [
                _through(part, f"{operation.path}/{name}", x, mask, arrived, record, epsilon)
                for part, name, arrived in zip(both, names, parts)
            ]
        )
    }


@dataclass(frozen=True)
class _Trace:
    """Everything the way back needs, time first: (time, n, units) each.

    Attributes:
        old: State h before each step.
        z: Candidate before its activation.
        kept: What the new state keeps of the old one (for an LSTM: the cell state).
        added: What the candidate adds to it.
        reset: Reset gate of a GRU, ones elsewhere.
    """

    old: Tensor
    z: Tensor
    kept: Tensor
    added: Tensor
    reset: Tensor


def _through(
    layer: Layer, prefix: str, x: Tensor, mask: Optional[Tensor], relevance: Tensor, record: Record, epsilon: float
) -> Tensor:
    cell = layer.cell
    units, parts = cell.units, cell.kernel.shape[-1] // cell.units
    candidate = {1: 0, 3: 2, 4: 2}[parts]  # SimpleRNN; GRU: update, reset, candidate; LSTM: in, forget, candidate, out
    column = slice(candidate * units, (candidate + 1) * units)
    sequence = tf.transpose(x, (1, 0, 2))
    live = tf.ones(sequence.shape[:2]) if mask is None else tf.cast(tf.transpose(mask), tf.float32)
    arrived = tf.transpose(relevance, (1, 0, 2)) if layer.return_sequences else None
    if layer.go_backwards:
        sequence, live = tf.reverse(sequence, [0]), tf.reverse(live, [0])
    if arrived is None:
        arrived = tf.concat([tf.zeros((sequence.shape[0] - 1, *relevance.shape)), relevance[None]], 0)
    trace = _run(layer, sequence, live)
    w, u = cell.kernel[:, column], cell.recurrent_kernel[:, column]
    after = bool(getattr(cell, "reset_after", False)) and parts == 3

    def step(carry: tuple[Tensor, ...], now: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        of_state, of_cell, _, _ = carry
        arriving, x_t, old, z, kept, added, reset, alive = now
        of_h = of_state + arriving
        total = of_cell + of_h if parts == 4 else of_h  # h = o tanh(c): all to the cell
        s = divide(total, stabilised(kept + added, epsilon))
        of_old_by_keeping, of_candidate = kept * s, added * s
        signal = divide(of_candidate, stabilised(z, epsilon))
        back = tf.matmul(signal * reset if after else signal, u, transpose_b=True)
        of_old = (old if after else old * _reset_of_state(reset, parts)) * back
        of_x = x_t * tf.matmul(signal, w, transpose_b=True)
        alive = alive[:, None]
        if parts == 4:
            next_state, next_cell = of_old, of_old_by_keeping
        else:
            next_state, next_cell = of_old + of_old_by_keeping, tf.zeros_like(of_cell)
        return (
            alive * next_state + (1 - alive) * of_h,
            alive * next_cell + (1 - alive) * of_cell,
            alive * of_x,
            alive * signal,
        )

    zeros = tf.zeros((x.shape[0], units))
    inputs = (arrived, sequence, trace.old, trace.z, trace.kept, trace.added, trace.reset, live)
    start = (zeros, zeros, tf.zeros_like(sequence[0]), zeros)
    _, _, of_x, signals = tf.scan(step, inputs, start, reverse=True)

    def widened(s: Tensor) -> Tensor:
        return tf.pad(tf.transpose(s, (1, 0, 2)), [(0, 0), (0, 0), (column.start, (parts - candidate - 1) * units)])

    old = trace.old if after else trace.old * _reset_of_state(trace.reset, parts)
    for name, kernel, seen, s in (
        ("kernel", cell.kernel, sequence, signals),
        ("recurrent_kernel", cell.recurrent_kernel, old, signals * trace.reset if after else signals),
    ):
        linear = MatrixMap(prefix + name, tuple(kernel.shape), kernel.shape[0])
        pair = (tf.transpose(seen, (1, 0, 2)), widened(s))
        record.add_shares(linear, [Share(tf.convert_to_tensor(kernel), [pair])])
    result = tf.reverse(of_x, [0]) if layer.go_backwards else of_x
    return tf.transpose(result, (1, 0, 2))


def _reset_of_state(reset: Tensor, parts: int) -> Tensor:
    return reset if parts == 3 else tf.ones_like(reset)


def _run(layer: Layer, sequence: Tensor, live: Tensor) -> _Trace:
    """Runs the layer forward and keeps the intermediate values."""
    cell, units = layer.cell, layer.cell.units
    parts = cell.kernel.shape[-1] // units
    after = bool(getattr(cell, "reset_after", False)) and parts == 3
    bias = tf.convert_to_tensor(cell.bias) if cell.use_bias else tf.zeros((parts * units,))
    bias, recurrent_bias = (bias[0], bias[1]) if bias.shape.rank == 2 else (bias, tf.zeros_like(bias))

    def step(carry: tuple[Tensor, ...], now: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, c = carry[0], carry[1]
        x, alive = now
        zx = tf.matmul(x, cell.kernel) + bias
        ones = tf.ones_like(h)
        if parts == 1:
            z = zx + tf.matmul(h, cell.recurrent_kernel)
            kept, added, reset = tf.zeros_like(h), cell.activation(z), ones
            new_h, new_c = added, c
        elif parts == 4:
            zi, zf, z, zo = tf.split(zx + tf.matmul(h, cell.recurrent_kernel), 4, -1)
            kept = cell.recurrent_activation(zf) * c
            added, reset = cell.recurrent_activation(zi) * cell.activation(z), ones
            new_c = kept + added
            new_h = cell.recurrent_activation(zo) * cell.activation(new_c)
        else:
            kernels = tf.split(cell.recurrent_kernel, 3, -1)
            biases = tf.split(recurrent_bias, 3, -1)
            update, reset = (
                cell.recurrent_activation(part + tf.matmul(h, k) + b)
                for part, k, b in zip(tf.split(zx, 3, -1)[:2], kernels, biases)
            )
            of_h = reset * (tf.matmul(h, kernels[2]) + biases[2]) if after else tf.matmul(reset * h, kernels[2])
            z = tf.split(zx, 3, -1)[2] + of_h
            kept, added = update * h, (1 - update) * cell.activation(z)
            new_h, new_c = kept + added, c
        alive = alive[:, None]
        return (alive * new_h + (1 - alive) * h, alive * new_c + (1 - alive) * c, h, z, kept, added, reset)

    zeros = tf.zeros((sequence.shape[1], units))
    _, _, old, z, kept, added, reset = tf.scan(step, (sequence, live), (zeros,) * 7)
    return _Trace(old, z, kept, added, reset)
