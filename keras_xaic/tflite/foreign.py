"""Slimming of .tflite files that we did not write: nothing is lost that our schema does not know, nothing that programs read.

These functions run in a child process (see `keras_xaic.isolation`): the schema's generated reader believes what a file says.
"""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import zipfile
from collections.abc import Collection, Iterator
from typing import Any, Callable, Optional

import flatbuffers
import numpy as np

from keras_xaic._keras import tf
from keras_xaic.errors import ExportError
from keras_xaic.tflite.container import pack_download
from keras_xaic.tflite.decode import compress_for_micro
from keras_xaic.tflite.flatbuffer import ModelT, load, pack, text
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
    def told(*arguments: Any, **options: Any) -> dict[str, Any]:
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
    model = load_all(content)
    appended = _appended(content)
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
    if appended and not bare:
        small = _append(small, appended)
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
    resolver_calls(load(file.content))
    return {"content": file.content}


def micro_kit_foreign(content: bytes, arena_bytes: int) -> dict[str, Any]:
    """Returns the files of ``micro/`` by their names."""
    return dict(micro_files(content, arena_bytes))


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


def load_all(content: bytes) -> ModelT:
    """Loads a file whose every field the schema knows.

    Raises:
        ExportError: If there is something that writing the file again would lose.
    """
    with _asked() as asked:
        model = load(content)
    lost = _unknown_fields(content, asked) or _unknown_options(model)
    if lost is None and any(buffer.offset > 1 for buffer in model.buffers):
        lost = "constants behind the file's tables"
    if lost is None and not same(model, load(pack(model))):
        lost = "something that does not come back"
    if lost is not None:
        raise ExportError(f"the file has {lost}, which this version would lose by writing it again")
    return model


@contextlib.contextmanager
def _asked() -> Iterator[dict[int, set[int]]]:
    """Yields the fields that the generated reader asks for, by the position of their table."""
    asked: dict[int, set[int]] = {}
    original = flatbuffers.table.Table.Offset

    @functools.wraps(original)
    def offset(table: Any, field: int) -> int:
        asked.setdefault(table.Pos, set()).add(field)
        return int(original(table, field))

    flatbuffers.table.Table.Offset = offset
    try:
        yield asked
    finally:
        flatbuffers.table.Table.Offset = original


def _unknown_fields(content: bytes, asked: dict[int, set[int]]) -> Optional[str]:
    for position, fields in asked.items():
        place = position - int.from_bytes(content[position : position + 4], "little", signed=True)
        size = int.from_bytes(content[place : place + 2], "little")
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


def _appended(content: bytes) -> list[tuple[zipfile.ZipInfo, bytes]]:
    """Returns the files that are appended to a .tflite file with metadata: labels and vocabularies.

    Raises:
        ExportError: If they claim to be far larger than the file.
    """
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return []
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(info.file_size for info in archive.infolist()) > _MOST_APPENDED + len(content):
                raise ExportError("appended files that claim to be far larger than the file")
            return [(info, archive.read(info)) for info in archive.infolist()]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise ExportError(f"appended files that cannot be read ({error})") from None


def _append(content: bytes, files: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    whole = io.BytesIO(content)
    with zipfile.ZipFile(whole, "a") as archive:
        for info, data in files:
            archive.writestr(info, data)
    return whole.getvalue()
