"""Which layers are handled, how, and by which engine: the one table that the code and docs/layers.md both come from.

``python -m keras_xaic.relevance.layer_table`` prints docs/layers.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Optional

from keras_xaic._keras import Layer, layers, tf
from keras_xaic.errors import ModelError
from keras_xaic.models.added_layers import ADDED, is_layer_scale
from keras_xaic.models.keras3_operations import COUNTERPARTS
from keras_xaic.models.operations import Operation, activation_name, symbol_of

Method = Literal["lrp", "deeplift", "innvestigate"]
"""Columns of the table."""


@dataclass(frozen=True)
class Row:
    """How one family of layers is handled.

    Attributes:
        how: Name of the treatment; the engines look it up.
        names: Layer classes, ``Activation(name)`` for activation functions, or symbols of operators (``math.add``).
        lrp: What LRP does.
        deeplift: What DeepLIFT does, or "" where there is no sound rule.
        innvestigate: What does it in the iNNvestigate engine: ``rule class``, ``shared`` (the same code as the native engine)
            or "" where that engine refuses.
    """

    how: str
    names: str
    lrp: str
    deeplift: str
    innvestigate: str


_ELEMENTWISE = (
    "relu relu6 leaky_relu elu selu gelu silu swish sigmoid hard_sigmoid tanh softplus softsign exponential hard_swish "
    "hard_tanh hard_shrink soft_shrink tanh_shrink log_sigmoid sparse_plus sparse_sigmoid squareplus mish linear"
)

TABLE: tuple[Row, ...] = (
    Row(
        "weighted",
        "Dense Conv1D Conv2D DepthwiseConv1D DepthwiseConv2D SeparableConv1D SeparableConv2D Conv1DTranspose Conv2DTranspose",
        "the chosen rule, with strides, dilation, groups and causal padding; separable convolutions as two layers",
        "linear rule; contributions of weights are w * dx * multiplier",
        "rule class",
    ),
    Row(
        "activation",
        "ReLU LeakyReLU PReLU ELU ThresholdedReLU nn.relu nn.relu6 nn.silu nn.gelu nn.elu nn.selu nn.leaky_relu math.sigmoid "
        "math.tanh math.softplus math.abs math.square math.sqrt math.negative clip_by_value "
        + " ".join(f"Activation({name})" for name in _ELEMENTWISE.split()),
        "relevance passes unchanged",
        "rescale or reveal-cancel",
        "shared",
    ),
    Row(
        "sum",
        "Add Subtract Average CustomScaleLayer math.add __operators__.add math.subtract math.add_n",
        "z-rule with the relative stabiliser: R x_i / sum; with a constant: unchanged",
        "linear rule",
        "rule class (Add), shared (others)",
    ),
    Row(
        "mean",
        "AveragePooling1D AveragePooling2D GlobalAveragePooling1D GlobalAveragePooling2D math.reduce_mean math.reduce_sum",
        "z-rule with the relative stabiliser",
        "linear rule",
        "rule class (pooling layers), shared (others)",
    ),
    Row(
        "winner",
        "MaxPooling1D MaxPooling2D GlobalMaxPooling1D GlobalMaxPooling2D Maximum Minimum math.reduce_max",
        "the winner takes all",
        "what changes goes to the winner now and the winner before",
        "shared",
    ),
    Row(
        "route",
        "Flatten Reshape Permute ZeroPadding1D ZeroPadding2D Cropping1D Cropping2D Concatenate RepeatVector UpSampling1D "
        "Masking reshape transpose concat expand_dims compat.v1.squeeze compat.v1.pad split stack unstack tile identity "
        "__operators__.getitem compat.v1.transpose nn.depth_to_space nn.space_to_depth squeeze pad repeat reverse roll",
        "relevance follows the values",
        "multipliers follow the values",
        "shared",
    ),
    Row("upsample", "UpSampling2D image.resize", "z-rule (nearest: follows the values)", "linear rule", "shared"),
    Row(
        "product",
        "Multiply math.multiply",
        "a gate (bounded or broadcast factor, as in squeeze-and-excitation) is a constant and the signal gets all; "
        "two ordinary signals share equally; with a constant: unchanged",
        "each factor gets the mean of the other over input and reference",
        "shared",
    ),
    Row(
        "scale",
        "Rescaling Normalization LayerScale math.truediv math.divide",
        "a change of units: unchanged",
        "linear rule (a divisor must be a constant)",
        "shared",
    ),
    Row(
        "affine",
        "BatchNormalization",
        "folded into the layer in front of it; where that is not possible z-rule, the offset takes its share",
        "linear rule",
        "shared",
    ),
    Row(
        "identity",
        "Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianNoise GaussianDropout AlphaDropout "
        "ActivityRegularization",
        "removed",
        "removed",
        "shared",
    ),
    Row(
        "layer_norm",
        "LayerNormalization",
        "the standard deviation is a constant, the rest is linear: epsilon rule (Ali et al. 2022)",
        "",
        "",
    ),
    Row(
        "attention",
        "MultiHeadAttention",
        "attention weights are constants, relevance goes through the values by the epsilon rule (Ali et al. 2022); "
        "query and key kernels get none",
        "",
        "",
    ),
    Row(
        "recurrent",
        "LSTM GRU SimpleRNN Bidirectional",
        "gates are constants, the epsilon rule in between (Arras et al. 2017); kernels of gates get none",
        "",
        "",
    ),
    Row("embedding", "Embedding", "each token gets the sum over its vector", "", ""),
)

_BY_NAME = {name: row for row in TABLE for name in row.names.split()}


def name_in_table(layer: Layer) -> str:
    """Returns what the table would call a layer: its class, ``Activation(function)``, or the symbol of an operator."""
    symbol = symbol_of(layer)
    if symbol is not None:
        return symbol
    if type(layer) is layers.Activation:
        function = layer.activation
        owner = type(getattr(function, "__self__", function)).__name__  # activations may be layers or their call methods
        return owner if owner in _BY_NAME else f"Activation({activation_name(layer) or 'linear'})"
    return type(layer).__name__


def _row(layer: Layer, name: str) -> Optional[Row]:
    """The row of a layer, or None where there is none. Subclasses of Keras layers may do anything and have none."""
    if symbol_of(layer) is None and type(layer) is not layers.Activation and not _of_keras(layer, name):
        return None
    return _BY_NAME.get(name)


def _of_keras(layer: Layer, name: str) -> bool:
    """Whether a layer is what Keras calls so, and not a class of a user's."""
    return type(layer) in (getattr(layers, name, None), ADDED.get(name)) or is_layer_scale(layer)


@dataclass(frozen=True)
class Treatment:
    """What the table says of one operation.

    Attributes:
        path: The layer's path.
        name: What the table would call the layer.
        row: Its row; None where there is none.
        unusual: What the call does beyond the usual of its layer, or "".
        chooses: Whether it gives whole numbers, yes and no (masks), or the same for every input: these have no relevance
            to pass on.
    """

    path: str
    name: str
    row: Optional[Row]
    unusual: str
    chooses: bool = False

    @classmethod
    def of(cls, operation: Operation) -> Treatment:
        """Looks an operation up."""
        name = name_in_table(operation.layer)
        row = _row(operation.layer, name)
        floats = any(tensor.dtype.is_floating for tensor in tf.nest.flatten(operation.node.outputs))
        chooses = not floats or name in ("zeros_like", "ones_like")
        return cls(operation.path, name, row, "" if row is None else _unusual(operation, row.how), chooses)

    @property
    def how(self) -> str:
        """Name of the treatment, ``"approximate"`` where there is no sound one."""
        return "approximate" if self.row is None or self.unusual else self.row.how

    def is_sound(self, method: Method) -> bool:
        """Whether a column of the table has a sound rule for it."""
        return self.chooses or (self.row is not None and bool(getattr(self.row, method)) and not self.unusual)


def _unusual(operation: Operation, how: str) -> str:
    """What a call does beyond the usual of its layer, or ""."""
    distinct = len(set(operation.inputs))
    if how == "scale" and distinct > 1:
        return " by a tensor"
    if how == "product" and distinct > 2:
        return f" of {distinct} tensors"
    if how == "recurrent":
        return _unusual_recurrence(operation)
    return ""


def _unusual_recurrence(operation: Operation) -> str:
    """What a recurrent layer does beyond a plain sequence in and outputs out, or ""."""
    layer = operation.layer
    inner = [layer.forward_layer, layer.backward_layer] if isinstance(layer, layers.Bidirectional) else [layer]
    if any(type(one) not in (layers.LSTM, layers.GRU, layers.SimpleRNN) for one in inner):
        return f" of {type(inner[0]).__name__}"
    if (len(operation.inputs) > 1 and operation.mask is None) or any(one.stateful or one.return_state for one in inner):
        return " with states going in or out"
    if len(inner) == 2 and layer.merge_mode not in ("concat", "sum", "ave"):
        return f" with merge_mode={layer.merge_mode!r}"
    return ""


def check_supported(treatments: Iterable[Treatment], method: Method, rule: str, allow_approximate: bool) -> tuple[str, ...]:
    """Refuses, before any work, what would not be the published quantity.

    Args:
        treatments: Of the operations of the canonical model.
        method: Column of the table.
        rule: What was asked for, for the message.
        allow_approximate: Accept a linearisation of such layers instead.

    Returns:
        Paths of the layers that are approximated.

    Raises:
        ModelError: Naming every layer concerned.
    """
    found = {one.path: one.name + one.unusual for one in treatments if not one.is_sound(method)}
    if found and not allow_approximate:
        named = ", ".join(f"{path} ({name})" for path, name in found.items())
        raise ModelError(
            f"{rule} has no sound rule for {len(found)} {'layer' if len(found) == 1 else 'layers'}: {named}",
            "layers of docs/layers.md",
            "Replace them; choose another {rule}; accept a linearisation, which is marked in every output: "
            "{allow_approximate=True}; leave out {strict}: a linearisation takes its place, and is marked in every output",
        )
    return tuple(found)


def as_markdown() -> str:
    """Returns docs/layers.md."""
    from keras_xaic.relevance.rules import RULES

    first = " and ".join(f"`{rule.name}`" for rule in RULES.values() if rule.first_layer)
    lines = [
        "# Layers",
        "",
        "Generated from `keras_xaic/relevance/layer_table.py` by",
        "`python -m keras_xaic.relevance.layer_table > docs/layers.md`.",
        "",
        "Nested models are opened, shared layers get the relevance of all their calls, models may have several inputs and",
        "outputs. Softmax and sigmoid at an output are removed: relevance starts from the logits.",
        "",
        "Layers and models of your own, subclasses of Keras' layers and `Lambda` layers are taken apart first, into the",
        "layers and operations that their `call` makes, and compressed like all others. In files they need `custom_objects`",
        "and `allow_unsafe`, because their code runs. That needs a `call` of Keras' layers and `keras.ops` (Keras 3) or",
        "functions of TensorFlow (Keras 2), which takes symbolic tensors and gives the same for the same input.",
        "",
        "What cannot be taken apart and is not in the table, a softmax inside the network and an",
        "unknown activation function are refused by name, before any work. With `allow_approximate=True`",
        "(`xaic explain` and `xaic compress` without `--strict`) they are linearised (relevance divided by the output, times",
        "the gradient, times the input) and marked in every output.",
        "",
        "`gradient_x_input`, `taylor` and `integrated_gradients` take every layer, `magnitude` looks at weights alone.",
        "",
        "Weighted layers that only compute gating factors (the dense layers of squeeze-and-excitation) get zero from LRP by",
        "construction; they are listed as gates. DeepLIFT and the gradient rules score them.",
        "",
        "## Stability",
        "",
        "The stabiliser of `lrp.epsilon` is relative to the mean |z| of the layer, sample by sample (default 1e-6). Where an",
        "addition brings two large values of opposite sign to a small sum, the z-rule divides by that sum: input relevance of",
        "residual networks is then large, of both signs, and follows the smallest change of its input. Measured on a ResNet-8",
        "for CIFAR-10 (128 test images, inputs changed by one part in 10,000; sums of absolute changes over sums of absolute",
        "values; total of |input relevance| for a start of 1):",
        "",
        "| rule | inputs change by | weights of the worst layer | total |",
        "|---|---|---|---|",
        "| `lrp.epsilon` (1e-6), `lrp.z` | 3.4 % | 1.4 % | 222 |",
        "| `lrp.epsilon:0.01` | 1.2 % | 0.5 % | 161 |",
        "| `lrp.epsilon:0.1` | 0.4 % | 0.06 % | 33 |",
        "| `lrp.gamma` (0.25) | 0.6 % | 0.08 % | 1.5 |",
        "| `lrp.z_plus` | 0.1 % | 0.08 % | 1.0 |",
        "| `lrp.epsilon_plus` | 3.4 % (median image 0.3 %) | 3.9 % | 2.6 |",
        "| `lrp.alpha_2_beta_1` | 13 % (median image 0.8 %) | 13 % | 3.1 |",
        "| `lrp.flat` in every layer | 91 % | 84 % | 4.6 |",
        "",
        "For stable pictures take `lrp.z_plus`, `lrp.gamma` or `lrp.epsilon:0.1`; for ranking weights and filters over many",
        "samples the default is stable enough. Additions, averages, attention and recurrent layers take the stabiliser of the",
        'last epsilon rule of a composite: `{"dense": "lrp.epsilon:0.1", "*": "lrp.z_plus"}` damps them, too.',
        f"{first} are meant for the first layer. Native",
        "and iNNvestigate engine agree to 5e-7 of each layer's largest relevance on that network, inputs included.",
        "",
        "## Table",
        "",
        "| layers | LRP | DeepLIFT | iNNvestigate engine |",
        "|---|---|---|---|",
    ]
    for row in TABLE:
        names = ", ".join(f"`{name}`" for name in row.names.split())
        lines.append(f"| {names} | {row.lrp} | {row.deeplift or 'refused'} | {row.innvestigate or 'refused'} |")
    operations = ", ".join(f"`{kind}`" for kind in sorted(COUNTERPARTS))
    lines += [
        "",
        "## Models of Keras 3",
        "",
        "They are rebuilt with Keras 2. Of the layers that Keras 2 has not, augmentation is left out, spectral normalization",
        "and LoRA are in the kernels that training left, and `RMSNormalization` is rebuilt; others, such as `MelSpectrogram`,",
        "are refused by name.",
        "",
        f"Operations that have a counterpart (`keras.ops`, `a + b`, `x[:, 0]`): {operations}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(as_markdown())
