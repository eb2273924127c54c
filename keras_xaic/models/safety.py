"""What a model file would run when it is loaded: found in its configuration, before anything is built from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Optional

from keras_xaic._keras import keras, layers
from keras_xaic.errors import ModelError
from keras_xaic.models.activations import ACTIVATIONS, WITHOUT_COUNTERPART, of_keras2
from keras_xaic.models.keras3_layers import KNOWN, refuse_quantized

_MODELS = {"Functional", "Model", "Sequential"}
_OPERATION_LAYERS = {"TFOpLambda", "SlicingOpLambda"}
FOR_TRAINING = {"AddLoss", "AddMetric"}
"""Layers that `Model.add_loss` and `Model.add_metric` leave beside the graph."""
_BUILT_IN_ELSEWHERE = (
    _MODELS | _OPERATION_LAYERS | FOR_TRAINING | {"InputLayer", "BatchNormalizationV1", "BatchNormalizationV2"}
)
_PLAIN_LAYERS = {"Discretization", "HashedCrossing", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"}
"""Layers of Keras 3 whose settings do not say that they are layers."""
_OF_LAYERS = {"trainable", "layers", "batch_shape", "batch_input_shape"}
# Keras imports whatever module a configuration names; these are the ones that hold layers and their parts.
_CLASS_MODULES = re.compile(
    r"(keras|tf_keras)(\.src)?(\.(layers|models|engine|initializers|regularizers|constraints|activations|losses|metrics"
    r"|optimizers|mixed_precision|dtype_policies|random|ops)(\.\w+)*)?"
)
_FUNCTION_MODULES = re.compile(
    r"builtins|(keras|tf_keras)(\.src)?\.(activations|initializers|regularizers|constraints)(\.\w+)*"
)
# TensorFlow functions that compute on tensors and touch nothing else (tf.io.write_file and tf.py_function also exist).
_SAFE_OPERATIONS = re.compile(
    r"(compat\.v1\.)?((math|nn|image|linalg|signal|quantization|__operators__|keras\.activations|keras\.backend)\.\w+(\.\w+)*"
    r"|reshape|transpose|concat|stack|unstack|split|squeeze|expand_dims|pad|tile|cast|clip_by_value|gather|gather_nd|slice"
    r"|strided_slice|shape|shape_n|size|rank|ones|zeros|ones_like|zeros_like|identity|convert_to_tensor|where|repeat|roll"
    r"|reverse|floor_div|stop_gradient|fill|range|broadcast_to|one_hot|einsum|tensordot|matmul|add|subtract|multiply|divide|maximum"
    r"|minimum|abs|negative|exp|sqrt|square|pow|sigmoid|tanh|round|sign|norm|reduce_\w+|argmax|argmin|argsort|sort|space_to_depth"
    r"|depth_to_space|space_to_batch\w*|batch_to_space\w*|image|ensure_shape|meshgrid|boolean_mask|sequence_mask)"
)


def check_config(config: object, source: str, allow_unsafe: bool) -> None:
    """Refuses a model configuration that could run foreign code, or that needs classes which are not known here.

    Args:
        config: The configuration as read from JSON, Keras 2 or Keras 3, with or without module names.
        source: The file, for the error message.
        allow_unsafe: Look for unknown layer classes only.

    Raises:
        ModelError: Naming the layer and what is wrong with it.
    """
    _Check(source, allow_unsafe).value(config, "the model")


def is_operator(config: Mapping[str, Any]) -> bool:
    """Whether an entry among the layers of a Keras 3 model is an operation such as ``a + b``, which is no layer."""
    inner = config.get("config")
    if "module" in config or not isinstance(inner, Mapping):
        return str(config.get("module")).startswith("keras.src.ops")
    plain = config.get("class_name") in _PLAIN_LAYERS
    return "name" in inner and not plain and not _OF_LAYERS & set(inner)  # .h5 files do not name modules


def holds_lambda(config: object) -> bool:
    """Whether a Lambda layer is anywhere in a configuration."""
    if isinstance(config, Mapping):
        return config.get("class_name") == "Lambda" or any(map(holds_lambda, config.values()))
    return isinstance(config, (list, tuple)) and any(map(holds_lambda, config))


PARTS = ("initializer", "regularizer", "constraint")
"""Last words of the settings of layers that hold objects, which may be the user's own."""


class _Check:
    def __init__(self, source: str, allow_unsafe: bool) -> None:
        self.source, self.allow_unsafe = source, allow_unsafe

    def value(self, value: object, owner: str) -> None:
        """Looks at any part of the configuration; `owner` is the layer that it belongs to, as it is called in messages."""
        if isinstance(value, Mapping):
            if "class_name" in value:
                self._object(value, owner)
            else:
                for key, part in value.items():
                    self._setting(str(key), part, owner)
        elif isinstance(value, (list, tuple)):
            for part in value:
                self.value(part, owner)

    def _setting(self, key: str, part: object, owner: str) -> None:
        if key.endswith("function_type") and part == "lambda":
            self._refuse(f"{owner} holds Python code")
        if key == "vocabulary" and isinstance(part, str):
            self._refuse(f"{owner} reads the file {part!r}")
        if key == "layers" and isinstance(part, (list, tuple)):
            for layer in part:
                self._known_layer(layer)
        if key in ("layer", "cell") and isinstance(part, Mapping):
            self._known_layer(part)
        if key in ACTIVATIONS and isinstance(part, str):
            self._known_activation(part, owner)
        if key in ACTIVATIONS and isinstance(part, Mapping) and "class_name" not in part:
            raise ModelError(  # Keras 3 writes so, and does not read it itself
                f"{self.source}: {owner} has an activation without a name (a lambda), which its file does not hold",
                "a function with a name",
                "Give it one under @keras.saving.register_keras_serializable(), save the model again, {custom_objects=FILE.py}",
            )
        if (key in ACTIVATIONS or key.rpartition("_")[2] in PARTS) and isinstance(part, Mapping):
            self._known_part(part, owner)
        self.value(part, owner)

    def _object(self, config: Mapping[str, Any], owner: str) -> None:
        kind = str(config["class_name"])
        inner = config.get("config")
        name = (inner.get("name") if isinstance(inner, Mapping) else None) or config.get("name")
        if name and kind not in ("__keras_tensor__",):
            owner = f"layer {str(name)!r} ({kind})"
        if kind.split(">")[-1] in ("Lambda", "__lambda__") or str(config.get("registered_name")).split(">")[-1] == "Lambda":
            self._refuse(f"{owner} holds Python code")
        if kind in ("ClassMethod", "InstanceMethod", "InstanceProperty", "TensorFlowOpLayer", "__typespec__"):
            self._refuse(f"{owner} runs an operation that cannot be checked")
        if kind in _OPERATION_LAYERS and isinstance(inner, Mapping):
            function = str(inner.get("function"))
            if not _SAFE_OPERATIONS.fullmatch(function):
                self._refuse(f"{owner} calls tf.{function}")
        refuse_quantized(kind, owner, self.source)
        self._module(config, kind, inner, owner)
        for key, part in config.items():
            self._setting(str(key), part, owner)

    def _module(self, config: Mapping[str, Any], kind: str, inner: Any, owner: str) -> None:
        module = config.get("module")
        if kind == "function" and module in (None, "builtins"):
            self._known_function(str(inner), config, owner)
        elif module is None or self.allow_unsafe:
            return
        elif kind == "function":
            name = str(inner)
            if _registered(name) is None and (not _FUNCTION_MODULES.fullmatch(str(module)) or "." in name):
                self._unknown(f"function {module}.{name}", owner)
        elif _registered(str(config.get("registered_name") or kind)) is None and (
            not _CLASS_MODULES.fullmatch(str(module)) or "." in kind
        ):
            self._unknown(f"class {module}.{kind}", owner)

    def _known_part(self, config: Mapping[str, Any], owner: str) -> None:
        """Looks at an object inside a layer; one of Keras' own says its module, others say what they are registered as."""
        kind, registered, module = str(config.get("class_name")), config.get("registered_name"), config.get("module")
        foreign = module is None or not (self.allow_unsafe or _CLASS_MODULES.fullmatch(str(module)))
        known = kind in ("function", *KNOWN) or _registered(str(registered)) or _registered(kind)
        if registered and foreign and not known:
            self._unknown(f"class {kind!r}", owner)

    def _known_layer(self, config: object) -> None:
        if not isinstance(config, Mapping) or "class_name" not in config:
            return
        kind = str(config["class_name"])
        inner = config.get("config")
        name = (inner.get("name") if isinstance(inner, Mapping) else None) or config.get("name")
        built_in = hasattr(layers, kind) or kind in _BUILT_IN_ELSEWHERE or kind in KNOWN or is_operator(config)
        if built_in or kind in ("ClassMethod", "InstanceMethod", "InstanceProperty", "TensorFlowOpLayer", "DTypePolicy"):
            return
        registered = config.get("registered_name") or kind
        if (
            _registered(str(registered)) is None
            and _registered(kind) is None
            and not (self.allow_unsafe and config.get("module"))
        ):
            self._unknown(f"class {kind!r}", f"layer {str(name)!r}")

    def _known_function(self, name: str, config: Mapping[str, Any], owner: str) -> None:
        parts = (keras.initializers, keras.regularizers, keras.constraints)
        registered = _registered(name) or _registered(str(config.get("registered_name")))
        if registered is None and not any(hasattr(part, name) for part in parts):
            self._known_activation(name, owner)

    def _known_activation(self, name: str, owner: str) -> None:
        try:
            keras.activations.get(of_keras2(name))
        except (ValueError, TypeError):
            if name in WITHOUT_COUNTERPART:
                raise ModelError(
                    f"{self.source}: {owner} has the activation {name!r} of Keras 3, which has no counterpart here",
                    "one that docs/layers.md names",
                    "Use another one, or write it as operations of keras.ops behind the layer, and save the model again",
                ) from None
            self._unknown(f"function {name!r}", owner)

    def _refuse(self, what: str) -> None:
        if not self.allow_unsafe:
            raise ModelError(
                f"{self.source}: {what}, which would run when the model is loaded or used",
                "a model made of Keras layers only",
                "Replace it by a Keras layer, or allow unsafe loading if you trust who wrote the file "
                "(load_model(..., allow_unsafe=True))",
            )

    def _unknown(self, what: str, owner: str) -> None:
        raise ModelError(
            f"{self.source}: {owner} needs the custom {what}, which is not known here",
            "Keras' own classes or registered ones",
            "{custom_objects=FILE.py}; register it with @keras.saving.register_keras_serializable(), or load the model within "
            "keras.saving.custom_object_scope({...}), and pass the model itself",
        )


def _registered(name: str) -> Optional[Any]:
    return keras.utils.get_registered_object(name)
