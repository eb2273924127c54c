"""The one reader of .npz files: what a file claims is checked against what is there before memory is taken.

Only what numpy itself writes is read: plain arrays, stored or deflated, without pickles. Large arrays are unpacked into a
temporary file that has no name, and mapped: they take no memory, and nothing is left over however the process ends.
"""

from __future__ import annotations

import math
import mmap
import os
import pathlib
import re
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from keras_xaic.errors import DataError, MachineError, first_line
from keras_xaic.files import PathLike, not_there, unreadable

LARGE = 16_000_000
"""Arrays of more bytes are mapped."""
MOST_RATIO, RATIO_FROM = 200, 256_000_000
"""A file that unpacks to more than `RATIO_FROM` bytes may not grow by more than `MOST_RATIO` (deflate could: 1,032 times)."""
PLAIN_ARRAYS = "an .npz of plain arrays, written by numpy.savez"
_MOST_HEADER = 10_000
_MOST_MEMBERS = 100_000
_PIECE = 1 << 20
_NUMBER = "(?:0|[1-9][0-9]{0,18})L?"
_FIELDS = {
    "descr": re.compile(r"""['"]descr['"]\s*:\s*['"]([<>|=][biufcSU][0-9]{1,9})['"]"""),
    "fortran_order": re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)"""),
    "shape": re.compile(rf"""['"]shape['"]\s*:\s*\(((?:\s*{_NUMBER}\s*,)*\s*(?:{_NUMBER}\s*)?)\)"""),
}
ARCHIVE_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)
"""What `zipfile` raises for an archive that is damaged, encrypted or compressed in a way that it does not know."""
_DAMAGE = (*ARCHIVE_DAMAGE, OverflowError, IndexError, KeyError, TypeError)


class Npz(Mapping[str, np.ndarray]):
    """The arrays of an .npz by name, read when they are asked for.

    Args:
        path: The file.
        expected: What it should be, for messages.

    Raises:
        DataError: If it is no .npz of plain arrays, damaged, or claims more than it holds; here, or when an array is asked for.
        MachineError: If it may not be read, or the disk has no room for a large array.
    """

    def __init__(self, path: PathLike, expected: str = PLAIN_ARRAYS) -> None:
        self.path, self.expected = pathlib.Path(path), expected
        if not self.path.is_file():
            raise DataError(not_there(path), expected)
        try:
            with self.path.open("rb") as file:
                single = file.read(6) == np.lib.format.MAGIC_PREFIX
            if single:
                raise self._error("holds a single array")
            self._archive = zipfile.ZipFile(self.path)
            members = self._archive.infolist()
        except _DAMAGE as error:
            raise unreadable(error) or self._error(f"cannot be read as .npz ({first_line(error)})") from None
        self._members = {member.filename[: -len(".npy")] if member.filename.endswith(".npy") else member.filename: member
                         for member in members}  # fmt: skip
        if len(members) > _MOST_MEMBERS or len(self._members) < len(members):
            raise self._error(f"holds {len(members)} members, of {len(self._members)} names")
        size, there = sum(member.file_size for member in members), self.path.stat().st_size
        if size > max(RATIO_FROM, MOST_RATIO * there):
            raise DataError(
                f"{self.path} has {there:,} bytes and claims to unpack to {size:,}",
                f"at most {MOST_RATIO} times its size",
                "If this is right, write it with numpy.savez, uncompressed",
            )

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __contains__(self, key: object) -> bool:
        return key in self._members

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._members:
            raise KeyError(key)
        member = self._members[key]
        if member.flag_bits & 0x61:
            raise self._error(f"has an encrypted member {key!r}")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self._error(f"has a member {key!r} that is compressed with method {member.compress_type}")
        try:
            with self._archive.open(member) as file:
                dtype, order, shape, start = self._header(key, file)
                needed = math.prod(shape) * dtype.itemsize
                if start + needed != member.file_size:
                    there = max(0, member.file_size - start)
                    raise self._error(f"claims that {key} has the shape {shape} of {dtype}, {needed:,} bytes; it has {there:,}")
                flat = self._unpack(key, file, needed, dtype)
        except _DAMAGE as error:
            raise unreadable(error) or self._error(f"has a member {key!r} that cannot be read ({first_line(error)})") from None
        return flat.reshape(shape, order=order)

    def _header(self, key: str, file: Any) -> tuple[np.dtype, Any, tuple[int, ...], int]:
        """Returns dtype, order, shape and where the values start (numpy.lib.format, "Format Version 1.0")."""
        begin = file.read(8)
        if begin[:6] != np.lib.format.MAGIC_PREFIX or begin[6] not in (1, 2, 3):
            raise self._error(f"has a member {key!r} that is not an array")
        width = 2 if begin[6] == 1 else 4
        length = int.from_bytes(file.read(width), "little")
        header = file.read(length).decode("latin1") if length <= _MOST_HEADER else ""
        found = {name: pattern.search(header) for name, pattern in _FIELDS.items()}
        if found["descr"] is None:
            fix = f"Save {key}.astype('float32'), or {key}.astype(str) of texts"
            raise DataError(f"{self.path} has a member {key!r} of objects, records or times", self.expected, fix)
        if found["shape"] is None or found["fortran_order"] is None:
            raise self._error(f"has a member {key!r} with a damaged header")
        shape = tuple(int(number.rstrip("L")) for number in re.findall(_NUMBER, found["shape"].group(1)))
        if len(shape) > 32 or any(number > 2**40 for number in shape):
            raise self._error(f"has a member {key!r} of the shape {shape}")
        order = "F" if found["fortran_order"].group(1) == "True" else "C"
        return np.dtype(found["descr"].group(1)), order, shape, 8 + width + length

    def _unpack(self, key: str, file: Any, size: int, dtype: np.dtype) -> np.ndarray:
        """Returns the values, flat; the checksum of the member is checked on the way."""
        if size <= LARGE or dtype.itemsize == 0:
            content = file.read(size + 1)
            if len(content) != size:
                raise EOFError(f"{len(content):,} bytes instead of {size:,}")
            return np.frombuffer(bytearray(content), dtype) if size else np.empty(0, dtype)
        with nameless_file(size, f"{key} of {self.path}") as room:
            left = size
            while left:
                piece = file.read(min(left, _PIECE))
                if not piece:
                    raise EOFError(f"{left:,} bytes are missing")
                write_piece(room, piece)
                left -= len(piece)
            file.read(1)  # the end: here the checksum is compared
            return map_values(room, dtype, (size // dtype.itemsize,))

    def _error(self, what: str) -> DataError:
        return DataError(f"{self.path} {what}", self.expected)


def nameless_file(size: int, what: str) -> BinaryIO:
    """Returns an empty file without a name, for `size` bytes; it is gone when nothing holds or maps it any more.

    Raises:
        MachineError: If there is no room for it.
    """
    # /tmp may be memory; /var/tmp is not.
    places = [os.environ["TMPDIR"]] if os.environ.get("TMPDIR") else ["/var/tmp", tempfile.gettempdir()]
    place = next((one for one in places if os.access(one, os.W_OK | os.X_OK)), tempfile.gettempdir())
    fix = "Make room, or name another directory with TMPDIR"
    try:
        if shutil.disk_usage(place).free < size:
            raise MachineError(f"{place} has no room for {what} ({size:,} bytes)", "", fix)
        return tempfile.TemporaryFile(dir=place)
    except OSError as error:
        raise MachineError(f"{place} cannot be written ({error.strerror})", "", fix) from None


def write_piece(room: BinaryIO, piece: Any) -> None:
    """Writes to a file of `nameless_file`.

    Raises:
        MachineError: If the disk is full.
    """
    try:
        room.write(piece)
        room.flush()
    except OSError as error:
        fix = "Make room, or name another directory with TMPDIR"
        raise MachineError(f"large arrays cannot be kept on disk ({error.strerror})", "", fix) from None


class _Mapping(mmap.mmap):
    """A file of `nameless_file` in memory."""


def map_values(room: BinaryIO, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the content of a file of `nameless_file` as an array."""
    return np.ndarray(shape, dtype, _Mapping(room.fileno(), 0))


def release(array: object) -> None:
    """Gives back the memory that reading a mapped array has taken; its values stay. Other arrays are left alone."""
    holder = array
    while holder is not None and not isinstance(holder, _Mapping):
        holder = holder.obj if isinstance(holder, memoryview) else getattr(holder, "base", None)
    if isinstance(holder, _Mapping):
        holder.madvise(mmap.MADV_DONTNEED)
