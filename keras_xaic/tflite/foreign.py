"""Slimming of .tflite files that we did not write: nothing is lost that our schema does not know, nothing that programs read.

These functions run in a child process (see `keras_xaic.isolation`): the schema's generated reader believes what a file says.
"""

from __future__ import annotations

import contextlib
import functools
import io
import lzma
import struct
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

import flatbuffers
import numpy as np

from keras_xaic._keras import tf
from keras_xaic.errors import ExportError
from keras_xaic.npz import ARCHIVE_DAMAGE
from keras_xaic.tflite.container import pack_download
from keras_xaic.tflite.decode import compress_for_micro
from keras_xaic.tflite.flatbuffer import ModelT, load, pack, text
from keras_xaic.tflite.metadata import with_files
from keras_xaic.tflite.micro_kit import micro_files, resolver_calls
from keras_xaic.tflite.same_graph import difference, same
from keras_xaic.tflite.slim import (
    CONVERSION_METADATA,
    TRANSFORMATIONS,
    drop_conversion_metadata,
    drop_inner_names,
    drop_metadata,
    drop_names,
    drop_reshapes_before_dense,
    drop_signature,
    drop_unused_tensors,
)

Step = Callable[[ModelT], None]
BARE: tuple[Step, ...] = (drop_signature, *TRANSFORMATIONS)
"""What is done where programs address inputs and outputs by their number."""
GENTLE: tuple[Step, ...] = (
    drop_inner_names,
    drop_conversion_metadata,
    *(one for one in TRANSFORMATIONS if one not in (drop_names, drop_metadata)),
)
"""What is done otherwise: signatures, names of inputs and outputs, and metadata stay."""
_MOVING = (drop_unused_tensors, drop_reshapes_before_dense)
_WITHOUT_NUMBERS = ("TFLITE_METADATA", "reduced_precision_support", *CONVERSION_METADATA)
"""Metadata that does not refer to tensors or operators by their number."""
_MOST_APPENDED = 64_000_000


def _tells_damage(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Turns what a damaged file leads to into one error."""

    @functools.wraps(function)
    def told(*arguments: object, **options: object) -> dict[str, Any]:
        try:
            return function(*arguments, **options)
        except (TypeError, AttributeError, LookupError, ValueError, OverflowError, struct.error) as error:
            raise ExportError(f"a .tflite file that is damaged ({type(error).__name__}: {error})") from None

    return told


@_tells_damage
def slim_foreign(content: bytes, bare: bool = False, without: Collection[str] = ()) -> dict[str, Any]:
    """Returns a smaller file: ``content``, and ``saved``: step -> bytes that it took away.

    Args:
        content: The file.
        bare: Whether signatures, names of inputs and outputs, and metadata may go, too.
        without: Names of steps that are left out.

    Raises:
        ExportError: If the file holds what would be lost.
    """
    model, end = load_all(content)
    appended = None if bare else _appended(content, end)
    fixed = any(text(entry.name) not in _WITHOUT_NUMBERS for entry in model.metadata or [])
    saved: dict[str, int] = {}
    size = len(content)
    for step in (_write_again, *(BARE if bare else GENTLE)):
        if name_of(step) in without or (fixed and not bare and step in _MOVING):
            continue
        step(model)
        small = pack(model)  # after every step: what each of them saves is told
        saved[name_of(step)] = size - len(small)
        size = len(small)
    another = difference(load(content), load(small))
    if another is not None:
        raise ExportError(f"the file would become another one: {another}")
    if appended:
        small = with_files(small, *appended)
        saved[name_of(_write_again)] -= len(small) - size
    return {"content": small, "saved": saved}


@_tells_damage
def micro_foreign(content: bytes, largest_decoded: int) -> dict[str, Any]:
    """Returns ``content``, a file for TensorFlow Lite Micro, whose weights it may unpack as it runs.

    Raises:
        ExportError: If it cannot be written.
    """
    load_all(content)
    file = compress_for_micro(content, largest_decoded)
    resolver_calls(file.model)
    return {"content": file.content}


def micro_kit_foreign(content: bytes, arena_bytes: int) -> dict[str, Any]:
    """Returns the files of ``micro/`` by their names."""
    return dict(micro_files(content, load(content), arena_bytes))


def convert_foreign(path: str) -> dict[str, Any]:
    """Returns ``content``, the .tflite file of a SavedModel, with float32 values as it computes with."""
    return {"content": tf.lite.TFLiteConverter.from_saved_model(path).convert()}


@_tells_damage
def container_foreign(content: bytes) -> dict[str, Any]:
    """Returns ``content``, the download container of a file."""
    return {"content": pack_download(content)}


def name_of(step: Step) -> str:
    """Returns what a step is called in a report."""
    return step.__name__.strip("_").replace("_", " ")


def _write_again(model: ModelT) -> None:
    """Writes nothing twice; that is what writing a file does."""


def load_all(content: bytes) -> tuple[ModelT, int]:
    """Loads a file whose every field the schema knows; returns it, and where it ends.

    Raises:
        ExportError: If there is something that writing the file again would lose.
    """
    with _watched() as watched:
        model = load(content)
    lost = _unknown_fields(content, watched) or _unknown_options(model)
    if lost is None and any(buffer.offset > 1 for buffer in model.buffers):
        lost = "constants behind the file's tables"
    records = [record for graph in model.subgraphs for record in graph.operators or []]
    if lost is None and any(getattr(record, "largeCustomOptionsOffset", 0) > 1 for record in records):
        lost = "options of operators behind its tables"
    if lost is None and not same(model, load(pack(model))):
        lost = "something that does not come back"
    if lost is not None:
        raise _loss(lost)
    return model, watched.end


def _loss(lost: str) -> ExportError:
    return ExportError(f"the file has {lost}, which this version would lose by writing it again")


@dataclass
class _Watched:
    """What the generated reader looks at.

    Attributes:
        fields: The fields that it asks for, by the position of their table.
        end: Where the last table, list or text ends.
    """

    fields: dict[int, set[int]] = field(default_factory=dict)
    end: int = 0


@contextlib.contextmanager
def _watched() -> Iterator[_Watched]:
    """Yields what the generated reader looks at inside the block."""
    watched, kind = _Watched(), flatbuffers.table.Table
    originals = {name: getattr(kind, name) for name in ("Offset", "String", "GetVectorAsNumpy")}

    def offset(table: Any, number: int) -> int:
        watched.fields.setdefault(table.Pos, set()).add(number)
        return int(originals["Offset"](table, number))

    def string(table: Any, place: int) -> bytes:
        given: bytes = originals["String"](table, place)
        start = table.Indirect(place) + 4
        watched.end = max(watched.end, start + len(given))
        return given

    def vector(table: Any, flags: Any, place: int) -> np.ndarray:
        given: np.ndarray = originals["GetVectorAsNumpy"](table, flags, place)
        watched.end = max(watched.end, table.Vector(place) + given.nbytes)
        return given

    kind.Offset, kind.String, kind.GetVectorAsNumpy = offset, string, vector
    try:
        yield watched
    finally:
        for name, original in originals.items():
            setattr(kind, name, original)


def _unknown_fields(content: bytes, watched: _Watched) -> Optional[str]:
    for position, fields in watched.fields.items():
        place = position - int.from_bytes(content[position : position + 4], "little", signed=True)
        size, length = struct.unpack_from("<2H", content, place)
        watched.end = max(watched.end, place + size, position + length)
        slots = np.frombuffer(content, "<u2", max(0, size // 2 - 2), place + 4)
        unknown = [int(slot) for slot in np.flatnonzero(slots) if 4 + 2 * int(slot) not in fields]
        if unknown:
            return f"a field of a later version of the format (number {unknown[0]} of the table at byte {position:,})"
    return None


def _unknown_options(model: ModelT) -> Optional[str]:
    for graph in model.subgraphs:
        for record in graph.operators or []:
            for name in ("builtinOptions", "builtinOptions2"):
                if getattr(record, f"{name}Type", 0) and getattr(record, name) is None:
                    return f"an operator with options of a later version of the format (type {getattr(record, f'{name}Type')})"
        for tensor in graph.tensors or []:
            if tensor.quantization is not None and tensor.quantization.detailsType and tensor.quantization.details is None:
                return "quantization of a kind of a later version of the format"
    return None


def _appended(content: bytes, end: int) -> Optional[tuple[list[tuple[zipfile.ZipInfo, bytes]], bytes]]:
    """Returns the files that are appended to a .tflite file with metadata, labels and vocabularies, and what is said of them.

    Args:
        content: The file.
        end: Where its tables end.

    Raises:
        ExportError: If they claim to be far larger than the file, or if there is something else behind the tables.
    """
    if not zipfile.is_zipfile(io.BytesIO(content)):
        _check_empty(content[end:])
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(info.file_size for info in archive.infolist()) > _MOST_APPENDED + len(content):
                raise ExportError("appended files that claim to be far larger than the file")
            files = [(info, archive.read(info)) for info in archive.infolist()]
            start = min([info.header_offset for info, _ in files], default=archive.start_dir)
            comment = archive.comment
    except (*ARCHIVE_DAMAGE, lzma.LZMAError) as error:
        raise ExportError(f"appended files that cannot be read ({error})") from None
    _check_empty(content[end:start] + content[content.rfind(b"PK\5\6") + 22 + len(comment) :])
    return files, comment


def _check_empty(behind: bytes) -> None:
    """Refuses bytes behind the tables that are no archive and no padding: a signature, say, that a program looks for."""
    found = behind.strip(b"\0")
    if found:
        raise _loss(f"{len(found):,} bytes behind its tables that are no archive")
