"""What a file or directory is that is no Keras model, and what its owner can do with it. Imports no TensorFlow."""

from __future__ import annotations

import json
import pathlib
import zipfile
from typing import NamedTuple, Optional

SUFFIXES = (".h5", ".hdf5", ".keras")
"""What files of models are called."""
_ARCHITECTURE_BYTES = 16 * 1024**2
_CHECKPOINT = "Load it with model.load_weights(...) into the model that it belongs to, and save that with model.save(...)"
_CONVERT = "Convert it to Keras first; or to .tflite, which xaic slim makes smaller"


class OtherFile(NamedTuple):
    """What was met, as it stands behind "FILE is", and what can be done."""

    what: str
    fix: str = ""


_BY_SUFFIX = {
    ".onnx": OtherFile("a model in ONNX format", _CONVERT),
    ".pt": OtherFile("a model of PyTorch", _CONVERT),
    ".pth": OtherFile("a model of PyTorch", _CONVERT),
    ".safetensors": OtherFile("weights without a model", _CHECKPOINT),
    ".pkl": OtherFile(
        "a Python pickle, which is code and is not opened", "Load it in Python and save the model with model.save(...)"
    ),
    ".pb": OtherFile("a graph without layers", "Give the model that it was made of"),
    ".index": OtherFile("a checkpoint of weights", _CHECKPOINT),
    ".ckpt": OtherFile("a checkpoint of weights", _CHECKPOINT),
    ".npz": OtherFile("data or weights as arrays", "The model comes first, then the data"),
    ".npy": OtherFile("an array", "The model comes first, then the data"),
    ".csv": OtherFile("a table", "The model comes first, then the data"),
}


def what_it_is(where: pathlib.Path) -> Optional[OtherFile]:
    """Says what was given in place of a Keras model, where that can be told without opening what could run.

    >>> what_it_is(pathlib.Path("net.onnx")).what
    'a model in ONNX format'

    Args:
        where: A file or directory; only its first bytes and names in it are looked at, and JSON up to 16 MiB.

    Returns:
        None for anything that is not known.
    """
    if where.is_dir():
        return _directory(where)
    if _begins(where, 8)[4:] == b"TFL3":
        return OtherFile(
            "a TensorFlow Lite file, whose layers are lost",
            f"Give the Keras model that it was made of; or make it smaller without training: xaic slim {where} --out slim/",
        )
    if _is_architecture(where):
        return OtherFile(
            "an architecture without weights",
            f"Save the model with model.save(...); give its weights, and {{architecture={where}}}",
        )
    if _has_pickle(where):
        return _BY_SUFFIX[".pt"]
    if where.name == "saved_model.pb":
        return OtherFile("one file of a SavedModel", f"Give its directory: {where.parent}")
    if ".data-0" in where.name:
        return _BY_SUFFIX[".index"]
    return _BY_SUFFIX.get(where.suffix.lower())


def _directory(where: pathlib.Path) -> Optional[OtherFile]:
    names = {path.name for path in where.iterdir()}
    models = sorted(name for name in names if name.lower().endswith(SUFFIXES))
    if models:
        return OtherFile(f"a directory that holds {_listed(models)}", f"Give the file: {where / models[0]}")
    inner = sorted(name for name in names if (where / name / "saved_model.pb").is_file())
    if inner:
        return OtherFile(f"a directory that holds {_listed(inner)}", f"Give the SavedModel: {where / inner[0]}")
    if "checkpoint" in names:
        return _BY_SUFFIX[".index"]
    return None


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _begins(where: pathlib.Path, count: int) -> bytes:
    try:
        with where.open("rb") as file:
            return file.read(count)
    except OSError:
        return b""


def _is_architecture(where: pathlib.Path) -> bool:
    if where.suffix.lower() != ".json" or where.stat().st_size > _ARCHITECTURE_BYTES:
        return False
    try:
        value = json.loads(where.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "class_name" in value and "config" in value


def _has_pickle(where: pathlib.Path) -> bool:
    try:
        with zipfile.ZipFile(where) as archive:
            return any(name.rsplit("/", 1)[-1] == "data.pkl" for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
