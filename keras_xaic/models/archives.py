"""Archives that models come in, read with limits, without leaving the file or filling the memory."""

from __future__ import annotations

import json
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

from keras_xaic.errors import ModelError
from keras_xaic.files import telling
from keras_xaic.hdf5 import FORMATS, MAX_WEIGHT_BYTES, unpacked_limit
from keras_xaic.models.texts import behind
from keras_xaic.npz import ARCHIVE_DAMAGE
from keras_xaic.other_files import what_it_is

MAX_CONFIG_BYTES = 16 * 1024**2
SMALL_CONFIG = 1024**2
"""What a configuration may unpack to, however small the archive is."""
CONFIG_RATIO = 100

WEIGHTS = "model.weights.h5"
_TEXTS = ("config.json", "metadata.json")


def read_archive(path: pathlib.Path) -> dict[str, bytes]:
    """Reads the members of a ``.keras`` archive, or of the directory that Keras 3 writes in place of one.

    Args:
        path: The archive, or what ``save_model(..., zipped=False)`` wrote.

    Returns:
        The contents of ``config.json``, ``metadata.json`` and ``model.weights.h5``.

    Raises:
        ModelError: If the archive is damaged, holds anything else, or unpacks to more than the limits.
    """
    if path.is_dir():
        return _read_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_members(archive, path)
    except ARCHIVE_DAMAGE as error:
        raise ModelError(f"{path} is damaged ({error})", "a .keras archive written by Keras", "Copy the file again") from None


def is_unpacked(path: pathlib.Path) -> bool:
    """Whether a path is a ``.keras`` archive that is a directory."""
    return path.is_dir() and (path / "config.json").is_file() and not (path / "saved_model.pb").exists()


def _read_directory(path: pathlib.Path) -> dict[str, bytes]:
    contents = {"metadata.json": b"{}"}
    for name, limit in {**dict.fromkeys(_TEXTS, MAX_CONFIG_BYTES), WEIGHTS: MAX_WEIGHT_BYTES}.items():
        member = path / name
        if not member.is_file():
            if name in contents:
                continue
            raise ModelError(
                f"{path} has no {name}", "what Keras writes with zipped=False", "Save the model as one .keras file"
            )
        size = member.stat().st_size
        if size > limit:
            raise ModelError(f"{member} has {size:,} B", f"at most {limit:,} B")
        with telling():
            contents[name] = member.read_bytes()
    if any((path / "assets").glob("*")):
        raise _vocabulary(f"{path} holds assets")
    return contents


def _read_members(archive: zipfile.ZipFile, path: pathlib.Path) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    size = path.stat().st_size
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
            raise _vocabulary(f"{path} holds the asset {name!r}")
        if name not in (*_TEXTS, WEIGHTS):
            other = what_it_is(path)
            if other is not None:
                raise ModelError(f"{path} is {other.what}", FORMATS, other.fix)
            raise ModelError(f"{path} holds the unexpected member {name!r}", "a .keras archive written by Keras")
        if name in contents:
            raise ModelError(f"{path} holds {name} twice", "a .keras archive written by Keras")
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ModelError(f"{path}: {name} is encrypted or packed in an unusual way", "a .keras archive written by Keras")
        limit = unpacked_limit(size) if name == WEIGHTS else min(MAX_CONFIG_BYTES, max(SMALL_CONFIG, CONFIG_RATIO * size))
        if member.file_size > limit:
            raise ModelError(f"{path}: {name} unpacks to {member.file_size:,} B", f"at most {limit:,} B")
        contents[name] = archive.read(member)
    missing = [name for name in ("config.json", WEIGHTS) if name not in contents]
    if missing:
        raise ModelError(f"{path} has no {missing[0]}", "a .keras archive written by Keras")
    contents.setdefault("metadata.json", b"{}")
    return contents


def _vocabulary(found: str) -> ModelError:
    fix = (
        f"Tables of numbers are in the configuration if they are made with vocabulary=. Where texts are read: {behind('LAYER')}"
    )
    return ModelError(found, "a model without vocabulary files", fix)


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
