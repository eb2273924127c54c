"""Yardsticks from gradients, in the same interface as LRP: they take every layer."""

from __future__ import annotations

from collections.abc import Sequence

from keras_xaic._keras import Tensor, tf
from keras_xaic.relevance.choices import Statistic
from keras_xaic.relevance.engine import Record, Step, per_sample
from keras_xaic.relevance.inner_kernels import inner_kernels
from keras_xaic.relevance.program import Program
from keras_xaic.relevance.propagation import gradients_among_floats
from keras_xaic.relevance.reduce import reduce_samples
from keras_xaic.relevance.rules import over_positions
from keras_xaic.relevance.shares import Share
from keras_xaic.relevance.targets import BatchTargets


class Gradient:
    """Gradient times input: ``x dF/dx``, for weights ``w dF/dw``, for channels ``z dF/dz``; F is the target's value.

    Shrikumar et al. 2016, arXiv 1605.01713.

    Args:
        program: The model.
    """

    compares = False
    needs_values = False
    copies = 1
    approximate: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()

    def __init__(self, program: Program) -> None:
        self.program = program
        inside = {op.path: inner_kernels(op.layer, op.path) for op in program.operations}
        self.inner = {key: kernel for kernels in inside.values() for key, kernel in kernels.items()}
        self.scored = [op for op in program.operations if op.path in program.maps or inside[op.path]]

    def check(self, xs: Sequence[Tensor]) -> None:
        """See `Engine.check`: any input will do."""

    def refresh(self) -> None:
        """See `Engine.refresh`."""
        self.program.refresh()

    def objective(self, outputs: Sequence[Tensor], targets: BatchTargets) -> Tensor:
        """What is differentiated, per sample, (n,)."""
        if targets.targets.start == "squared_error":
            return per_sample(targets.relevance(outputs))
        return per_sample([tf.stop_gradient(part) * f for part, f in zip(targets.selection(outputs), outputs)])

    def step(self, xs: Sequence[Tensor], targets: BatchTargets, statistic: Statistic, references: Sequence[Tensor]) -> Step:
        """See `Engine.step`."""
        program = self.program
        xs = [tf.identity(x) for x in xs]
        tensors = program.forward(xs)
        objective = self.objective([tensors[key] for key in program.operations.outputs], targets)
        zs = [tensors[op.outputs[0]] for op in self.scored]
        found = _gradients(objective, [*zs, *xs])
        record = Record()
        for op, z, g in zip(self.scored, zs, found):
            record.add_channels(program.channels_key(op.path), z * g)
            linear = program.maps.get(op.path)
            if linear is not None:
                bias = None if linear.bias is None else linear.bias * over_positions(g)
                record.add_bias(program.channels_key(op.path), bias)
                record.add_shares(linear, [Share(linear.weight, [(tensors[op.inputs[0]], g)])])
        weights = {**record.weights(statistic), **self._inner_weights(xs, targets, statistic)}
        return Step(
            [tf.cast(x, g.dtype) * g for x, g in zip(xs, found[len(zs) :])], record.channels, record.biases, weights, objective
        )

    def _inner_weights(self, xs: Sequence[Tensor], targets: BatchTargets, statistic: Statistic) -> dict[str, Tensor]:
        """Kernels inside recurrent and attention layers: sample by sample, as only whole gradients exist for them."""
        if not self.inner:
            return {}
        program, names = self.program, list(self.inner)

        def one(n: Tensor) -> list[Tensor]:
            part = BatchTargets(targets.targets, [value[n : n + 1] for value in targets.values], targets.weights[n : n + 1])
            tensors = program.forward([x[n : n + 1] for x in xs])
            objective = self.objective([tensors[key] for key in program.operations.outputs], part)
            kernels = [self.inner[name] for name in names]
            return [kernel * g for kernel, g in zip(kernels, _gradients(objective, kernels))]

        kinds = [tf.float32] * len(names)
        stacked = tf.map_fn(one, tf.range(xs[0].shape[0]), fn_output_signature=kinds)
        return {name: reduce_samples(array, statistic) for name, array in zip(names, stacked)}


class Taylor(Gradient):
    """First-order change of the training loss when a weight or channel is removed: ``w dL/dw`` (Molchanov et al. 2017).

    arXiv 1611.06440, equation 6; L is the cross-entropy of the class, or half the squared error where there are no classes.
    """

    needs_values = True

    def objective(self, outputs: Sequence[Tensor], targets: BatchTargets) -> Tensor:
        """The loss per sample, (n,)."""
        return targets.loss(outputs)


class IntegratedGradients(Gradient):
    """Integrated gradients from the reference to the sample (Sundararajan et al. 2017, arXiv 1703.01365, equation 1).

    Inside the network the path integral is taken over the layer's own values (conductance, Dhamdhere et al. 2018,
    arXiv 1805.12233): channels get ``integral dF/dz dz`` and weights the part of it that comes through their own input,
    ``integral dF/dz_j w_ij dx_i``. Kernels inside recurrent and attention layers get no score. Ten steps, gradients in the
    middle of each. Inputs that are whole numbers choose, and do not change on the way.
    """

    compares = True
    steps = 10
    copies = 2 * steps + 1  # values at the ends and gradients in the middle of every step

    def step(self, xs: Sequence[Tensor], targets: BatchTargets, statistic: Statistic, references: Sequence[Tensor]) -> Step:
        """See `Engine.step`."""
        program, count = self.program, xs[0].shape[0]
        along = tf.tile(tf.linspace(0.0, 1.0, self.copies), [count])
        path = []
        for x, r in zip(xs, references):
            alpha = tf.reshape(along, (-1, *[1] * (x.shape.rank - 1)))
            xs_on_path = tf.repeat(x, self.copies, axis=0)
            path.append(r + alpha * (xs_on_path - r) if x.dtype.is_floating else xs_on_path)
        tensors = program.forward(path)
        outputs = [tensors[key] for key in program.operations.outputs]
        selected = [tf.repeat(part, self.copies, axis=0) for part in targets.selection([self._ends(f)[1] for f in outputs])]
        objective = per_sample([tf.stop_gradient(part) * f for part, f in zip(selected, outputs)])
        ops = [op for op in program.operations if op.path in program.maps]
        zs = [tensors[op.outputs[0]] for op in ops]
        found = _gradients(objective, [*zs, *path])
        record = Record()
        for op, z, g in zip(ops, zs, found):
            linear, slopes = program.maps[op.path], self._middles(g)
            pairs = list(zip(self._differences(tensors[op.inputs[0]]), slopes))
            moved = tf.add_n([dz * slope for dz, slope in zip(self._differences(z), slopes)])
            record.add_channels(program.channels_key(op.path), moved)
            record.add_shares(linear, [Share(linear.weight, pairs)], calls=self.steps)
        inputs = [
            tf.add_n([tf.cast(dx, g.dtype) * slope for dx, slope in zip(self._differences(x), self._middles(g))])
            for x, g in zip(path, found[len(zs) :])
        ]
        first, last = self._ends(objective)
        return Step(inputs, record.channels, record.biases, record.weights(statistic), last - first)

    def _unpacked(self, tensor: Tensor) -> list[Tensor]:
        shape = tensor.shape
        return tf.unstack(tf.reshape(tensor, (-1, self.copies, *shape[1:])), axis=1)

    def _ends(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        parts = self._unpacked(tensor)
        return parts[0], parts[-1]

    def _differences(self, tensor: Tensor) -> list[Tensor]:
        ends = self._unpacked(tensor)[::2]
        return [b - a for a, b in zip(ends, ends[1:])]

    def _middles(self, tensor: Tensor) -> list[Tensor]:
        return self._unpacked(tensor)[1::2]


def _gradients(objective: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    return gradients_among_floats([objective], tensors, [tf.ones_like(objective)])
