"""SavedModel directories of Keras 2: rebuilt from their configuration, so that none of the graph in them is run."""

from __future__ import annotations

import importlib
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

from keras_xaic._keras import Model, keras, tf
from keras_xaic.errors import ModelError, first_line
from keras_xaic.files import machine_fault
from keras_xaic.isolation import ChildDied, run_isolated
from keras_xaic.models.activations import functions_by_name
from keras_xaic.models.archives import MAX_CONFIG_BYTES
from keras_xaic.models.connections import check_connections
from keras_xaic.models.limits import weights_within
from keras_xaic.models.losses import remember_loss
from keras_xaic.models.safety import check_config
from keras_xaic.models.wrapped import wrappers_known

_serialization: Any = importlib.import_module(f"{keras.Model.__module__.partition('.')[0]}.src.saving.serialization_lib")
METADATA = "keras_metadata.pb"


def load_saved_model(directory: pathlib.Path, allow_unsafe: bool) -> Model:
    """Builds the model that a SavedModel directory describes and fills it from the directory's checkpoint.

    Args:
        directory: What ``model.save(directory)`` of Keras 2 wrote.
        allow_unsafe: As in `load_model`.

    Returns:
        The uncompiled model.

    Raises:
        ModelError: If the directory has no Keras metadata, or the model is not functional or Sequential.
    """
    metadata = directory / METADATA
    if not metadata.is_file():
        raise ModelError(
            f"{directory} is a SavedModel without {METADATA}: its layers are lost",
            "a directory written by model.save(...) of Keras 2",
            "Give the .keras or .h5 file that it was exported from; or make it smaller without training, if you trust it: "
            f"xaic slim {directory} --allow-unsafe --out slim/",
        )
    if metadata.stat().st_size > MAX_CONFIG_BYTES:
        raise ModelError(f"{metadata} has {metadata.stat().st_size:,} B", f"at most {MAX_CONFIG_BYTES:,} B")
    try:
        descriptions = list(_descriptions(metadata.read_bytes()))
    except (ValueError, IndexError, RecursionError) as error:
        raise ModelError(f"{metadata} is damaged ({error})", "what Keras wrote", "Copy the directory again") from None
    with wrappers_known(descriptions, str(directory)):
        return _built(descriptions, directory, allow_unsafe)


def _built(descriptions: list[dict[str, Any]], directory: pathlib.Path, allow_unsafe: bool) -> Model:
    training = None
    for description in descriptions:
        training = description.pop("training_config", None) or training
        check_config(description, str(directory), allow_unsafe)
    config = descriptions[0].get("model_config") if descriptions else None
    kind = config.get("class_name") if isinstance(config, dict) else (descriptions or [{}])[0].get("class_name")
    if not isinstance(config, dict) or kind not in ("Functional", "Model", "Sequential"):
        raise ModelError(
            f"{directory} holds a model of the class {kind}, whose layers Keras does not know",
            "a functional or Sequential model",
            "Rebuild it with keras.Model(inputs, outputs) and save that",
        )
    check_connections(config, str(directory))
    config = functions_by_name(config)
    found = _check_variables(directory)
    _fill_columns(config["config"], found["columns"])
    with weights_within(int(found["values"]), str(directory)), _serialization.SafeModeScope(not allow_unsafe):
        model = (keras.Sequential if kind == "Sequential" else keras.Model).from_config(config["config"])
        if not model.built:
            raise ModelError(f"{directory} holds a model without a known input shape", "a built model", "Add an Input layer")
        _load_variables(model, directory)
    remember_loss(model, training)
    return model


def _fill_columns(config: object, columns: list[int]) -> None:
    """Gives a Sequential model that begins with an adapted Normalization the number of columns that Keras forgets, in place."""
    parts = config.get("layers") if isinstance(config, dict) else None
    first = [one for one in parts or () if isinstance(one, dict) and isinstance(one.get("config"), dict)][:2]
    if [one.get("class_name") for one in first] != ["InputLayer", "Normalization"] or not columns:
        return
    for one in first:
        shape = one["config"].get("batch_input_shape")
        if isinstance(shape, (list, tuple)) and len(shape) > 1 and shape[-1] is None:
            one["config"]["batch_input_shape"] = (*shape[:-1], columns[0])


def _check_variables(directory: pathlib.Path) -> dict[str, Any]:
    """Returns what `read_variables` does, once a child process has survived it."""
    variables = directory / "variables"
    size = sum(file.stat().st_size for file in variables.glob("variables.*") if file.is_file())
    how: dict[str, Any] = {"timeout": 120, "memory": 512 * 1024**2 + 4 * size, "what": "reading them"}
    how["preload"] = "keras_xaic._keras"  # what takes seconds to import, once
    try:
        return run_isolated("keras_xaic.models.savedmodels:read_variables", str(variables / "variables"), size, **how)
    except ChildDied as error:
        raise ModelError(
            f"the variables in {directory} are damaged ({error.found})", "what Keras wrote", "Copy the directory again"
        ) from None


def read_variables(prefix: str, size: int) -> dict[str, Any]:
    """Reads every array of a checkpoint, whose files have `size` bytes; in a child process, which may not survive it.

    Returns:
        How many ``values`` there are, and the ``columns`` of every adapted Normalization.
    """
    values, columns = 0, []
    try:
        reader = tf.train.load_checkpoint(prefix)
        types = reader.get_variable_to_dtype_map()
        for name, shape in reader.get_variable_to_shape_map().items():
            count = math.prod(shape)
            if count * max(1, types[name].size or 1) > size:
                raise ModelError(f"{prefix}.* hold less of {name} than they claim", "whole files", "Copy the directory again")
            reader.get_tensor(name)
            values += count
            if name.endswith("/mean/.ATTRIBUTES/VARIABLE_VALUE") and len(shape) == 1:
                columns.append(int(shape[0]))
    except ModelError:
        raise
    except Exception as error:  # TensorFlow raises whatever it stumbles upon
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise machine_fault(error) or ModelError(
            f"{prefix}.* are damaged ({line})", "what Keras wrote", "Copy the directory again"
        ) from None
    return {"values": values, "columns": columns}


def _load_variables(model: Model, directory: pathlib.Path) -> None:
    prefix = str(directory / "variables" / "variables")
    try:
        tf.train.Checkpoint(model).read(prefix).assert_existing_objects_matched().expect_partial()
    except (tf.errors.OpError, AssertionError, ValueError) as error:
        raise ModelError(
            f"{prefix}.* does not fit the model ({first_line(error)})", "the variables that were saved with it"
        ) from None
    for layer in model.submodules:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _descriptions(content: bytes) -> Iterator[dict[str, Any]]:
    """The JSON of every Keras object, the model first (protobuf messages SavedMetadata.nodes[].metadata)."""
    nodes = []
    for field, value in _fields(content):
        if field == 1:
            parts = dict(_fields(value))
            nodes.append((int.from_bytes(parts.get(2, b""), "little"), json.loads(parts.get(5, b"{}"), object_hook=_plain)))
    for _, description in sorted(nodes, key=lambda node: node[0]):
        if isinstance(description, dict):
            yield description


def _plain(value: dict[str, Any]) -> Any:
    if value.get("class_name") in ("__tuple__", "TensorShape") and "items" in value:
        return tuple(value["items"]) if value["class_name"] == "__tuple__" else list(value["items"] or ())
    return value


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a protobuf message, as ``(number, content)``; numbers in little-endian bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value.to_bytes(10, "little")
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown field type {kind}")
        if at + size > len(message):
            raise ValueError("cut off")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")
