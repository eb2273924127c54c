"""A model laid out for attribution: canonical, its weighted layers found, ready to run forward and be walked backward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keras_xaic._keras import Model, Tensor, layers, tf
from keras_xaic.models.canonical import Canonical, canonicalize
from keras_xaic.models.kernels import Kernel, kernels_in, layer_kernels
from keras_xaic.models.masking import mask_of, with_mask
from keras_xaic.models.operations import Operation, Operations, symbol_of
from keras_xaic.relevance.composites import THIRDS, LayerKind
from keras_xaic.relevance.layer_table import Treatment
from keras_xaic.relevance.linear import LinearMap, linear_map

Environment = dict[str, Tensor]

_NONNEGATIVE = ("relu", "relu6", "sigmoid", "hard_sigmoid", "softplus", "exponential", "softmax")
_NONNEGATIVE_NAMES = {f"Activation({name})" for name in _NONNEGATIVE} | {"nn.relu", "nn.relu6", "math.sigmoid"}
_KEEPS_SIGN = ("winner", "mean", "identity")
_KEEPS_SIGN_NAMES = (
    "Flatten",
    "Reshape",
    "Permute",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "Add",
    "Average",
    "Concatenate",
    "math.add",
)


class Program:
    """The canonical model of attribution.

    Args:
        model: The user's model.

    Attributes:
        canonical: The clone without output softmax, activations separate.
        operations: Its operations.
        treatments: What the table of layers says of each operation.
        how: How each operation is treated, by its name (see `Treatment.how`).
        called: What the table calls each operation, by its name.
        maps: Linear map of every dense and convolution layer, by path.
        kernels: The user's kernels by weight key.
    """

    def __init__(self, model: Model) -> None:
        self.user_model = model
        self.canonical: Canonical = canonicalize(model, keep_output_activation=False, separate_activations=True)
        self.operations = Operations(self.canonical.model)
        self.kernels: dict[str, Kernel] = {kernel.key: kernel for kernel in kernels_in(self.canonical.operations)}
        self.treatments = [Treatment.of(operation) for operation in self.operations]
        treated = [(operation.name, one) for operation, one in zip(self.operations, self.treatments)]
        self.how = {name: one.how for name, one in treated}
        self.called = {name: one.name for name, one in treated}
        inside = {operation.path: layer_kernels(operation.layer, operation.path) for operation in self.operations}
        self.maps: dict[str, LinearMap] = {}
        for operation in self.operations:
            if self.how[operation.name] == "weighted":
                self.maps[operation.path] = linear_map(inside[operation.path][0])
        self.first = self._first_layers(inside)
        self.nonnegative = self._nonnegative()

    def forward(self, xs: Sequence[Tensor]) -> Environment:
        """Returns all tensors by key; outputs of weighted layers are before any activation."""
        tensors: Environment = dict(zip(self.operations.inputs, xs))
        for operation in self.operations:
            tensors.update(zip(operation.outputs, self.run(operation, tensors)))
        return tensors

    def run(self, operation: Operation, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Runs one operation; weighted layers through their linear maps, which have gradients where Keras has none on a CPU."""
        linear = self.maps.get(operation.path)
        if linear is None:
            return operation.call(tensors)
        x = tensors[operation.inputs[0]]
        shape = self.operations.shapes[operation.outputs[0]]
        if None in shape[1:]:  # free image sizes
            shape = tuple(operation.layer.compute_output_shape(x.shape))
        y = linear(x, linear.weight, tf.zeros((1, *shape[1:])))
        y = y if linear.bias is None else y + linear.bias
        return (with_mask(y, operation.layer.compute_mask(x, mask_of(x))),)

    def refresh(self) -> None:
        """Takes over the present weights of the user's model."""
        again = canonicalize(self.user_model, keep_output_activation=False, separate_activations=True)
        self.canonical.model.set_weights(again.model.get_weights())

    def channels_key(self, path: str) -> str:
        """Under which name the output channels of a weighted layer are reported: the user's layer, or a weight key."""
        kernel = self.kernels.get(path)
        return kernel.path if kernel is not None and kernel.attribute != "depthwise_kernel" else path

    def kind(self, path: str) -> LayerKind:
        """Kind of a weighted layer, as composites name it."""
        kernel = self.kernels.get(path)
        return kernel.kind if kernel is not None else self.maps[path].kernel.kind

    def thirds(self) -> dict[str, str]:
        """Returns which third of the depth the convolutions lie in; where there are none, the dense layers."""
        deep = [path for path in self.maps if self.kind(path) != "dense"] or list(self.maps)
        return {path: THIRDS[len(THIRDS) * number // len(deep)] for number, path in enumerate(deep)}

    def _first_layers(self, inside: Mapping[str, Sequence[Kernel]]) -> set[str]:
        """Weighted layers that see an input of the model through no other weighted layer."""
        seen, first = set(self.operations.inputs), set()
        for operation in self.operations:
            if not any(key in seen for key in operation.inputs):
                continue
            if operation.path in self.maps:
                first.add(operation.path)
            elif not inside[operation.path]:
                seen.update(operation.outputs)
        return first

    def _nonnegative(self) -> set[str]:
        """Keys of tensors that cannot be negative."""
        found: set[str] = set()
        for operation in self.operations:
            how, name = self.how[operation.name], self.called[operation.name]
            plain_relu = isinstance(operation.layer, layers.ReLU) and not operation.layer.negative_slope
            keeps = how in _KEEPS_SIGN or name in _KEEPS_SIGN_NAMES
            constants = symbol_of(operation.layer) is not None and len(operation.inputs) < 2
            inputs_are = all(key in found for key in operation.inputs) and not constants
            if name in _NONNEGATIVE_NAMES or plain_relu or (keeps and inputs_are):
                found.update(operation.outputs)
        return found
