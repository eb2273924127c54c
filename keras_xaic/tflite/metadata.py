"""TFLite metadata: what a program must know of a file to feed it images and to name its classes.

Its parts have the numbers of TensorFlow Lite Support's ``metadata_schema.fbs``; names of classes lie in a zip archive behind
the model, not compressed, as Android's and MediaPipe's readers take them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import flatbuffers
import numpy as np

from keras_xaic.errors import DataError, ExportError
from keras_xaic.tflite.flatbuffer import load, pack, schema
from keras_xaic.tflite.flatbuffer import text as text_of

NAME, IDENTIFIER = "TFLITE_METADATA", b"M001"
LABELS = "labels.txt"
PARSER = "1.0.0"
"""The oldest reader that knows all that is written here."""
_FEATURE, _IMAGE, _NORMALIZATION, _AXIS_LABELS = 1, 2, 1, 2
_COLOURS = {1: 2, 3: 1}
"""Channels -> color space: gray, RGB."""


@dataclass(frozen=True)
class Normalization:
    """How pixels from 0 to 255 become what the model sees: ``pixel * scale + offset``."""

    scale: float
    offset: float


def with_metadata(
    content: bytes,
    names: tuple[Sequence[str], Sequence[str]],
    normalization: Sequence[Optional[Normalization]],
    classes: Sequence[str] = (),
) -> bytes:
    """Returns a file with metadata; of images that it takes as uint8, the codes become pixels.

    Args:
        content: A .tflite file without metadata.
        names: Of its inputs and its outputs, in their order.
        normalization: Of each input that takes images (1, height, width, 1 or 3); None for other inputs.
        classes: Names of the classes of the only output; empty where they are not known.

    Raises:
        ExportError: If an image is taken as codes that cannot be its pixels.
    """
    model = load(content)
    graph = model.subgraphs[0]
    tensors = [graph.tensors[int(index)] for index in graph.inputs]
    shapes = [tuple(int(n) for n in tensor.shape) for tensor in tensors]
    for number, (tensor, one) in enumerate(zip(tensors, normalization)):
        if one is not None and tensor.type != schema.TensorType.FLOAT32:
            _take_pixels(number, tensor, one)
    widths = [int(graph.tensors[int(index)].shape[-1]) for index in graph.outputs]
    labelled = bool(classes) and widths == [len(classes)]
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(_described(names, shapes, normalization, labelled), np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    packed, labels = pack(model), "".join(f"{one}\n" for one in classes).encode()
    return with_files(packed, [(zipfile.ZipInfo(LABELS), labels)]) if labelled else packed  # dated 1980: the same every time


def with_files(content: bytes, files: Sequence[tuple[zipfile.ZipInfo, bytes]], comment: bytes = b"") -> bytes:
    """Returns a .tflite file with other files, and a comment on them, in an archive behind it."""
    whole = io.BytesIO(content)
    with zipfile.ZipFile(whole, "a") as archive:
        archive.comment = comment
        for info, data in files:
            archive.writestr(info, data)
    return whole.getvalue()


def metadata_bytes(content: bytes) -> int:
    """Returns how many bytes of a file are its metadata."""
    model = load(content)
    kept = [one for one in model.metadata or [] if text_of(one.name) != NAME]
    if len(kept) == len(model.metadata or []):
        return 0
    (place,) = [one.buffer for one in model.metadata if text_of(one.name) == NAME]
    if place == len(model.buffers) - 1:
        model.buffers.pop()
    model.metadata = kept or None
    return len(content) - len(pack(model))


def is_image(shape: Sequence[int]) -> bool:
    """Returns whether a shape with the batch is that of an image."""
    return len(shape) == 4 and shape[-1] in _COLOURS and min(shape[1:3]) > 1


def pixels_of(number: int, x: Any, scale: float, offset: float) -> Normalization:
    """Returns the normalization of data that holds pixels.

    Args:
        number: Of the input.
        x: Samples as the data holds them.
        scale: The model sees ``x * scale + offset``.
        offset: See `scale`.

    Raises:
        DataError: If the data is normalized already: nothing says how pixels become that.
    """
    low, high = float(np.min(x)), float(np.max(x))
    if low < 0 or high > 255 or high <= 2:
        raise DataError(
            f"the images of input {number} have values from {low:g} to {high:g}: metadata must say how pixels become them",
            "pixels from 0 to 255, and what the model sees of them",
            "Give data with pixels, and {scale=0.00392}",
        )
    return Normalization(scale, offset)


def _take_pixels(number: int, tensor: Any, one: Normalization) -> None:
    """Makes the codes of an uint8 input pixels; the operator behind it brings them to what the model computes with."""
    zero = -one.offset / one.scale
    if tensor.type != schema.TensorType.UINT8 or one.scale < 0 or abs(zero - round(zero)) > 1e-3 or not 0 <= round(zero) <= 255:
        raise ExportError(
            f"the codes that input {number} of model.tflite takes cannot be pixels, which programs give to it with metadata",
            "uint8 codes, of which one means 0; or float32 values",
            "Choose {io=float32}",
        )
    tensor.quantization.scale = np.array([one.scale], np.float32)
    tensor.quantization.zeroPoint = np.array([round(zero)], np.int64)


def _described(
    names: tuple[Sequence[str], Sequence[str]],
    shapes: Sequence[tuple[int, ...]],
    normalization: Sequence[Optional[Normalization]],
    labelled: bool,
) -> bytes:
    builder = flatbuffers.Builder(512)
    inputs = [_input(builder, *one) for one in zip(names[0], shapes, normalization)]
    outputs = [_output(builder, name, labelled) for name in names[1]]
    graph = _table(builder, {2: _vector(builder, inputs), 3: _vector(builder, outputs)})
    texts = {0: builder.CreateString("model"), 7: builder.CreateString(PARSER)}
    builder.Finish(_table(builder, {**texts, 3: _vector(builder, [graph])}), IDENTIFIER)
    return bytes(builder.Output())


def _input(builder: Any, name: str, shape: tuple[int, ...], one: Optional[Normalization]) -> int:
    parts = {0: builder.CreateString(name)}
    if one is None:
        return _table(builder, {**parts, 3: _content(builder, _FEATURE, _table(builder, {}))})
    size = _table(builder, {}, {0: shape[2], 1: shape[1]})
    image = _table(builder, {1: size}, small={0: _COLOURS[shape[3]]})
    mean, std = (_floats(builder, [value]) for value in (-one.offset / one.scale, 1.0 / one.scale))
    options = _table(builder, {0: mean, 1: std})
    unit = _table(builder, {1: options}, small={0: _NORMALIZATION})
    return _table(builder, {**parts, 3: _content(builder, _IMAGE, image), 4: _vector(builder, [unit])})


def _output(builder: Any, name: str, labelled: bool) -> int:
    parts = {0: builder.CreateString(name), 3: _content(builder, _FEATURE, _table(builder, {}))}
    if labelled:
        file = _table(builder, {0: builder.CreateString(LABELS)}, small={2: _AXIS_LABELS})
        parts[6] = _vector(builder, [file])
    return _table(builder, parts)


def _content(builder: Any, kind: int, properties: int) -> int:
    return _table(builder, {1: properties}, small={0: kind})


def _table(
    builder: Any,
    offsets: dict[int, int],
    numbers: Optional[dict[int, int]] = None,
    small: Optional[dict[int, int]] = None,
) -> int:
    """Writes a table: place -> offset, number of 32 bits, number of 8 bits; returns its offset."""
    numbers, small = numbers or {}, small or {}
    builder.StartObject(max([-1, *offsets, *numbers, *small]) + 1)
    for place, value in offsets.items():
        builder.PrependUOffsetTRelativeSlot(place, value, 0)
    for place, value in numbers.items():
        builder.PrependUint32Slot(place, value, 0)
    for place, value in small.items():
        builder.PrependUint8Slot(place, value, 0)
    return int(builder.EndObject())


def _vector(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for one in reversed(offsets):
        builder.PrependUOffsetTRelative(one)
    return int(builder.EndVector())


def _floats(builder: Any, values: Sequence[float]) -> int:
    return int(builder.CreateNumpyVector(np.array(values, np.float32)))
