"""LRP in one forward and one backward pass over the canonical model, with the relevance of inputs, channels and weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_xaic._keras import Tensor, tf
from keras_xaic.errors import DataError
from keras_xaic.models.operations import Operation
from keras_xaic.relevance.attention import attention_relevance
from keras_xaic.relevance.composites import Composite
from keras_xaic.relevance.engine import Record, Step, per_sample
from keras_xaic.relevance.layer_table import Method, check_supported
from keras_xaic.relevance.program import Program
from keras_xaic.relevance.propagation import find_gates, propagate
from keras_xaic.relevance.recurrent import recurrent_relevance
from keras_xaic.relevance.rules import EPSILON, Call, Epsilon, Rule, ZBox
from keras_xaic.relevance.targets import BatchTargets

if TYPE_CHECKING:
    from keras_xaic.relevance.choices import Statistic


class NativeEngine:
    """The native LRP engine.

    Args:
        program: The model.
        composite: Which rule each weighted layer gets.
        allow_approximate: Linearise what has no sound rule instead of refusing it.

    Raises:
        ModelError: Naming every layer without a sound rule.
    """

    column: Method = "lrp"
    compares = False
    needs_values = False
    copies = 1

    def __init__(self, program: Program, composite: Composite, allow_approximate: bool = False) -> None:
        self.program, self.composite = program, composite
        self.approximate = check_supported(program.treatments, self.column, composite.name, allow_approximate)
        thirds = program.thirds()
        self.rules: dict[str, Rule] = {
            path: composite.rule_for(path, program.kind(path), path in program.first, thirds.get(path, ""))
            for path in program.maps
        }
        self.epsilon = self._common_epsilon()
        self.gates = _steering_only(program)

    def _common_epsilon(self) -> float:
        """The stabiliser of sums, attention and recurrent layers: that of the composite's last epsilon rule."""
        found = [rule.epsilon for _, rule in self.composite.choices if isinstance(rule, Epsilon)]
        return found[-1] if found else EPSILON

    def step(self, xs: Sequence[Tensor], targets: BatchTargets, statistic: Statistic, references: Sequence[Tensor]) -> Step:
        """See `Engine.step`."""
        operations = self.program.operations
        tensors = self.program.forward(xs)
        starts = targets.relevance([tensors[key] for key in operations.outputs])
        arrived: dict[str, list[Tensor]] = defaultdict(list)
        for key, relevance in zip(operations.outputs, starts):
            arrived[key].append(relevance)
        record = Record()
        for operation in reversed(list(operations)):
            if not any(key in arrived for key in operation.outputs):
                continue
            outputs = operation.outputs
            relevances = [tf.add_n(arrived[k]) if k in arrived else tf.zeros_like(tensors[k], tf.float32) for k in outputs]
            for key, relevance in self.back(operation, tensors, relevances, record).items():
                arrived[key].append(relevance)
        inputs = [tf.add_n(arrived[k]) if k in arrived else tf.zeros_like(tensors[k], tf.float32) for k in operations.inputs]
        return Step(inputs, record.channels, record.biases, record.weights(statistic), per_sample(starts))

    def check(self, xs: Sequence[Tensor]) -> None:
        """Checks that inputs lie within the bounds of `ZBox` rules.

        Args:
            xs: The model's inputs, some samples.

        Raises:
            DataError: If they do not.
        """
        boxes = {path: rule for path, rule in self.rules.items() if isinstance(rule, ZBox)}
        tensors = self.program.forward(xs) if boxes else {}
        for operation in self.program.operations:
            box = boxes.get(operation.path)
            if box is None:
                continue
            seen = tensors[operation.inputs[0]].numpy()
            wrong = {np.size(bound) for bound in (box.low, box.high)} - {1, seen.shape[-1]}
            if wrong:
                raise DataError(
                    f"lrp.z_box has {max(wrong)} bounds for layer {operation.path!r}",
                    f"one, or {seen.shape[-1]}, one per channel of its inputs",
                )
            if np.any(seen < np.asarray(box.low) - 1e-6) or np.any(seen > np.asarray(box.high) + 1e-6):
                low, high = float(seen.min()), float(seen.max())
                raise DataError(
                    f"inputs of layer {operation.path!r} reach from {low:g} to {high:g}",
                    f"values within the bounds of lrp.z_box, {box.low} to {box.high}",
                    f"Give the bounds, for example {{rule=lrp.z_box:{np.floor(low):g},{np.ceil(high):g}}}",
                )

    def refresh(self) -> None:
        """See `Engine.refresh`."""
        self.program.refresh()

    def back(
        self, operation: Operation, tensors: Mapping[str, Tensor], relevances: Sequence[Tensor], record: Record
    ) -> dict[str, Tensor]:
        """Takes relevance through one operation; returns that of its inputs, by key, and records that of its weights."""
        how = self.program.how[operation.name]
        if how == "weighted":
            return {operation.inputs[0]: self.through_weights(operation, tensors, relevances[0], record)}
        if how == "attention":
            record.add_channels(operation.path, relevances[0])
            return attention_relevance(operation, tensors, relevances[0], record, self.epsilon)
        if how == "recurrent":
            record.add_channels(operation.path, relevances[0])
            return recurrent_relevance(operation, tensors, relevances[0], record, self.epsilon)
        return self.through_plain(operation, tensors, relevances)

    def through_weights(self, operation: Operation, tensors: Mapping[str, Tensor], relevance: Tensor, record: Record) -> Tensor:
        """Takes relevance through a weighted layer by its rule."""
        linear = self.program.maps[operation.path]
        x, z = tensors[operation.inputs[0]], tensors[operation.outputs[0]]
        call = Call(linear, tf.identity(x), linear.weight, z, operation.inputs[0] in self.program.nonnegative)
        propagated, name = self.rules[operation.path].apply(call, relevance), self.program.channels_key(operation.path)
        record.add_channels(name, relevance)
        record.add_bias(name, propagated.bias)
        record.add_shares(linear, propagated.shares)
        return propagated.below

    def through_plain(
        self, operation: Operation, tensors: Mapping[str, Tensor], relevances: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Takes relevance through an operation without weights."""
        return propagate(operation, self.program, tensors, relevances, self.epsilon)


def _steering_only(program: Program) -> tuple[str, ...]:
    """Paths of weighted layers that only compute gates: they get no relevance by construction, whatever they matter."""
    reached = set(program.operations.outputs)
    steering = []
    for operation in reversed(list(program.operations)):
        if not any(key in reached for key in operation.outputs):
            if operation.path in program.maps:
                steering.append(operation.path)
            continue
        keys = list(dict.fromkeys(operation.inputs))
        if program.how[operation.name] == "product" and len(keys) > 1:
            gates = find_gates(operation, program)
            keys = [key for key, gate in zip(keys, gates) if not gate or all(gates)]
        reached.update(keys)
    return tuple(path for path in program.maps if path in steering)
