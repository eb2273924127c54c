"""Trained models from files and back: safe by default, Keras 2 and Keras 3, each problem as one clear error."""

from __future__ import annotations

import io
import json
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any, Optional

import h5py

from keras_xaic._keras import Model, keras, layers, tf
from keras_xaic.arguments import a_path, checked
from keras_xaic.errors import ModelError, XaicError, first_line
from keras_xaic.files import PathLike, machine_error, machine_fault, telling, write_atomic
from keras_xaic.hdf5 import FORMATS, check_model_path, clean_copy
from keras_xaic.models.activations import TENSORFLOW, functions_by_name
from keras_xaic.models.archives import WEIGHTS, is_unpacked, read_archive, read_json
from keras_xaic.models.companions import build_architecture, load_bare_weights, register_custom_objects
from keras_xaic.models.connections import check_connections
from keras_xaic.models.generations import as_here, in_the_order_of
from keras_xaic.models.keras3 import build_model, is_keras3
from keras_xaic.models.keras3_objects import load_with_keras3
from keras_xaic.models.keras3_weights import load_archive_weights, load_h5_weights
from keras_xaic.models.limits import bounded, weights_within
from keras_xaic.models.losses import remember_loss
from keras_xaic.models.safety import FOR_TRAINING, check_config, holds_lambda
from keras_xaic.models.savedmodels import load_saved_model
from keras_xaic.models.wrapped import unwrapped, wrappers_known
from keras_xaic.temporary import temporary_directory
from keras_xaic.usual import in_usual_keras

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip archive can hold


@checked(path=a_path, custom_objects=a_path, architecture=a_path)
@in_usual_keras
def load_model(
    path: PathLike,
    *,
    allow_unsafe: bool = False,
    custom_objects: Optional[PathLike] = None,
    architecture: Optional[str] = None,
) -> Model:
    """Loads a Keras model for inference or fine-tuning, without its optimizer.

    The format is recognised by the content: ``.h5`` and ``.keras`` files written by Keras 2 or Keras 3, directories that
    ``save_model(..., zipped=False)`` of Keras 3 wrote, and SavedModel directories of ``model.save``. Wrappers of the Model
    Optimization toolkit come off: of pruning, of clustering, of quantization-aware training.

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "tiny.keras"
    >>> _ = save_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")]), path)
    >>> load_model(path).output_shape
    (None, 3)

    Args:
        path: The file or directory.
        allow_unsafe: Also load models that hold Python code (Lambda layers) or unchecked TensorFlow operations, which then
            run with the rights of this process.
        custom_objects: A Python file with the classes and functions of the user's own that the model needs; it is run, and
            stays known to Keras in this process. Needs `allow_unsafe`.
        architecture: For a file of weights only: a ``.json`` that `model.to_json` gave, or ``FILE.py:FUNCTION``, which needs
            `allow_unsafe`.

    Returns:
        The uncompiled `keras.Model`.

    Raises:
        ModelError: If there is no model, it is damaged, holds code while `allow_unsafe` is off, or needs classes that are
            not known here.
    """
    where = pathlib.Path(path)
    check_model_path(where)
    size = sum(part.stat().st_size for part in (where.rglob("*") if where.is_dir() else [where]) if part.is_file())
    try:
        with bounded(str(where), size), keras.utils.custom_object_scope({**_by_bare_names(), **TENSORFLOW}):
            of_keras3 = {} if custom_objects is None else register_custom_objects(custom_objects, allow_unsafe)
            if of_keras3:
                model = _load_own(where, of_keras3)
            else:
                model = unwrapped(_load(where, allow_unsafe, architecture))
            _check_values(model, str(where))
            return model
    except XaicError:
        raise
    except Exception as error:  # Keras raises whatever it stumbles upon
        raise machine_fault(error) or ModelError(
            f"{where} cannot be rebuilt by Keras 2 ({first_line(error)})", FORMATS
        ) from error


def _by_bare_names() -> dict[str, Any]:
    """Returns what is registered in a package by its name alone, as .h5 files have it, where Keras 2 does not look."""
    parts = (layers, keras.initializers, keras.regularizers, keras.constraints, keras.activations)
    named = {name.rpartition(">")[2]: value for name, value in keras.utils.get_custom_objects().items() if ">" in name}
    return {name: value for name, value in named.items() if not any(hasattr(part, name) for part in parts)}


def _load(where: pathlib.Path, allow_unsafe: bool, architecture: Optional[str]) -> Model:
    unpacked = is_unpacked(where)
    if architecture is not None and (where.is_dir() or not h5py.is_hdf5(where)):
        raise _whole(where)
    if where.is_dir() and not unpacked:
        return load_saved_model(where, allow_unsafe)
    with temporary_directory() as directory:  # Keras gets only what was checked
        if unpacked or zipfile.is_zipfile(where):
            return _load_keras(where, directory, allow_unsafe)
        return _load_h5(where, directory, allow_unsafe, architecture)


def _load_own(where: pathlib.Path, own: Mapping[str, Any]) -> Model:
    contents = {} if h5py.is_hdf5(where) else read_archive(where)  # refuses what is no such archive
    model = load_with_keras3(where, own)
    if contents:
        remember_loss(model, read_json(contents["config.json"], f"config.json in {where}").get("compile_config"))
    return model


def _load_h5(where: pathlib.Path, directory: pathlib.Path, allow_unsafe: bool, architecture: Optional[str]) -> Model:
    checked = directory / "model.h5"
    values = clean_copy(where, checked, str(where))
    with h5py.File(checked, "r") as file:
        alone = "model_config" not in file.attrs
        if alone and architecture is None:
            raise ModelError(
                f"{where} holds weights only",
                "a whole model, with its architecture",
                "Save it with model.save(...); {architecture=model.json}, which model.to_json() gives",
            )
    if not alone and architecture is not None:
        raise _whole(where)
    if architecture is not None:
        model, config = build_architecture(architecture, allow_unsafe)
        load_bare_weights(model, config, checked, str(where))
        return model
    with h5py.File(checked, "r+") as file:
        config = read_json(file.attrs["model_config"], f"the configuration in {where}")
        with wrappers_known(config, str(where)), weights_within(values, str(where)):
            check_config(config, str(where), allow_unsafe)
            if is_keras3(file.attrs.get("keras_version")):
                if holds_lambda(config):  # it was allowed, and Keras 3 alone can make it
                    model = load_with_keras3(where, {})
                else:
                    model = build_model(config, str(where))
                    load_h5_weights(model, file, str(where))
            else:
                check_connections(config, str(where))
                file.attrs["model_config"] = json.dumps(functions_by_name(config))
                model = keras.models.load_model(file, compile=False)
        remember_loss(model, file.attrs.get("training_config"))
        return model


def _whole(where: pathlib.Path) -> ModelError:
    return ModelError(
        f"{where} is a whole model, and an architecture is given", "a file of weights only", "Leave the architecture out"
    )


def _load_keras(where: pathlib.Path, directory: pathlib.Path, allow_unsafe: bool) -> Model:
    contents = read_archive(where)
    whole = read_json(contents["config.json"], f"config.json in {where}")
    config = _without_training(whole)
    with wrappers_known(config, str(where)):
        model = _build_keras(where, directory, contents, config, allow_unsafe)
    remember_loss(model, whole.get("compile_config"))
    return model


def _build_keras(
    where: pathlib.Path, directory: pathlib.Path, contents: dict[str, bytes], config: Any, allow_unsafe: bool
) -> Model:
    check_config(config, str(where), allow_unsafe)
    unpacked, cleaned, checked = (directory / name for name in ("unpacked.h5", WEIGHTS, "model.keras"))
    write_atomic(unpacked, contents.pop(WEIGHTS))
    values = clean_copy(unpacked, cleaned, f"{WEIGHTS} in {where}")
    unpacked.unlink()
    with weights_within(values, str(where)):
        if is_keras3(read_json(contents["metadata.json"], f"metadata.json in {where}").get("keras_version")):
            if holds_lambda(config):
                return load_with_keras3(where, {})
            model = build_model(config, str(where))
            with h5py.File(cleaned, "r") as weights:
                load_archive_weights(model, config, weights, str(where))
            return model
        config = as_here(config)
        check_connections(config, str(where))
        write_atomic(checked, _archive({**contents, "config.json": json.dumps(config).encode(), WEIGHTS: cleaned.read_bytes()}))
        with in_the_order_of(cleaned):
            model = keras.models.load_model(checked, compile=False, safe_mode=not allow_unsafe)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Discretization) and layer.num_bins:
            layer.finalize_state()  # Keras leaves it without the borders that it had found
    return model


def save_model(model: Model, path: PathLike) -> pathlib.Path:
    """Writes a model as ``.keras`` atomically, without optimizer state; the same model gives the same bytes.

    Args:
        model: A built `keras.Model`.
        path: The file, ending in ``.keras``; replaced if it exists.

    Returns:
        The path.

    Raises:
        ModelError: If the name ends otherwise, or the model cannot be saved.
    """
    target = pathlib.Path(path)
    if target.suffix != ".keras":
        raise ModelError(f"model file {target} does not end in .keras", "a name such as model.keras")
    with temporary_directory() as directory:
        written = directory / "model.keras"
        try:
            model.save(written, save_format="keras")
        except Exception as error:  # whatever a custom layer's get_config raises
            raise machine_error(error) or ModelError(f"model {model.name!r} cannot be saved ({first_line(error)})") from error
        with zipfile.ZipFile(written) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    config = _renumbered(_without_training(json.loads(contents["config.json"])), {})
    contents["config.json"] = json.dumps(config, sort_keys=True).encode()
    contents["metadata.json"] = json.dumps({"keras_version": json.loads(contents["metadata.json"])["keras_version"]}).encode()
    contents[WEIGHTS] = _without_optimizer(contents[WEIGHTS])
    with telling():
        target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, _archive(contents))
    return target


def _archive(contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(contents):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), contents[name])
    return buffer.getvalue()


def _without_training(config: object) -> Any:
    """Drops losses, metrics and optimizers, here and in nested models, and the layers that `Model.add_loss` leaves there."""
    if isinstance(config, Mapping):
        return {key: _without_training(part) for key, part in config.items() if key != "compile_config"}
    if not isinstance(config, list):
        return config
    return [
        _without_training(one) for one in config if not (isinstance(one, Mapping) and one.get("class_name") in FOR_TRAINING)
    ]


def _renumbered(config: object, seen: dict[Any, int]) -> Any:
    """Replaces the memory addresses by which Keras marks shared objects by 0, 1, 2 ... in order of appearance."""
    if isinstance(config, dict):
        return {
            key: seen.setdefault(part, len(seen)) if key == "shared_object_id" else _renumbered(part, seen)
            for key, part in config.items()
        }
    return [_renumbered(part, seen) for part in config] if isinstance(config, list) else config


def _without_optimizer(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(io.BytesIO(content), "r") as old, h5py.File(buffer, "w") as new:
        for key in sorted(old):
            if key not in ("optimizer", "metrics"):
                old.copy(key, new)
    return buffer.getvalue()


def _check_values(model: Model, source: str) -> None:
    for weight in model.weights:
        if weight.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(weight))):
            raise ModelError(f"{source}: {weight.name} holds values that are not finite", "weights that are numbers")
