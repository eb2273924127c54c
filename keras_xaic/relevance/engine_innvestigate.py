"""LRP by iNNvestigate's own rule classes (Alber et al. 2019), called on the canonical clone.

The classes are built eagerly and applied inside a `tf.function`: no graph mode, no change to Keras. What the library gets
wrong on raw models (BatchNorm, saturated ReLU6, nested models, operators) does not reach it: the clone has none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from innvestigate.analyzer.relevance_based import relevance_analyzer, relevance_rule

from keras_xaic._keras import Layer, Tensor, layers, tf
from keras_xaic.errors import ModelError
from keras_xaic.models.operations import Operation
from keras_xaic.relevance.composites import Composite
from keras_xaic.relevance.engine import Record
from keras_xaic.relevance.engine_native import NativeEngine
from keras_xaic.relevance.layer_table import Method
from keras_xaic.relevance.program import Program
from keras_xaic.relevance.rules import (
    Alpha1Beta0,
    Alpha2Beta1,
    Epsilon,
    Flat,
    Rule,
    WSquare,
    Z,
    ZBox,
    ZPlus,
    divide,
    stabilised,
)

_POOLS = (
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
)


class InnvestigateEngine(NativeEngine):
    """The same passes as the native engine; weighted layers, additions and average pools go through iNNvestigate.

    It has no rule for relevance of weights: that follows from the relevance of the layer's output by the rule's formula.

    Args:
        program: The model.
        composite: Which rule each weighted layer gets.
        allow_approximate: Linearise what has no sound rule instead of refusing it.

    Raises:
        ModelError: Naming every layer that it cannot treat.
    """

    column: Method = "innvestigate"

    def __init__(self, program: Program, composite: Composite, allow_approximate: bool = False) -> None:
        super().__init__(program, composite, allow_approximate)
        self.refresh_rules()

    def refresh(self) -> None:
        """Takes over the present weights; the rule objects hold copies of them."""
        super().refresh()
        self.refresh_rules()

    def refresh_rules(self) -> None:
        """Builds the rule objects."""
        self.reverse: dict[str, Any] = {}
        for operation in self.program.operations:
            layer, path = operation.layer, operation.path
            if path in self.rules:
                self.reverse[path] = _rule_object(self.rules[path], layer, path)
            elif type(layer) is layers.Add:
                self.reverse[path] = relevance_analyzer.AddReverseLayer(layer, {})
            elif type(layer) in _POOLS:
                self.reverse[path] = relevance_analyzer.AveragePoolingReverseLayer(layer, {})

    def through_weights(self, operation: Operation, tensors: Mapping[str, Tensor], relevance: Tensor, record: Record) -> Tensor:
        """Relevance of the input by iNNvestigate, of the weights by the rule's formula."""
        super().through_weights(operation, tensors, relevance, record)
        x, z = tensors[operation.inputs[0]], tensors[operation.outputs[0]]
        return self.reverse[operation.path].apply([x], [z], [relevance], {})[0]

    def through_plain(
        self, operation: Operation, tensors: Mapping[str, Tensor], relevances: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Additions and average pools by iNNvestigate, the rest as in the native engine."""
        reverse = self.reverse.get(operation.path)
        if reverse is None or len(set(operation.inputs)) < len(operation.inputs):
            return super().through_plain(operation, tensors, relevances)
        xs, y = [tensors[key] for key in operation.inputs], tensors[operation.outputs[0]]
        damped = relevances[0] * divide(y, stabilised(y, self.epsilon))  # its sums divide by y without a stabiliser
        below = reverse.apply(xs, [y], [damped], {})
        return dict(zip(operation.inputs, below))


class _RelativeEpsilonRule(relevance_rule.EpsilonRule):
    """iNNvestigate's epsilon rule with the stabiliser relative to the mean |z| of each sample, as in `rules.Epsilon`."""

    def __init__(self, layer: Layer, relative: float) -> None:
        super().__init__(layer, {}, epsilon=1.0)
        self._relative = relative

    def apply(self, Xs: Any, Ys: Any, Rs: Any, reverse_state: Any) -> Any:
        """Sets the stabiliser for these inputs, then applies the rule."""
        z = self._layer_wo_act(Xs[0])
        self._epsilon = self._relative * tf.reduce_mean(tf.abs(z), axis=tuple(range(1, z.shape.rank)), keepdims=True)
        return super().apply(Xs, Ys, Rs, reverse_state)


_RULE_CLASSES: dict[type[Rule], Callable[[Any, Any], Any]] = {
    Epsilon: lambda rule, layer: _RelativeEpsilonRule(layer, rule.epsilon) if rule.epsilon else relevance_rule.ZRule(layer, {}),
    Z: lambda rule, layer: relevance_rule.ZRule(layer, {}),
    ZPlus: lambda rule, layer: relevance_rule.ZPlusRule(layer, {}),
    Alpha1Beta0: lambda rule, layer: relevance_rule.ZPlusRule(layer, {}),
    Alpha2Beta1: lambda rule, layer: relevance_rule.Alpha2Beta1IgnoreBiasRule(layer, {}),
    Flat: lambda rule, layer: relevance_rule.FlatRule(layer, {}),
    WSquare: lambda rule, layer: relevance_rule.WSquareRule(layer, {}),
    ZBox: lambda rule, layer: relevance_rule.BoundedRule(layer, {}, low=rule.low, high=rule.high),
}
"""Rule -> the library's object for a layer."""


def _rule_object(rule: Rule, layer: Layer, path: str) -> Any:
    per_channel = isinstance(rule, ZBox) and not (isinstance(rule.low, float) and isinstance(rule.high, float))
    if type(rule) not in _RULE_CLASSES or per_channel:
        raise ModelError(
            f"iNNvestigate has no rule {rule.name}{' with bounds per channel' if per_channel else ''} (layer {path!r})",
            f"one of {', '.join(one.name for one in _RULE_CLASSES)}",
            "Use {engine=native}",
        )
    return _RULE_CLASSES[type(rule)](rule, layer)
