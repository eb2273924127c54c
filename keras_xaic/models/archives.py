"""Files that models come in, read with limits: zip archives and HDF5, without leaving the file or filling the memory."""

from __future__ import annotations

import io
import json
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import h5py

from keras_xaic.errors import ModelError

MAX_WEIGHT_BYTES = 4 * 1024**3
MAX_CONFIG_BYTES = 64 * 1024**2

WEIGHTS = "model.weights.h5"
_TEXTS = ("config.json", "metadata.json")


def read_archive(path: pathlib.Path) -> dict[str, bytes]:
    """Reads the members of a ``.keras`` archive.

    Args:
        path: The archive.

    Returns:
        The contents of ``config.json``, ``metadata.json`` and ``model.weights.h5``.

    Raises:
        ModelError: If the archive is damaged, holds anything else, or unpacks to more than the limits.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_members(archive, path)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error})", "a .keras archive written by Keras", "Copy the file again") from None


def _read_members(archive: zipfile.ZipFile, path: pathlib.Path) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for member in archive.infolist():
        name = member.filename
        if name.startswith(("/", "\\")) or ".." in pathlib.PurePosixPath(name.replace("\\", "/")).parts or ":" in name:
            raise ModelError(f"{path} holds a member that leaves the archive ({name!r})", "a .keras archive written by Keras")
        if member.is_dir():
            continue
        if name == "model.weights.npz":
            raise ModelError(
                f"{path} holds its weights as {name}, a format that can carry Python code", WEIGHTS, "Save the model again"
            )
        if name.startswith("assets/"):
            raise ModelError(f"{path} holds the asset {name!r}", "a model without vocabulary files")
        if name not in (*_TEXTS, WEIGHTS):
            raise ModelError(f"{path} holds the unexpected member {name!r}", "a .keras archive written by Keras")
        if name in contents:
            raise ModelError(f"{path} holds {name} twice", "a .keras archive written by Keras")
        limit = MAX_WEIGHT_BYTES if name == WEIGHTS else MAX_CONFIG_BYTES
        if member.file_size > limit:
            raise ModelError(f"{path}: {name} unpacks to {member.file_size:,} B", f"at most {limit:,} B")
        contents[name] = archive.read(member)
    missing = [name for name in ("config.json", WEIGHTS) if name not in contents]
    if missing:
        raise ModelError(f"{path} has no {missing[0]}", "a .keras archive written by Keras")
    contents.setdefault("metadata.json", b"{}")
    return contents


def open_weights(content: bytes, source: str) -> h5py.File:
    """Opens HDF5 weights from memory, checked as by `check_hdf5`."""
    try:
        file = h5py.File(io.BytesIO(content), "r")
    except OSError as error:
        raise ModelError(f"{source} is damaged ({error})", "weights in HDF5", "Copy the file again") from None
    check_hdf5(file, source)
    return file


def check_hdf5(file: h5py.File, source: str) -> None:
    """Refuses an HDF5 file that refers to other files or whose arrays are larger than the limit.

    Raises:
        ModelError: Naming the entry.
    """
    total, seen = 0, set()
    pending: list[tuple[str, Any]] = [("", file)]
    while pending:
        prefix, group = pending.pop()
        for key in group:
            name = f"{prefix}/{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise ModelError(f"{source}: entry {name} links elsewhere", "plain arrays", "Save the model again")
            item = group[key]
            if isinstance(item, h5py.Group):
                address = h5py.h5o.get_info(item.id).addr
                if address in seen:
                    raise ModelError(f"{source}: entry {name} is another one's alias", "plain arrays", "Save the model again")
                seen.add(address)
                pending.append((name, item))
                continue
            if item.external or item.is_virtual:
                raise ModelError(f"{source}: entry {name} lies in another file", "plain arrays", "Save the model again")
            total += item.size * item.dtype.itemsize if item.shape is not None else 0
            if total > MAX_WEIGHT_BYTES:
                raise ModelError(f"{source} unpacks to more than {MAX_WEIGHT_BYTES:,} B of weights", "a smaller model")


def read_json(content: Any, source: str) -> Mapping[str, Any]:
    """Parses JSON that must be an object.

    Raises:
        ModelError: If it is not.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{source} is not readable JSON ({error})", "a model configuration written by Keras") from None
    if not isinstance(value, Mapping):
        raise ModelError(f"{source} holds a {type(value).__name__}", "a model configuration written by Keras")
    return value
