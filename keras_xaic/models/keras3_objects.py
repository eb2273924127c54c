"""Keras 3 models in memory, on any of its backends, taken over and given back; Keras 3 is only used where it is installed."""

from __future__ import annotations

import contextlib
import importlib
import json
import pathlib
import sys
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import h5py
import numpy as np

from keras_xaic._keras import Model, keras, tf
from keras_xaic.errors import ModelError, XaicError, XaicWarning, first_line
from keras_xaic.files import PathLike, machine_fault, writing
from keras_xaic.models.activations import in_keras3
from keras_xaic.models.alone import draws_random
from keras_xaic.models.connections import starts_with_input
from keras_xaic.models.keras3 import accepted_settings, build_model, is_keras3
from keras_xaic.models.keras3_opening import input_name, opened
from keras_xaic.models.keras3_weights import load_archive_weights
from keras_xaic.models.safety import PARTS, check_config
from keras_xaic.silence import captured_stderr
from keras_xaic.temporary import temporary_directory

TOLERANCE = 1e-4
"""Largest difference of outputs between Keras 2 and Keras 3, as a share of the largest output."""
_COARSER = {"float16": 0.02, "bfloat16": 0.15}
"""The same where layers of Keras 3 compute in so few bits: about 16 steps."""


_BUILT = {"query_shape", "key_shape", "value_shape"}
"""What attention is called with: Keras 3 sees it when it builds the model."""


def is_keras3_object(model: Any) -> bool:
    """Whether `model` is a model of Keras 3."""
    library = sys.modules.get("keras")  # who has such a model has imported it
    return library is not None and is_keras3(getattr(library, "__version__", "")) and isinstance(model, library.Model)


def from_keras3(model: Any, allow_unsafe: bool = False) -> Model:
    """Rebuilds a Keras 3 model with Keras 2; of its backend nothing is needed but the values of the weights.

    Args:
        model: A built functional or sequential model; how it was compiled does not matter.
        allow_unsafe: Also take models that hold Python code (Lambda layers).

    Raises:
        ModelError: If a layer or a setting has no counterpart in Keras 2, or the model computes something else with it.
    """
    library, source = sys.modules["keras"], f"the Keras 3 model {model.name!r}"
    if not model.built:
        raise ModelError(f"{source} has no weights yet", "a built model", "Call it on data once, or give it an Input layer")
    original, model = model, opened(model, source)
    kind = next((base.__name__ for base in type(model).__mro__ if base.__name__ in ("Functional", "Sequential")), "subclassed")
    serialized = library.saving.serialize_keras_object(model.get_config())
    left_out: list[str] = []
    config = _without_own_parts(json.loads(json.dumps({"class_name": kind, "config": serialized})), left_out)
    if left_out:
        said = f"{source} has parts of Keras 3 that training here does without: {', '.join(sorted(set(left_out)))}"
        warnings.warn(said, XaicWarning, stacklevel=2)
    check_config(config, source, allow_unsafe)
    try:
        made = build_model(config, source)
        with temporary_directory() as directory:
            file = pathlib.Path(directory) / "model.weights.h5"
            model.save_weights(file)
            with h5py.File(file, "r") as weights:
                load_archive_weights(made, config, weights, source)
    except XaicError:
        raise
    except Exception as error:  # Keras 2 raises whatever it stumbles upon
        raise machine_fault(error) or ModelError(f"{source} cannot be rebuilt by Keras 2 ({first_line(error)})") from error
    _require_same(made, original, f"{source} computes something else when it is rebuilt with Keras 2", _masks(config))
    return made


def _without_own_parts(value: Any, left_out: list[str]) -> Any:
    """Leaves own initializers, regularizers and constraints out: code that Keras 2 cannot run, and outputs do not need.

    Args:
        value: Any part of a configuration.
        left_out: Gets the names of regularizers and constraints, which training would need.
    """
    if isinstance(value, list):
        return [_without_own_parts(part, left_out) for part in value]
    if not isinstance(value, dict):
        return value
    made = {}
    for key, part in value.items():
        kind = str(key).rpartition("_")[2]
        own = kind in PARTS and isinstance(part, dict) and str(part.get("module")).partition(".")[0] != "keras"
        if own and keras.utils.get_registered_object(str(part.get("registered_name"))) is None:
            made[key] = "zeros" if kind == "initializer" else None
            name = part.get("config") if part.get("class_name") == "function" else part.get("class_name")
            left_out += [] if kind == "initializer" else [f"{kind} {name!r}"]
        else:
            made[key] = _without_own_parts(part, left_out)
    return made


def load_with_keras3(path: PathLike, own: Mapping[str, Any]) -> Model:
    """Loads a model of Keras 3 with classes of the user's own, whose code runs, and rebuilds it with Keras 2.

    Args:
        path: The file, or the directory that Keras 3 writes in place of one.
        own: Name -> class or function that the file refers to.

    Raises:
        ModelError: If Keras 3 cannot load it, or the model has no counterpart in Keras 2.
    """
    library = _keras3()
    try:
        with captured_stderr():
            model = library.saving.load_model(path, custom_objects=dict(own), compile=False, safe_mode=False)
    except Exception as error:  # Keras raises whatever it stumbles upon, and so does the user's code
        raise machine_fault(error) or ModelError(
            f"{path} cannot be loaded by Keras 3 with the classes that were given ({first_line(error)})",
            "a model of Keras 3 and the classes that it was saved with",
        ) from error
    return from_keras3(model, allow_unsafe=True)


def save_keras3(model: Any, path: PathLike) -> pathlib.Path:
    """Writes a Keras 2 model as a ``.keras`` file of Keras 3, after its outputs were compared.

    Args:
        model: A functional or sequential model.
        path: The file, ending in ``.keras``.

    Raises:
        ModelError: If Keras 3 is not installed, does not take the model, or computes something else.
    """
    where = pathlib.Path(path)
    if where.suffix != ".keras":
        raise ModelError(f"{where} is no name for a Keras 3 model", "a file that ends in .keras")
    library = _keras3()
    with temporary_directory() as directory, captured_stderr():
        old, new = pathlib.Path(directory) / "model.h5", pathlib.Path(directory) / "model.keras"
        keras.models.save_model(model, old, include_optimizer=False, save_format="h5")
        with h5py.File(old, "r+") as file:
            config = _renamed(_without_unknown(json.loads(file.attrs["model_config"]), library.layers))
            file.attrs["model_config"] = json.dumps(config)
        try:
            made = library.models.load_model(old, compile=False)
            made.save(new)
        except Exception as error:  # Keras raises whatever it stumbles upon
            said = " ".join(str(error).split())[-300:]
            raise ModelError(f"Keras 3 does not take the model {model.name!r} ({said})") from error
        _require_same(model, made, f"Keras 3 computes something else than Keras 2 with the model {model.name!r}")
        with writing(where) as target:
            target.write(new.read_bytes())
    return where


def _without_unknown(config: object, known: object) -> Any:
    """Leaves settings out that the layers of Keras 3 do not have, where they change nothing (None, False, one group)."""
    if isinstance(config, list):
        return [_without_unknown(part, known) for part in config]
    if not isinstance(config, dict):
        return config
    made = {key: _without_unknown(part, known) for key, part in config.items()}
    if "output_layers" in made:
        made = _recounted(made)
    name = str(made.get("class_name")).rpartition(">")[2]  # ours stand in for those that Keras 2 does not have
    kind, inner = getattr(known, name, None), made.get("config")
    if kind is not None and isinstance(inner, dict):
        accepted = accepted_settings(kind)
        made = {**made, "class_name": name}
        kept = {key: part for key, part in inner.items() if key in accepted or not (key in _BUILT or part in (None, False, 1))}
        made["config"] = in_keras3(kept)
    return made


def _renamed(config: Any) -> Any:
    """Gives layers that came out of nested models (``outer/inner``) names that Keras 3 takes: without a slash."""
    parts = config["config"]["layers"]
    taken, names = {part["config"]["name"] for part in parts}, {}
    for name in sorted(taken):
        new = name.replace("/", "_")
        while new != name and new in taken:
            new += "_"
        names[name] = new
        taken.add(new)

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(part) for key, part in value.items()}
        if isinstance(value, list):
            return [walk(part) for part in value]
        return names.get(value, value) if isinstance(value, str) and "/" in value else value

    return walk(config)


def _is_tensor(value: object) -> bool:
    return isinstance(value, list) and len(value) >= 3 and [type(part) for part in value[:3]] == [str, int, int]


def _recounted(config: dict[str, Any]) -> dict[str, Any]:
    """Counts calls as Keras 3 does: those of a nested Sequential start without one for its own input."""
    fewer = {part["name"] for part in config["layers"] if part["class_name"] == "Sequential" and starts_with_input(part)}

    def count(value: Any) -> Any:
        if _is_tensor(value):
            name, call, *others = value
            return [name, call - (name in fewer), *map(count, others)]
        if isinstance(value, dict):
            return {key: count(part) for key, part in value.items()}
        return [count(part) for part in value] if isinstance(value, list) else value

    parts = [{**part, "inbound_nodes": [_call(count(node)) for node in part["inbound_nodes"]]} for part in config["layers"]]
    return {**config, "layers": parts, "output_layers": count(config["output_layers"])}


def _call(node: object) -> Any:
    """Writes a call with tensors among its named arguments (attention: ``value``) as Keras 3 writes it: it reads no other."""

    def written(value: object) -> Any:
        return {"class_name": "__keras_tensor__", "config": {"shape": [None], "dtype": "float32", "keras_history": value}}

    if not (isinstance(node, list) and len(node) == 1 and isinstance(node[0], list) and len(node[0]) == 4):
        return node
    *first, named = node[0]
    if not any(map(_is_tensor, named.values())):
        return node
    given = {key: written(value) if _is_tensor(value) else value for key, value in named.items()}
    return {"args": [written(first)], "kwargs": given}


def _keras3() -> Any:
    try:
        with captured_stderr():
            library: Any = importlib.import_module("keras")
    except ImportError:
        library = None
    if library is None or not is_keras3(getattr(library, "__version__", "")):
        found = "it is not installed" if library is None else f"keras {getattr(library, '__version__', '2')} is installed"
        raise ModelError(
            f"Keras 3 is needed for its files: {found}",
            "keras 3 or newer",
            "Use the current stack, whose TensorFlow brings it",
        )
    return library


def _masks(config: object, inside: bool = False) -> set[str]:
    """Names of layers that others take as masks, of which what is neither 0 nor 1 means unlike things in both Keras."""
    if isinstance(config, list):
        return set().union(*(_masks(part, inside) for part in config))
    if not isinstance(config, dict):
        return set()
    if inside and "keras_history" in config:
        return {str(config["keras_history"][0])}
    return set().union(*(_masks(part, inside or str(key).endswith("mask")) for key, part in config.items()))


def _require_same(model: Any, other: Any, found: str, masks: Collection[str] = ()) -> None:
    arrays = [_some_values(tensor, np.random.default_rng(number)) for number, tensor in enumerate(model.inputs)]
    for array, name in zip(arrays, model.input_names):
        if name in masks:
            array[...] = np.round(array)
            array[..., 0] = 1.0  # where nothing is seen, there is nothing to compare
    names = list(model.input_names)
    wanted = _outputs(other, arrays, names)
    computing = {getattr(layer, "compute_dtype", None) for one in (model, other) for layer in one._flatten_layers()}
    tolerance = max(TOLERANCE, *(_COARSER.get(str(one), 0.0) for one in computing))
    if _are_close(_outputs(model, arrays, names), wanted, tolerance):
        return
    if not _are_close(_outputs(other, arrays, names), wanted):
        raise draws_random(model.name)
    raise ModelError(found, "equal outputs")


def _some_values(tensor: Any, random: np.random.Generator) -> np.ndarray:
    shape = (tensor.shape[0] or 2, *(size or 4 for size in tensor.shape[1:]))
    if tensor.dtype.is_integer:  # every table has the rows 0 and 1; with 0 alone, nothing that is looked up would be compared
        return random.integers(0, 2, shape).astype(tensor.dtype.as_numpy_dtype)
    return random.uniform(0, 1, shape).astype(np.float32)


def _are_close(some: list[np.ndarray], others: list[np.ndarray], tolerance: float = TOLERANCE) -> bool:
    return all(
        a.shape == b.shape and np.allclose(a, b, 0, tolerance * max(1.0, float(np.abs(a).max(initial=0))), equal_nan=True)
        for a, b in zip(some, others)
    )


def _outputs(model: Any, arrays: list[np.ndarray], names: list[str]) -> list[np.ndarray]:
    x: Any = arrays if len(arrays) > 1 else arrays[0]
    if is_keras3_object(model):
        given = _call_untouched(model, _in_its_structure(model, dict(zip(names, arrays)), x))
    else:
        given = model.predict(x, batch_size=len(arrays[0]), verbose=0)
    return [np.asarray(one, np.float32) for one in tf.nest.flatten(given)]


def _in_its_structure(model: Any, named: dict[str, np.ndarray], x: Any) -> Any:
    """Returns inputs as a model of Keras 3 takes them: in dictionaries and lists as it was made with; else `x`."""
    structure = getattr(model, "_inputs_struct", None)
    if structure is not None:
        arrays = iter(named.values())  # of inputs that were renamed on the way only the order is known
        return sys.modules["keras"].tree.map_structure(lambda one: named.get(input_name(one), next(arrays)), structure)
    by_name = not getattr(model, "inputs", None) and isinstance((model.get_build_config() or {}).get("input_shape"), dict)
    return named if by_name else x


def _call_untouched(model: Any, x: Any) -> Any:
    """Returns what a model of Keras 3 gives without state from earlier calls; its own state stays as it is.

    `predict` would go on from that state and leave another, and it does what a subclass makes of it.
    """
    library = sys.modules["keras"]
    stateful = [layer for layer in model._flatten_layers() if getattr(layer, "stateful", False)]
    states = library.tree.flatten([getattr(layer, "states", None) or [] for layer in stateful])
    mapping = [(state, library.ops.zeros_like(state)) for state in states]
    # Without state to keep there is no such scope: random numbers would be the same in each.
    with library.StatelessScope(state_mapping=mapping) if mapping else contextlib.nullcontext():
        return library.tree.map_structure(library.ops.convert_to_numpy, model(x, training=False))
