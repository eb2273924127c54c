"""DeepLIFT: contributions of differences from a reference (Shrikumar et al. 2017, arXiv 1704.02685).

Multipliers m of the target go backward (equation 3, the chain rule); a contribution is ``m * (value - reference value)``.
Linear operations pass multipliers by their transpose (the Linear rule). Non-linear ones take ``dy / dx`` (the Rescale rule,
equation 8) or, behind a weighted layer, treat the positive and negative parts of dx apart (RevealCancel, section 3.5.3).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable

from keras_xaic._keras import Tensor, tf
from keras_xaic.models.operations import Operation
from keras_xaic.relevance.engine import Record, Step, per_sample
from keras_xaic.relevance.layer_table import check_supported
from keras_xaic.relevance.program import Program
from keras_xaic.relevance.propagation import (
    Function,
    as_function,
    copy_of,
    gradients_among_floats,
    is_of_whole_numbers,
    through_whole_numbers,
)
from keras_xaic.relevance.rules import backward, divide, negative, positive
from keras_xaic.relevance.shares import Share
from keras_xaic.relevance.targets import BatchTargets

if TYPE_CHECKING:
    from keras_xaic.relevance.choices import Statistic

Multiplier = tuple[Tensor, Tensor]
"""Multipliers of the positive and of the negative part of a difference; the same tensor twice where they are not told apart."""

_SMALL = 1e-6  # differences below this part of their mean are too small to divide by: the gradient is the limit


class DeepLift:
    """The DeepLIFT engine.

    Args:
        program: The model.
        rule: ``"deeplift.rescale"`` or ``"deeplift.reveal_cancel"``.
        allow_approximate: Take gradients through layers without a sound rule instead of refusing them.

    Raises:
        ModelError: Naming every layer without a sound rule.
    """

    compares = True
    needs_values = False
    copies = 1
    gates: tuple[str, ...] = ()

    def __init__(self, program: Program, rule: str, allow_approximate: bool = False) -> None:
        self.program, self.reveal_cancel = program, rule == "deeplift.reveal_cancel"
        self.approximate = check_supported(program.treatments, "deeplift", rule, allow_approximate)

    def check(self, xs: Sequence[Tensor]) -> None:
        """See `Engine.check`: any input will do."""

    def refresh(self) -> None:
        """See `Engine.refresh`."""
        self.program.refresh()

    def step(self, xs: Sequence[Tensor], targets: BatchTargets, statistic: Statistic, references: Sequence[Tensor]) -> Step:
        """See `Engine.step`."""
        operations = self.program.operations
        references = [r if x.dtype.is_floating else tf.cast(tf.round(r), x.dtype) for x, r in zip(xs, references)]
        here, there = self.program.forward(xs), self.program.forward(references)
        selected = targets.selection([here[key] for key in operations.outputs])
        arrived: dict[str, list[Multiplier]] = defaultdict(list)
        for key, part in zip(operations.outputs, selected):
            arrived[key].append((part, part))
        record = Record()
        for operation in reversed(list(operations)):
            if not any(key in arrived for key in operation.outputs):
                continue
            multipliers = [_total(arrived[key]) if key in arrived else _nothing(here[key]) for key in operation.outputs]
            for key, multiplier in self._back(operation, here, there, multipliers, record).items():
                arrived[key].append(multiplier)
        inputs = [
            _total(arrived[key])[0] * tf.cast(x - r, tf.float32) if key in arrived else tf.zeros_like(x, tf.float32)
            for key, x, r in zip(operations.inputs, xs, references)
        ]
        gained = [part * (here[key] - there[key]) for key, part in zip(operations.outputs, selected)]
        return Step(inputs, record.channels, record.biases, record.weights(statistic), per_sample(gained))

    def _back(
        self,
        operation: Operation,
        here: Mapping[str, Tensor],
        there: Mapping[str, Tensor],
        multipliers: Sequence[Multiplier],
        record: Record,
    ) -> dict[str, Multiplier]:
        how = self.program.how[operation.name]
        if how == "weighted":
            return {operation.inputs[0]: _same(self._through_weights(operation, here, there, multipliers[0], record))}
        keys, function = as_function(operation)
        xs, rs = [here[key] for key in keys], [there[key] for key in keys]
        ms = [m for m, _ in multipliers]
        if is_of_whole_numbers(operation, self.program, here):
            results = through_whole_numbers(function, xs, ms, how, self.program.called[operation.name])
        elif how == "activation" or (how == "product" and len(keys) == 1):
            before = self.program.operations.producer.get(keys[0])
            if self.reveal_cancel and before is not None and before.path in self.program.maps:
                return {keys[0]: self._reveal_cancel(function, before, here, there, ms[0])}
            results = [rescale(function, xs[0], rs[0], ms[0])]
        elif how == "winner":
            cross = tf.minimum if self.program.called[operation.name] == "Minimum" else tf.maximum
            results = through_winner(function, xs, rs, ms[0], cross)
        elif how == "product":
            results = through_product(xs, rs, ms[0])
        else:  # linear, or linearised
            xs = [copy_of(x) for x in xs]
            results = gradients_among_floats(function(xs), xs, ms)
        return {key: _same(result) for key, result in zip(keys, results)}

    def _through_weights(
        self,
        operation: Operation,
        here: Mapping[str, Tensor],
        there: Mapping[str, Tensor],
        multiplier: Multiplier,
        record: Record,
    ) -> Tensor:
        linear, key = self.program.maps[operation.path], operation.inputs[0]
        z, dz = here[operation.outputs[0]], here[operation.outputs[0]] - there[operation.outputs[0]]
        dx, weight = here[key] - there[key], linear.weight
        name = self.program.channels_key(operation.path)
        m_for, m_against = multiplier
        if m_for is m_against:
            record.add_channels(name, m_for * dz)
            record.add_shares(linear, [Share(weight, [(dx, m_for)])])
            return backward(linear(dx, weight, z), dx, m_for)
        up, down, w_up, w_down = positive(dx), negative(dx), positive(weight), negative(weight)
        by_for, by_against = _parts(linear, dx, weight, z)
        record.add_channels(name, m_for * by_for + m_against * by_against)
        shares = [Share(w_up, [(up, m_for), (down, m_against)]), Share(w_down, [(down, m_for), (up, m_against)])]
        record.add_shares(linear, shares)
        y_up, y_down = linear(dx, w_up, z), linear(dx, w_down, z)
        rising = backward(y_up, dx, m_for) + backward(y_down, dx, m_against)
        falling = backward(y_down, dx, m_for) + backward(y_up, dx, m_against)
        return tf.where(dx > 0, rising, tf.where(dx < 0, falling, (rising + falling) / 2))

    def _reveal_cancel(
        self,
        function: Function,
        before: Operation,
        here: Mapping[str, Tensor],
        there: Mapping[str, Tensor],
        m: Tensor,
    ) -> Multiplier:
        """RevealCancel: each part's effect is the mean of its effect alone and after the other part."""
        linear, key = self.program.maps[before.path], before.inputs[0]
        z, r = here[before.outputs[0]], there[before.outputs[0]]
        up, down = _parts(linear, here[key] - there[key], linear.weight, z)

        def f(value: Tensor) -> Tensor:
            return function([value])[0]

        f_r, f_up, f_down, f_both = f(r), f(r + up), f(r + down), f(r + up + down)
        rise, fall = 0.5 * (f_up - f_r + f_both - f_down), 0.5 * (f_down - f_r + f_both - f_up)
        return divide(rise, up) * m, divide(fall, down) * m


def rescale(function: Function, x: Tensor, r: Tensor, m: Tensor) -> Tensor:
    """Rescale rule through an element-wise function: ``m dy / dx``, the gradient where dx vanishes."""
    x = copy_of(x)
    y, y_r = function([x])[0], function([r])[0]
    dx = x - r
    scale = tf.reduce_mean(tf.abs(dx), axis=tuple(range(1, dx.shape.rank)), keepdims=True)
    small = tf.abs(dx) <= _SMALL * scale
    slope = tf.where(small, tf.gradients(y, x)[0], (y - y_r) / tf.where(small, tf.ones_like(dx), dx))
    return slope * m


def through_winner(function: Function, xs: Sequence[Tensor], rs: Sequence[Tensor], m: Tensor, cross: Any) -> list[Tensor]:
    """Maxima: what the output gains up to the larger of both outputs goes to the winner now, the rest to the winner before.

    Minima are the mirror image: `cross` is `tf.minimum` for them.
    """
    xs = [copy_of(x) for x in xs]
    rs = [tf.broadcast_to(r, x.shape) for r, x in zip(rs, xs)]
    y, y_r = function(xs)[0], function(rs)[0]
    larger = cross(y, y_r)
    now = tf.gradients(y, xs, grad_ys=m * (larger - y_r))
    before = tf.gradients(y_r, rs, grad_ys=m * (y - larger))
    return [divide(a + b, x - r) for a, b, x, r in zip(now, before, xs, rs)]


def through_product(xs: Sequence[Tensor], rs: Sequence[Tensor], m: Tensor) -> list[Tensor]:
    """Products of two: ``d(ab) = (b + b_r)/2 da + (a + a_r)/2 db`` exactly."""
    means = [(x + r) / 2 for x, r in zip(xs, rs)]
    results = []
    for i, x in enumerate(xs):
        x = tf.identity(x)
        results.append(tf.gradients(x * tf.stop_gradient(means[1 - i]), x, grad_ys=m)[0])
    return results


def _parts(
    linear: Callable[[Tensor, Tensor, Tensor], Tensor], dx: Tensor, weight: Tensor, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums of the positive and of the negative terms ``w_ij dx_i``."""
    up, down, w_up, w_down = positive(dx), negative(dx), positive(weight), negative(weight)
    return (
        linear(up, w_up, like) + linear(down, w_down, like),
        linear(up, w_down, like) + linear(down, w_up, like),
    )


def _same(m: Tensor) -> Multiplier:
    return m, m


def _nothing(like: Tensor) -> Multiplier:
    return _same(tf.zeros_like(like, tf.float32))


def _total(multipliers: Sequence[Multiplier]) -> Multiplier:
    if all(a is b for a, b in multipliers):
        return _same(tf.add_n([a for a, _ in multipliers]))
    return tf.add_n([a for a, _ in multipliers]), tf.add_n([b for _, b in multipliers])
