"""Operations of Keras 3 (``keras.ops``, ``a + b``, ``x[:, 0]``): which function of TensorFlow, or layer, computes each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Callable, Optional

from keras_xaic.errors import ModelError
from keras_xaic.models.activations import of_keras2

Shapes = Sequence[Sequence[Optional[int]]]
Settings = Mapping[str, Any]

_ELEMENTWISE = {
    "Absolute": "math.abs",
    "Abs": "math.abs",
    "Ceil": "math.ceil",
    "Cos": "math.cos",
    "Erf": "math.erf",
    "Exp": "math.exp",
    "Expm1": "math.expm1",
    "Floor": "math.floor",
    "Log": "math.log",
    "Log1p": "math.log1p",
    "LogicalNot": "math.logical_not",
    "LogSigmoid": "math.log_sigmoid",
    "Negative": "math.negative",
    "Reciprocal": "math.reciprocal",
    "Relu": "nn.relu",
    "Relu6": "nn.relu6",
    "Rsqrt": "math.rsqrt",
    "Selu": "nn.selu",
    "Sigmoid": "math.sigmoid",
    "Sign": "math.sign",
    "Silu": "nn.silu",
    "Sin": "math.sin",
    "Softplus": "math.softplus",
    "Sqrt": "math.sqrt",
    "Square": "math.square",
    "StopGradient": "stop_gradient",
    "Tanh": "math.tanh",
    "Copy": "identity",
}
_OF_TWO = {
    "Add": "math.add",
    "Arctan2": "math.atan2",
    "Divide": "math.truediv",
    "DivideNoNan": "math.divide_no_nan",
    "Equal": "math.equal",
    "FloorDivide": "math.floordiv",
    "Greater": "math.greater",
    "GreaterEqual": "math.greater_equal",
    "Less": "math.less",
    "LessEqual": "math.less_equal",
    "LogicalAnd": "math.logical_and",
    "LogicalOr": "math.logical_or",
    "Maximum": "math.maximum",
    "Minimum": "math.minimum",
    "Mod": "math.floormod",
    "Multiply": "math.multiply",
    "NotEqual": "math.not_equal",
    "Power": "math.pow",
    "Subtract": "math.subtract",
    "TrueDivide": "math.truediv",
}
_REDUCTIONS = {
    "All": "math.reduce_all",
    "Amax": "math.reduce_max",
    "Amin": "math.reduce_min",
    "Any": "math.reduce_any",
    "Logsumexp": "math.reduce_logsumexp",
    "Max": "math.reduce_max",
    "Mean": "math.reduce_mean",
    "Min": "math.reduce_min",
    "Prod": "math.reduce_prod",
    "Std": "math.reduce_std",
    "Sum": "math.reduce_sum",
    "Var": "math.reduce_variance",
}
_FLOATS = ("float16", "bfloat16", "float64")


@dataclass(frozen=True)
class Counterpart:
    """What computes an operation.

    Attributes:
        function: Symbol of a function of TensorFlow, or the class of a layer (``{}``: as many as the tensor has axes between
            batch and channels).
        is_layer: Which of the two.
        names: What the function calls what is given behind the first tensor.
        settings: Settings of the operation -> what the function or the layer calls them.
        made: Arguments that are made from settings and the shapes of the tensors. It reads what `reads` names.
        reads: Settings that `made` reads.
        only: Other settings -> values with which nothing is lost without them; None and False are always such.
        fixed: Arguments that are always the same.
    """

    function: str
    is_layer: bool = False
    names: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    made: Optional[Callable[[Settings, Shapes], dict[str, Any]]] = None
    reads: tuple[str, ...] = ()
    only: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def check(self, settings: Settings, what: str) -> None:
        """Refuses an operation without the settings that say what it does, or with others: it would compute something else.

        Raises:
            ModelError: Naming the operation (`what`) and the setting.
        """
        known = {*self.settings, *self.reads}
        for key in sorted(known - set(settings)):
            raise ModelError(f"{what} does not say its {key}", "", "Save the model again with a newer Keras")
        for key, value in settings.items():
            if key not in known and key != "name" and value not in (None, False, self.only.get(key)):
                raise ModelError(
                    f"{what} has {key}={value!r}, which has no counterpart here", "no other settings", "Leave it out"
                )

    def check_call(self, given: Sequence[Any], named: Settings, what: str) -> None:
        """Refuses a call with arguments, by place or by name, that the function does not take.

        Raises:
            ModelError: Naming the operation (`what`) and the argument.
        """
        more = [] if self.is_layer else [repr(one) for one in given[1 + len(self.names) :] if one is not None]
        for key in [*more, *sorted(set(named) - set(self.names))]:
            raise ModelError(f"{what} is called with {key}, which has no counterpart here", "no such argument", "Leave it out")

    def arguments(self, settings: Settings, shapes: Shapes) -> dict[str, Any]:
        """Returns named arguments of the function, or settings of the layer.

        Args:
            settings: Of the operation.
            shapes: Of the tensors of a call, in their order; None where a size is not known.
        """
        given = {self.settings[key]: value for key, value in settings.items() if key in self.settings and value is not None}
        return {**given, **(self.made(settings, shapes) if self.made else {}), **self.fixed}

    def class_of(self, shapes: Shapes) -> str:
        """Returns the class of the layer for tensors of such shapes."""
        return self.function.format(len(shapes[0]) - 2)


def counterpart_of(kind: str, what: str) -> Counterpart:
    """Returns what computes the operation `kind` of Keras 3.

    Raises:
        ModelError: If nothing here does, naming the operation (`what`).

    Example:
        >>> counterpart_of("Swapaxes", "the operation").arguments({"axis1": 1, "axis2": -1}, [(None, 4, 8)])
        {'perm': [0, 2, 1]}
    """
    if kind not in COUNTERPARTS:
        raise ModelError(
            f"{what} is the operation {kind} of Keras 3, which has no counterpart here",
            "layers, or operations such as " + ", ".join(get_close_matches(kind, COUNTERPARTS, 4, 0.0)),
            "Use a layer or operations of the same effect and save the model again",
        )
    return COUNTERPARTS[kind]


def _two_swapped(settings: Settings, shapes: Shapes) -> dict[str, Any]:
    order = list(range(len(shapes[0])))
    one, other = settings["axis1"], settings["axis2"]
    order[one], order[other] = order[other], order[one]
    return {"perm": order}


def _moved(settings: Settings, shapes: Shapes) -> dict[str, Any]:
    rank = len(shapes[0])
    sources, targets = ([axis % rank for axis in _listed(settings[key])] for key in ("source", "destination"))
    order = [axis for axis in range(rank) if axis not in sources]
    for target, source in sorted(zip(targets, sources)):
        order.insert(target, source)
    return {"perm": order}


def _parts(settings: Settings, shapes: Shapes) -> dict[str, Any]:
    where = settings["indices_or_sections"]
    if isinstance(where, int):
        return {"num_or_size_splits": where}
    whole = shapes[0][settings["axis"]]
    if whole is None:
        raise ModelError(f"an operation splits an axis of unknown length at {where}", "a length")
    borders = [0, *(one % whole if one < 0 else min(one, whole) for one in where), whole]
    return {"num_or_size_splits": [end - start for start, end in zip(borders, borders[1:])]}


def _padding(settings: Settings, shapes: Shapes) -> dict[str, Any]:
    return {"paddings": settings["pad_width"], "mode": settings["mode"].upper()}


def _norm(settings: Settings, shapes: Shapes) -> dict[str, Any]:
    return {"ord": "euclidean" if settings["ord"] in (None, 2) else settings["ord"]}


def _smallest_norm(settings: Settings, shapes: Shapes) -> dict[str, Any]:
    # Keras 3 divides by no norm below `epsilon`, TensorFlow by no square of a norm below its own.
    return {"epsilon": (settings["epsilon"] or 1e-7) ** 2}


def _axes(settings: Settings, shapes: Shapes) -> dict[str, Any]:
    axis = settings["axis"]
    return {"axis": list(range(len(shapes[0]))) if axis is None else _listed(axis)}


def _type(settings: Settings, shapes: Shapes) -> dict[str, Any]:
    dtype = settings["dtype"]
    return {"dtype": "float32" if dtype in _FLOATS else dtype or "float32"}


def _own_type(settings: Settings, shapes: Shapes) -> dict[str, Any]:
    return {} if settings["dtype"] is None else _type(settings, shapes)


def _convolved(settings: Settings, shapes: Shapes) -> dict[str, Any]:
    count = len(shapes[0]) - 2
    strides, rates = (
        count * [one] if isinstance(one := settings[key], int) else list(one) for key in ("strides", "dilation_rate")
    )
    return {"strides": strides, "dilations": rates, "padding": settings["padding"].upper()}


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _function(function: str, settings: str = "", names: str = "", reads: str = "", **more: Any) -> Counterpart:
    """A function; settings as ``"theirs=ours same"``."""
    pairs = {one.partition("=")[0]: one.rpartition("=")[2] for one in settings.split()}
    return Counterpart(function, names=tuple(names.split()), settings=pairs, reads=tuple(reads.split()), **more)


def _layer(kind: str, settings: str = "", **more: Any) -> Counterpart:
    return _function(kind, settings, is_layer=True, **more)


def _activation(name: str, **more: Any) -> Counterpart:
    return _layer("Activation", fixed={"activation": of_keras2(name)}, **more)


_POOL: dict[str, Any] = {"settings": "pool_size strides padding", "only": {"data_format": "channels_last"}}
COUNTERPARTS: dict[str, Counterpart] = {
    **{kind: _function(function) for kind, function in _ELEMENTWISE.items()},
    **{kind: _function(function, names="y") for kind, function in _OF_TWO.items()},
    **{kind: _function(function, "axis keepdims") for kind, function in _REDUCTIONS.items()},
    "Argmax": _function("math.argmax", "axis", fixed={"output_type": "int32"}),
    "Argmin": _function("math.argmin", "axis", fixed={"output_type": "int32"}),
    "Average": _function("math.reduce_mean", "axis"),
    "AveragePool": _layer("AveragePooling{}D", **_POOL),
    "Cast": _function("cast", reads="dtype", made=_type),
    "Celu": _activation("elu", only={"alpha": 1.0}),
    "Clip": _function("clip_by_value", "x_min=clip_value_min x_max=clip_value_max"),
    "Concatenate": _layer("Concatenate", "axis"),
    "ConvertToTensor": _function("identity"),
    "Conv": _function(
        "nn.convolution",
        names="filters",
        reads="strides padding dilation_rate",
        made=_convolved,
        only={"data_format": "channels_last"},
    ),
    "Cumsum": _function("math.cumsum", "axis"),
    "DepthToSpace": _function("nn.depth_to_space", "block_size", only={"data_format": "channels_last"}),
    "Einsum": _layer("Einsum", "subscripts"),
    "Elu": _layer("ELU", "alpha"),
    "ExpandDims": _function("expand_dims", "axis"),
    "Flip": _function("reverse", reads="axis", made=_axes),
    "Gelu": _function("nn.gelu", "approximate"),
    "GetItem": _function("__operators__.getitem", names="slice_spec"),
    "HardShrink": _activation("hard_shrink", only={"threshold": 0.5}),
    "HardSigmoid": _activation("hard_sigmoid"),
    "HardSilu": _activation("hard_silu"),
    "HardTanh": _activation("hard_tanh"),
    "LeakyRelu": _layer("LeakyReLU", "negative_slope=alpha"),
    "LogSoftmax": _function("nn.log_softmax", "axis"),
    "Matmul": _function("linalg.matmul", names="b"),
    "MaxPool": _layer("MaxPooling{}D", **_POOL),
    "Moveaxis": _function("transpose", reads="source destination", made=_moved),
    "Norm": _function("norm", "axis keepdims", reads="ord", made=_norm),
    "Normalize": _function("math.l2_normalize", "axis", reads="epsilon", made=_smallest_norm, only={"order": 2}),
    "OneHot": _function("one_hot", "num_classes=depth axis", reads="dtype", made=_type),
    "OnesLike": _function("ones_like", reads="dtype", made=_own_type),
    "Pad": _function("pad", names="constant_values", reads="pad_width mode", made=_padding),
    "RGBToGrayscale": _function("image.rgb_to_grayscale", only={"data_format": "channels_last"}),
    "Repeat": _function("repeat", "repeats axis"),
    "Reshape": _function("reshape", "newshape=shape"),
    "Resize": _function(
        "image.resize",
        "size interpolation=method",
        only={"data_format": "channels_last", "fill_mode": "constant", "fill_value": 0.0},
    ),
    "Roll": _function("roll", "shift axis"),
    "Round": _function("math.round", only={"decimals": 0}),
    "SoftShrink": _activation("soft_shrink", only={"threshold": 0.5}),
    "Softmax": _layer("Softmax", "axis"),
    "Softsign": _activation("softsign"),
    "SpaceToDepth": _function("nn.space_to_depth", "block_size", only={"data_format": "channels_last"}),
    "SparsePlus": _activation("sparse_plus"),
    "SparseSigmoid": _activation("sparse_sigmoid"),
    "Split": _function("split", "axis", reads="indices_or_sections", made=_parts),
    "Squareplus": _activation("squareplus", only={"b": 4}),
    "Squeeze": _function("squeeze", "axis"),
    "Stack": _function("stack", "axis"),
    "Swapaxes": _function("transpose", reads="axis1 axis2", made=_two_swapped),
    "Take": _function("gather", "axis", names="indices"),
    "TanhShrink": _activation("tanh_shrink"),
    "Tensordot": _function("tensordot", "axes", names="b"),
    "Tile": _function("tile", "repeats=multiples"),
    "TopK": _function("math.top_k", "k sorted"),
    "Transpose": _function("transpose", "axes=perm"),
    "Unstack": _function("unstack", "num axis"),
    "Where": _function("where", names="x y"),
    "ZerosLike": _function("zeros_like", reads="dtype", made=_own_type),
}
"""Operation of Keras 3 -> what computes it."""
