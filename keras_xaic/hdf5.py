"""Model files of others before anything is built from them: what they are, and HDF5 copied into a clean file.

A child process copies: the HDF5 library may loop or crash on damaged files. Imports no TensorFlow: its start must cost little.
"""

from __future__ import annotations

import os
import pathlib
import resource
import zipfile
from typing import Any

import h5py
import numpy as np

from keras_xaic.errors import ModelError
from keras_xaic.files import PathLike, machine_fault, not_there, telling
from keras_xaic.isolation import ChildDied, run_isolated
from keras_xaic.other_files import SUFFIXES, OtherFile, what_it_is

FORMATS = "a Keras model: .h5, .keras, or a SavedModel directory"
MAX_WEIGHT_BYTES = 4 * 1024**3
"""Most bytes of arrays that are read at all."""
SMALL = 64 * 1024**2
"""What compressed arrays may unpack to, however small the file is."""
RATIO = 100
"""How many times its own size a file may unpack to beyond that."""
SECONDS = 5.0
"""Processor time for a small file."""
SECONDS_PER_BYTE = 1 / 20e6
BFLOAT16 = "|V2"
"""How HDF5 holds bfloat16: NumPy does not know it."""
_UNUSED = {"optimizer", "optimizer_weights", "metrics"}
_HINT = "Save the model again"


def check_model_path(path: PathLike) -> None:
    """Refuses what is no model file by its first bytes.

    Raises:
        ModelError: If it does not exist, or is neither HDF5, nor a zip archive, nor the directory of a SavedModel or of a
            ``.keras`` that is unpacked.
        MachineError: If it may not be read.
    """
    where = pathlib.Path(path)
    if not where.exists():
        raise ModelError(f"model file {not_there(where, SUFFIXES)}", FORMATS)
    if where.is_dir():
        known = (where / "saved_model.pb").is_file() or (where / "config.json").is_file()
        what = "a directory without a SavedModel"
    elif not where.is_file():  # a pipe would be waited for
        raise ModelError(f"model {where} is not a file", FORMATS)
    else:
        with telling():  # else what may not be read would be called damaged
            where.open("rb").close()
        known = zipfile.is_zipfile(where) or h5py.is_hdf5(where)
        size = where.stat().st_size
        what = f"not a model ({'empty' if size == 0 else f'{size:,} B of another kind or damaged'})"
    if not known:
        other = what_it_is(where) or OtherFile(what)
        raise ModelError(f"{where} is {other.what}", FORMATS, other.fix)


def clean_copy(source: pathlib.Path, target: pathlib.Path, name: str) -> int:
    """Writes the groups, arrays and attributes of an HDF5 file into a new one; what belongs to training stays away.

    Args:
        source: Any file.
        target: The new file.
        name: What the source is called in messages.

    Returns:
        The number of values in all arrays.

    Raises:
        ModelError: If the file is damaged, refers to other files, or claims more than it holds.
    """
    memory = 256 * 1024**2 + 2 * unpacked_limit(source.stat().st_size)
    try:
        made = run_isolated(
            "keras_xaic.hdf5:copy_here", str(source), str(target), name, timeout=600, memory=memory, what="reading it"
        )
    except ChildDied as error:
        raise ModelError(f"{name} is damaged ({error.found})", "HDF5 as Keras writes it", "Copy the file again") from None
    return int(made["values"])


def unpacked_limit(size: int) -> int:
    """Returns how many bytes a file of this size may unpack to."""
    return min(MAX_WEIGHT_BYTES, max(SMALL, RATIO * size))


def copy_here(source: str, target: str, name: str) -> dict[str, Any]:
    """Does what `clean_copy` says, in this process, which may not survive it."""
    size = os.path.getsize(source)
    seconds = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) + SECONDS + size * SECONDS_PER_BYTE) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    try:
        with h5py.File(source, "r") as old, h5py.File(target, "w") as new:
            return {"values": _Copy(name, unpacked_limit(size)).group("", old, new)}
    except ModelError:
        raise
    except MemoryError:
        raise ModelError(f"{name} claims more memory than there is in it", "weights in HDF5", "Copy the file again") from None
    except Exception as error:  # h5py raises whatever the library stumbles upon
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise machine_fault(error) or ModelError(
            f"{name} is damaged ({line})", "HDF5 as Keras writes it", "Copy the file again"
        ) from None


def widened(array: np.ndarray) -> np.ndarray:
    """Returns bfloat16 values as float32; other arrays as they are.

    >>> widened(np.array([0x3FC0], np.uint16).view(BFLOAT16)), widened(np.ones(1, np.float16)).dtype
    (array([1.5], dtype=float32), dtype('float16'))
    """
    if array.dtype.str != BFLOAT16:
        return array
    return np.asarray(array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


class _Copy:
    """One pass over a file."""

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        self.total = self.values = 0
        self.seen: set[int] = set()

    def group(self, path: str, old: Any, new: Any) -> int:
        """Copies the root and, one after the other, all groups in it."""
        pending = [(path, old, new)]
        while pending:
            path, old, new = pending.pop()
            self.attributes(path, old, new)
            for key in old:
                if not path and key in _UNUSED:
                    continue
                name = f"{path}/{key}"
                if not isinstance(old.get(key, getlink=True), h5py.HardLink):
                    raise ModelError(f"{self.name}: entry {name} links elsewhere", "plain arrays", _HINT)
                item = old[key]
                if isinstance(item, h5py.Group):
                    address = h5py.h5o.get_info(item.id).addr
                    if address in self.seen:
                        raise ModelError(f"{self.name}: entry {name} is another one's alias", "plain arrays", _HINT)
                    self.seen.add(address)
                    pending.append((name, item, new.create_group(key)))
                elif isinstance(item, h5py.Dataset):
                    self.array(name, item, new)
                    self.attributes(name, item, new[key])
                else:
                    raise ModelError(f"{self.name}: entry {name} is no array", "plain arrays", _HINT)
        return self.values

    def array(self, name: str, item: Any, new: Any) -> None:
        """Copies one array, once it is known that the file holds it."""
        if item.external or item.is_virtual:
            raise ModelError(f"{self.name}: entry {name} lies in another file", "plain arrays", _HINT)
        if item.shape is None or (item.dtype.kind not in "biuf" and item.dtype.str != BFLOAT16):
            raise ModelError(f"{self.name}: entry {name} holds {item.dtype}", "arrays of numbers", _HINT)
        size, stored = int(item.size) * item.dtype.itemsize, item.id.get_storage_size()
        self.total += size
        if self.total > self.limit:
            raise ModelError(f"{self.name} unpacks to more than {self.limit:,} B of weights", "a smaller model")
        if stored < size and (not stored or item.id.get_create_plist().get_nfilters() == 0):
            raise ModelError(
                f"{self.name}: entry {name} claims {size:,} B, {stored:,} B of which are there", "whole arrays", "Copy it again"
            )
        self.values += int(item.size)
        new.create_dataset(name.rsplit("/", 1)[1], data=widened(item[()]))

    def attributes(self, name: str, old: Any, new: Any) -> None:
        """Copies the attributes that are text, numbers or lists of them."""
        for key in old.attrs:
            value = old.attrs[key]
            if isinstance(value, (bytes, np.bytes_)):
                value = bytes(value).decode()
            if isinstance(value, h5py.Empty):
                value = []
            if isinstance(value, np.ndarray) and value.dtype.kind == "O":
                texts = [one.decode() if isinstance(one, bytes) else one for one in value.ravel()]
                if not all(isinstance(one, str) for one in texts):
                    raise ModelError(f"{self.name}: attribute {key!r} of {name or 'the file'} is no text", "text", _HINT)
                new.attrs.create(key, texts, dtype=h5py.string_dtype())
            else:
                new.attrs[key] = value
