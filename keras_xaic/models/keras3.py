"""Models written by Keras 3, rebuilt with Keras 2: the configuration translated (weights: see `keras3_weights`)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_xaic._keras import Model, keras, layers
from keras_xaic.errors import ModelError
from keras_xaic.models.activations import in_keras2
from keras_xaic.models.added_layers import ADDED
from keras_xaic.models.connections import CONSTANT, check_connections, starts_with_input
from keras_xaic.models.folding import in_float32
from keras_xaic.models.keras3_layers import in_place_of
from keras_xaic.models.keras3_operations import counterpart_of
from keras_xaic.models.operations import SLICES
from keras_xaic.models.safety import is_operator
from keras_xaic.models.texts import takes_texts

# Settings of Keras 3 that Keras 2 does not have and that change nothing when another setting is off, or in a file: kernels are
# saved with their low-rank adaptation added, and only images that are padded to their ratio have something to be filled.
_WITHOUT_EFFECT = {
    "renorm_momentum",
    "build_input_shape",
    "lora_rank",
    "lora_alpha",
    "fill_mode",
    "fill_value",
    "vocabulary_size",
}
_ONLY = {"data_format": "channels_last", "oov_method": "floormod"}
"""Settings that Keras 2 does not have -> what it does without."""
_RENAMED = {"batch_shape": "batch_input_shape"}
_RENAMED_BY_CLASS = {"LeakyReLU": {"negative_slope": "alpha"}}
_RENAMED_PARTS = {"OrthogonalInitializer": "Orthogonal", "IdentityInitializer": "Identity"}
_DTYPES = {"IntegerLookup": "int64", "StringLookup": "int64", "TextVectorization": "string"}
"""What Keras 2 wants as dtype of layers that give numbers for words."""
MODELS = ("Functional", "Sequential")
"""Classes that hold layers."""
_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_./>-]*")
"""Names that TensorFlow takes for what a layer computes; those of Keras 3 may hold anything."""


def is_keras3(version: Any) -> bool:
    """Whether a file's ``keras_version`` says that Keras 3 or newer wrote it."""
    text = version.decode() if isinstance(version, bytes) else str(version or "")
    match = re.match(r"\d+", text)
    return match is not None and int(match.group()) >= 3


def build_model(config: Mapping[str, Any], source: str) -> Model:
    """Builds the model of a Keras 3 configuration, with fresh weights.

    Args:
        config: The configuration of a functional or Sequential model, already checked to be safe.
        source: The file, for error messages.

    Raises:
        ModelError: If a layer or a setting has no counterpart in Keras 2.
    """
    kind = config.get("class_name")
    if kind not in MODELS:
        raise ModelError(f"{source} holds a {kind} model written by Keras 3", "a functional or Sequential model")
    name = _plain(str(config["config"].get("name")))  # of the whole model: nobody looks it up
    _require_numbers(config["config"]["layers"], source)
    # Keras 3 widens what operations with two types are given, Keras 2 does not; all of it computes in float32 later anyway.
    plain = in_float32(config["config"])
    translated = _Translation(source).layer({**config, "config": {**plain, "name": name}})
    check_connections(translated, source)
    return getattr(keras, "Sequential" if kind == "Sequential" else "Model").from_config(translated["config"])


def _require_numbers(parts: Sequence[Mapping[str, Any]], source: str) -> None:
    """Refuses texts as inputs."""
    for part in parts:
        if part["class_name"] == "InputLayer" and part["config"].get("dtype") == "string":
            kinds = [(str(one["class_name"]), str(one["config"].get("name"))) for one in parts]
            raise takes_texts(source, str(part["config"]["name"]), kinds)


def _plain(name: str) -> str:
    """The nearest name of `_NAME`."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_-") or "layer"


class _Translation:
    def __init__(self, source: str) -> None:
        self.source = source

    def layer(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A layer or nested model, in the form of Keras 2."""
        kind, inner = str(config["class_name"]), dict(config["config"])
        name = str(inner.get("name", config.get("name")))
        if kind != "InputLayer" and not _NAME.fullmatch(name):
            raise ModelError(
                f"{self.source}: layer {name!r} ({kind}) has a name that Keras 2 does not take",
                "letters (of English), digits, dots, dashes and underscores, the first of them a letter, a digit or a dot",
                f"Rename it with Keras 3: layer.name = {_plain(name)!r}",
            )
        if is_operator(config):
            return self._operator(kind, name, config)
        instead = in_place_of(config, self.source)
        if instead is not config:
            return self.layer(instead)
        if kind == "Functional":
            return {"class_name": kind, "name": name, "config": self._functional(inner)}
        if kind == "Sequential":
            parts = [self.layer(part) for part in inner["layers"]]
            return {"class_name": kind, "name": name, "config": {"name": name, "layers": parts}}
        known = _known(kind)
        settings = in_keras2({key: self._value(value) for key, value in inner.items()})
        for old, new in {**_RENAMED, **_RENAMED_BY_CLASS.get(kind, {})}.items():
            if old in settings:
                settings[new] = settings.pop(old)
        if known is None:  # registered by the user, who knows its settings
            return {**{k: config[k] for k in ("class_name", "module", "registered_name") if k in config}, "config": settings}
        settings = self._accepted(settings, known, f"layer {name!r} ({kind})")
        if kind == "IntegerLookup" and not settings.get("vocabulary"):
            raise ModelError(
                f"{self.source}: layer {name!r} ({kind}) has its table beside its configuration",
                "a layer made with vocabulary=[...]",
                "Make it with vocabulary=layer.get_vocabulary(include_special_tokens=False)",
            )
        if kind == "Discretization" and settings.get("bin_boundaries"):
            settings["num_bins"] = None  # what they were found with
        if kind in _DTYPES and settings.get("output_mode", "int") == "int":
            settings["dtype"] = _DTYPES[kind]
        if kind == "MultiHeadAttention":  # Keras 2 makes its weights from these
            built = config.get("build_config") or {}
            shapes = built.get("shapes_dict") or built
            settings.update({f"{part}_shape": shapes.get(f"{part}_shape") for part in ("query", "value")})
            settings["key_shape"] = shapes.get("key_shape") or settings["value_shape"]
        return {"class_name": kind, "name": name, "config": settings}

    def _accepted(self, settings: dict[str, Any], known: type, what: str) -> dict[str, Any]:
        """The settings that a class of Keras 2 takes; others must be such that nothing is lost without them."""
        accepted = accepted_settings(known)
        for key, value in settings.items():
            if key not in accepted and value not in (None, False, _ONLY.get(key)) and key not in _WITHOUT_EFFECT:
                raise ModelError(
                    f"{self.source}: {what} has {key}={value!r}, which Keras 2 does not have",
                    "settings that Keras 2 has as well",
                    "Save the model without it",
                )
        return {key: value for key, value in settings.items() if key in accepted}

    def _operator(self, kind: str, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        what = f"{self.source}: operation {name!r} ({kind})"
        counterpart, settings = counterpart_of(kind, f"{self.source}: {name!r}"), config["config"]
        counterpart.check(settings, what)
        if counterpart.is_layer:
            calls = [node for node in config.get("inbound_nodes", ()) if node["args"]]
            shapes = _shapes(calls[0]) if calls else [()]
            made = {"name": name, **counterpart.arguments(settings, shapes)}
            return {"class_name": counterpart.class_of(shapes), "name": name, "config": made}
        made_by = "SlicingOpLambda" if counterpart.function in SLICES else "TFOpLambda"
        return {"class_name": made_by, "name": name, "config": {"name": name, "function": counterpart.function}}

    def _value(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            if value.get("class_name") == "DTypePolicy":
                return value["config"]["name"]
            if value.get("class_name") == "function":
                return value["config"]
            if "class_name" in value and "config" in value:
                if _is_layer(value):
                    return self.layer(value)
                inner = {key: self._value(part) for key, part in (value["config"] or {}).items()}
                inner = {key: part for key, part in inner.items() if key not in ("input_axes", "output_axes")}
                return {"class_name": _RENAMED_PARTS.get(value["class_name"], value["class_name"]), "config": inner}
            return {key: self._value(part) for key, part in value.items()}
        return [self._value(part) for part in value] if isinstance(value, list) else value

    def _functional(self, config: Mapping[str, Any]) -> dict[str, Any]:
        # Keras 2 counts the call by which a nested model was made; Keras 3 only does so where a functional model is an end.
        made = {part["name"]: part["class_name"] for part in config["layers"] if starts_with_input(part)}

        def tensor(history: Any) -> list[Any]:
            name, node, index = history
            return [name, node + (name in made), index]

        def endpoints(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {key: endpoints(part) for key, part in value.items()}
            if len(value) == 3 and isinstance(value[0], str) and isinstance(value[1], int):
                name, node, index = value
                return [name, node + (made.get(name) == "Sequential"), index]
            return [endpoints(part) for part in value]

        parts = []
        for part in config["layers"]:
            translated = self.layer(part)
            calls = [self._call(part, node, tensor) for node in part["inbound_nodes"]]
            parts.append({**translated, "name": part["name"], "inbound_nodes": calls})
        ends = {key: endpoints(config[key]) for key in ("input_layers", "output_layers")}
        for key, value in ends.items():
            if isinstance(value, list) and value and isinstance(value[0], str):
                ends[key] = [value]
        return {"name": config["name"], "layers": parts, **ends}

    def _call(self, part: Mapping[str, Any], node: Mapping[str, Any], tensor: Any) -> Any:
        def convert(value: object) -> Any:
            if isinstance(value, (list, tuple)):
                return [convert(one) for one in value]
            if not isinstance(value, Mapping):
                return value
            kind, inner = value.get("class_name"), value.get("config") or {}
            if kind == "__keras_tensor__":
                return tensor(inner["keras_history"])
            if kind in ("__numpy__", "__tensor__"):
                return inner["value"]
            if kind == "__slice__":
                return {key: convert(inner[key]) for key in ("start", "stop", "step")}
            if kind == "__ellipsis__":
                return ...
            raise ModelError(
                f"{self.source}: layer {part['name']!r} is called with {kind or 'a dictionary'}",
                "tensors, arrays, lists of them and numbers",
            )

        args, named = list(node["args"]), node["kwargs"]
        if part["class_name"] == "Functional" and args and isinstance(args[0], Mapping) and not _is_tensor(args[0]):
            inputs = part["config"]["input_layers"]
            args = [_in_order(one, inputs) for one in args]
            named = {key: _in_order(value, inputs) for key, value in named.items()}
        # Keras 3 uses models without training, whatever their calls say; Keras 2 would do as they say.
        extra = {key: convert(value) for key, value in named.items() if value is not None and key != "training"}
        first = args[0] if args else None
        if is_operator(part):
            counterpart = counterpart_of(part["class_name"], f"{self.source}: {part['name']!r}")
            counterpart.check_call(args, extra, f"{self.source}: operation {part['name']!r} ({part['class_name']})")
            if not counterpart.is_layer:
                extra.update(zip(counterpart.names, map(convert, args[1:])))
                extra.update(counterpart.arguments(part["config"], _shapes(node)))
                if not _is_tensor(first) and not (isinstance(first, list) and all(map(_is_tensor, first))):
                    return [CONSTANT, -1, _as_float(convert(first), args[1:]), extra]
            given = first if isinstance(first, list) else args if counterpart.is_layer else [first]
            if not all(map(_is_tensor, given)):
                raise ModelError(f"{self.source}: operation {part['name']!r} is called with an array or a number", "tensors")
            calls = [[*convert(one), extra] for one in given]
            return calls if counterpart.is_layer or isinstance(first, list) else calls[0]
        known = _known(str(part["class_name"])) or keras.layers.Layer
        names = [name for name in inspect.signature(known.call).parameters if name != "self"]
        extra.update(zip(names[1:], map(convert, args[1:])))
        if isinstance(first, (list, tuple)):
            return [[*convert(one), extra] for one in first]  # Keras 2 takes what the last says
        if not isinstance(first, Mapping):
            raise ModelError(f"{self.source}: layer {part['name']!r} is called without a tensor", "a tensor or a list of them")
        return [[*convert(first), extra]]


def _is_tensor(value: object) -> bool:
    return isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__"


def _in_order(given: Any, inputs: Any) -> Any:
    """What a nested model gets by name (tensors, masks), in the order of its inputs, which are a dictionary or a list."""
    if not isinstance(given, Mapping):
        return given
    keys = sorted(inputs) if isinstance(inputs, Mapping) else [one[0] for one in inputs]
    return [given[key] for key in keys]


def _as_float(value: Any, others: list[Any]) -> Any:
    """Whole numbers as Keras 3 takes them beside tensors of fractions; TensorFlow refuses them in front."""
    if not any(_is_tensor(one) and "float" in str(one["config"].get("dtype")) for one in others):
        return value
    return np.asarray(value, float).tolist() if np.asarray(value).dtype.kind in "iu" else value


def _shapes(node: Mapping[str, Any]) -> list[Any]:
    """Shapes of the tensors of a call, in their order."""
    given = [one for value in node["args"] for one in (value if isinstance(value, list) else [value])]
    return [value["config"]["shape"] for value in given if _is_tensor(value)]


def _known(kind: str) -> Any:
    """The class of Keras 2, or of ours where Keras 2 has none and the user registered none of that name."""
    ours = ADDED.get(kind)
    return ours if ours and keras.utils.get_custom_objects().get(kind) is ours else getattr(layers, kind, None)


def _is_layer(config: Mapping[str, Any]) -> bool:
    return str(config.get("module")).startswith("keras.layers") or config["class_name"] in MODELS


def accepted_settings(known: Any) -> set[str]:
    """Returns the settings that a layer class of Keras 2 takes."""
    accepted = {"batch_input_shape", "name", "trainable", "dtype"}
    for base in known.__mro__[:-1]:
        if "__init__" in vars(base):
            accepted |= set(inspect.signature(base.__init__).parameters)
    if issubclass(known, layers.RNN):
        accepted.add("zero_output_for_mask")  # taken out of its other arguments
    return accepted - {"kwargs", "args", "self"}
