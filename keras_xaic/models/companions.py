"""What a model file does not hold itself: classes and functions of the user's own, and the architecture of bare weights."""

from __future__ import annotations

import importlib.util
import inspect
import pathlib
import sys
from types import ModuleType
from typing import Any

import h5py

from keras_xaic._keras import Model, keras
from keras_xaic.errors import ModelError, first_line
from keras_xaic.files import PathLike
from keras_xaic.models.archives import read_json
from keras_xaic.models.connections import check_connections
from keras_xaic.models.generations import as_here
from keras_xaic.models.keras3 import build_model, is_keras3
from keras_xaic.models.keras3_weights import load_archive_weights, load_h5_weights
from keras_xaic.models.safety import check_config


def register_custom_objects(path: PathLike, allow_unsafe: bool) -> dict[str, Any]:
    """Makes classes and functions that a Python file defines known to Keras, by their names, in this process.

    Args:
        path: The file, which is run.
        allow_unsafe: Whether it may be.

    Returns:
        Name -> what is defined for Keras 3, which Keras 2 cannot use: its layers and models.

    Raises:
        ModelError: If it may not be run, or raises an error.
    """
    module = _run(pathlib.Path(path), allow_unsafe, "custom objects")
    own = {
        name: value
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__
    }
    if is_keras3(getattr(sys.modules.get("keras"), "__version__", "")) and any(map(_is_of_keras, vars(module).values())):
        return own
    keras.utils.get_custom_objects().update(own)
    return {}


def _is_of_keras(value: object) -> bool:
    names = [getattr(value, "__module__", None) or getattr(value, "__name__", "")]
    names += [base.__module__ for base in value.__mro__] if inspect.isclass(value) else []
    return any(str(name).partition(".")[0] == "keras" for name in names)


def build_architecture(source: str, allow_unsafe: bool) -> tuple[Model, Any]:
    """Returns a model without its weights, and its configuration where that is known.

    Args:
        source: A ``.json`` file that `model.to_json` wrote, or ``FILE.py:FUNCTION``; the function takes nothing and returns a
            model.
        allow_unsafe: Whether Python code may run.

    Raises:
        ModelError: If it cannot be built.
    """
    name, _, function = source.rpartition(":")
    if name.endswith(".py"):
        module = _run(pathlib.Path(name), allow_unsafe, "architecture")
        made = getattr(module, function, None)
        if not callable(made):
            raise ModelError(f"{name} has no function {function!r}", "FILE.py:FUNCTION")
        try:
            model = made()
        except Exception as error:  # it is the user's code
            raise ModelError(f"{function} in {name} raises {type(error).__name__} ({first_line(error)})", "a model") from error
        if not isinstance(model, keras.Model):
            raise ModelError(f"{function} in {name} returns a {type(model).__name__}", "a model of Keras 2")
        return model, None
    path = pathlib.Path(source)
    if path.suffix != ".json" or not path.is_file():
        raise ModelError(f"architecture {source}", "a .json file that model.to_json() gave, or FILE.py:FUNCTION")
    config = read_json(path.read_bytes(), source)
    check_config(config, source, allow_unsafe)
    try:
        if _is_of_keras3(config):
            return build_model(config, source), config
        config = as_here(config)
        check_connections(config, source)
        return keras.models.model_from_json(path.read_text(encoding="utf-8")), config
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{source} cannot be rebuilt ({first_line(error)})", "what model.to_json() gave") from error


def load_bare_weights(model: Model, config: Any, checked: pathlib.Path, source: str) -> None:
    """Fills a model from an HDF5 file of weights alone.

    Args:
        model: The model.
        config: What it was built from, None where a function made it.
        checked: The file, cleaned; its name must end in ``.weights.h5`` where Keras 2.12 or newer wrote it.
        source: What it is called in messages.

    Raises:
        ModelError: If the weights are those of another model.
    """
    with h5py.File(checked, "r") as file:
        of_keras3, by_layer = config is not None and _is_of_keras3(config), "layer_names" in file.attrs
        try:
            if of_keras3 and by_layer:
                load_h5_weights(model, file, source)
            elif of_keras3:
                load_archive_weights(model, config, file, source)
        except (ValueError, KeyError) as error:
            raise _of_another(source, error) from error
    if of_keras3:
        return
    named = checked if by_layer else checked.rename(checked.with_name("model.weights.h5"))
    try:
        model.load_weights(named)
    except Exception as error:  # Keras raises whatever it stumbles upon
        raise _of_another(source, error) from error


def _of_another(source: str, error: Exception) -> ModelError:
    found = f"the weights in {source} are not those of the architecture ({first_line(error)})"
    return ModelError(found, "weights of this model")


def _is_of_keras3(config: Any) -> bool:
    version = config.get("keras_version")
    return is_keras3(version) if version else "module" in config and "build_config" in config


def _run(path: pathlib.Path, allow_unsafe: bool, what: str) -> ModuleType:
    if not allow_unsafe:
        fix = "Let it run if you trust it: {allow_unsafe=True}"
        raise ModelError(f"{path} is Python code, which would be run for its {what}", "", fix)
    name = f"xaic_{what.replace(' ', '_')}_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None or not path.is_file():
        raise ModelError(f"{path} is no Python file", "a .py file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except Exception as error:  # it is the user's code
        found = f"{path} raises {type(error).__name__} ({first_line(error)})"
        raise ModelError(found, "a file that can be imported") from error
    return module
