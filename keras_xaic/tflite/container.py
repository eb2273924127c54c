"""The download container: integer weights through an adaptive range coder, everything else through LZMA.

The idea is DeepCABAC's (Wiedemann et al. 2020, arXiv 1907.11900): frequencies that adapt, under contexts of earlier weights;
here with whole weights as symbols instead of binary decisions. The format is described, and decoded, in
`keras_xaic.unpacking`.
"""

from __future__ import annotations

import functools
import lzma
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from keras_xaic import unpacking
from keras_xaic.errors import ExportError
from keras_xaic.tflite.entropy import Coding, RangeEncoder, best_coding, coding_order, encode_weights
from keras_xaic.tflite.flatbuffer import INT2, TensorType, constant, load, schema
from keras_xaic.tflite.pairing import WeightOperator, weight_operators

SAMPLE = 1 << 16
"""LZMA settings are chosen by compressing this many bytes with each."""
LEAST_WEIGHTS = 64
"""Smaller tensors cost more as regions than they save."""
_KINDS = {TensorType.INT8: unpacking.INT8, TensorType.INT4: unpacking.INT4, INT2: unpacking.INT2}
_WIDTHS = {TensorType.INT32: 4, TensorType.FLOAT32: 4, TensorType.FLOAT16: 2, TensorType.INT16: 2}
_LARGEST = {unpacking.INT8: 127, unpacking.INT4: 7, unpacking.INT2: 1}
_PROPERTIES = tuple((pb * 5 + lp) * 9 + lc for lc, lp, pb in ((3, 0, 2), (3, 0, 0), (0, 2, 2), (2, 2, 2), (1, 2, 2), (0, 0, 2)))
"""LZMA settings that are tried."""


@dataclass(frozen=True)
class Region:
    """A stretch of the file that is stored in another form.

    Attributes:
        start: Its first byte in the file.
        size: Number of its bytes.
        kind: `unpacking.INT8`, `unpacking.INT4`, `unpacking.INT2` or `unpacking.PLANES`; of weights that are looked up,
            `unpacking.LOOKUP` times their largest magnitude plus how many a byte holds.
        shape: (outer, inner, positions) of weights; (1, numbers, bytes of each) of planes.
        values: Weights in coding order, or the planes' bytes.
        coding: How weights are modelled; None for planes.
    """

    start: int
    size: int
    kind: int
    shape: tuple[int, int, int]
    values: np.ndarray
    coding: Optional[Coding] = None


def pack_download(tflite: bytes) -> bytes:
    """Returns a .tflite file as download container; the same file always gives the same bytes.

    The container is never larger than the file compressed by xz.

    Args:
        tflite: Any .tflite file.

    Raises:
        ExportError: If it is not one.
    """
    return _packed(bytes(tflite))


@functools.lru_cache(maxsize=2)
def _packed(tflite: bytes) -> bytes:
    """Returns what `pack_download` does; the file of the last round is the one that is written."""
    try:
        regions = _apart(sorted(find_regions(tflite), key=lambda region: region.start))
    except (TypeError, AttributeError, LookupError, ValueError, struct.error) as error:
        raise ExportError(f"a .tflite file that is damaged ({type(error).__name__}: {error})") from None
    weights = [region for region in regions if region.coding]
    coded, models = _encode(weights)
    ways: tuple[tuple[Sequence[Region], bytes, int], ...] = ((regions, coded, models), (weights, coded, models), ([], b"", 0))
    return min((_container(tflite, *way) for way in ways), key=len)


def find_regions(tflite: bytes) -> Iterator[Region]:
    """Yields what is better stored in another form: integer weights to code, and planes of numbers of several bytes."""
    model = load(tflite)
    places = _buffer_places(tflite)
    done: set[int] = set()
    for one in weight_operators(model):
        number = int(one.stored.buffer)
        for region in () if places[number].start in done else _weights(one, places[number]):
            done.add(region.start)
            yield region
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        place, width = places[int(tensor.buffer)], _WIDTHS.get(tensor.type, 1)
        if width > 1 and len(place) >= 64 and len(place) % width == 0 and place.start not in done:
            done.add(place.start)
            yield _planes(tflite, place, width)


def _apart(regions: Sequence[Region]) -> list[Region]:
    """Leaves out regions that begin inside others: files of other writers may have such buffers."""
    kept: list[Region] = []
    for region in regions:
        if not kept or region.start >= kept[-1].start + kept[-1].size:
            kept.append(region)
    return kept


def _buffer_places(tflite: bytes) -> list[range]:
    """Returns where the bytes of every buffer lie in the file."""
    root = schema.Model.GetRootAsModel(tflite, 0)
    places = []
    for number in range(root.BuffersLength()):
        table = root.Buffers(number)._tab
        field = table.Offset(4)  # Buffer.data is the first field of the schema
        start = table.Vector(field) if field else 0
        places.append(range(start, start + (table.VectorLen(field) if field else 0)))
    return places


def _weights(one: WeightOperator, place: range) -> Iterator[Region]:
    if one.weights.dtype != np.int8 or one.weights.size < LEAST_WEIGHTS:
        return
    stored = one.weights.astype(np.int64)
    largest = int(np.abs(stored).max())
    kind = _KINDS.get(one.weight_tensor.type) if one.codes is None else _kind_of_codes(stored, one, largest)
    if kind is None or largest > _LARGEST.get(kind, 127):
        return
    inner = stored.shape[-1]
    outer = stored.shape[0]  # 1 for depthwise weights, whose channels are the inner axis
    shape = (outer, inner, stored.size // (outer * inner))
    values = coding_order(stored, shape)
    row = shape[2] if outer == 1 else stored.size // outer
    yield Region(place.start, len(place), kind, shape, values, best_coding(values, row))


def _kind_of_codes(stored: np.ndarray, one: WeightOperator, largest: int) -> Optional[int]:
    """Returns the kind of a region of weights that share bytes, None where these are not the digits that `look_up` writes."""
    codes = None if one.codes is None else constant(one.operator.model, one.codes)
    if codes is None or stored.size % codes.size or not 1 <= largest <= 7:
        return None
    kind = largest * unpacking.LOOKUP + stored.size // codes.size
    written = bytes(codes.ravel().tolist())
    return kind if unpacking.stored_bytes(stored.ravel().tolist(), kind, stored.size, 1) == written else None


def _planes(tflite: bytes, place: range, width: int) -> Region:
    numbers = np.frombuffer(tflite, np.uint8, len(place), place.start).reshape(-1, width)
    return Region(place.start, len(place), unpacking.PLANES, (1, len(numbers), width), numbers.T.ravel())


def _encode(regions: Sequence[Region]) -> tuple[bytes, int]:
    """Returns the stream of weights, and the bytes of RAM that the C decoder needs for the most demanding region."""
    encoder, most = RangeEncoder(), 0
    for region in regions:
        assert region.coding is not None
        channel = region.shape[1] * region.shape[2]
        most = max(most, encode_weights(encoder, region.values, region.coding) + 4 * -(-channel // 4))
    return encoder.finish(), most


def _container(tflite: bytes, regions: Sequence[Region], coded: bytes, models: int) -> bytes:
    table, planes, rest, end = _varint(len(regions)), b"", b"", 0
    for region in regions:
        coding = region.coding
        how = (
            (coding.shift, coding.limit, unpacking.SCHEMES.index(coding.scheme) | coding.average << 3) if coding else (0, 0, 0)
        )
        table += b"".join(_varint(number) for number in (region.start - end, region.kind, *region.shape, *how))
        if coding is None:
            planes += region.values.tobytes()
        rest += tflite[end : region.start]
        end = region.start + region.size
    content = table + planes + rest + tflite[end:]
    body, properties = _smallest_lzma(content)
    facts = (properties, len(tflite), zlib.crc32(tflite), len(body), len(content), models)
    whole = unpacking.HEADERS[unpacking.VERSION].pack(unpacking.MAGIC, unpacking.VERSION, *facts) + body + coded
    largest = max(len(tflite), sum(len(region.values) for region in regions))
    while unpacking.most_content(len(whole) + 4) < largest:  # more than a reader would believe: zeros change nothing
        whole += bytes(1 + (largest - unpacking.most_content(len(whole) + 4)) // 256)
    return whole + struct.pack("<I", zlib.crc32(whole))


def _smallest_lzma(content: bytes) -> tuple[bytes, int]:
    """Returns the raw LZMA1 stream and its properties: xz's own, or those that are best for the start of the content."""
    trials = [(len(_lzma(content[:SAMPLE], properties)), properties) for properties in _PROPERTIES]
    streams = [(_lzma(content, properties), properties) for properties in dict.fromkeys((_PROPERTIES[0], min(trials)[1]))]
    return min(streams, key=lambda stream: len(stream[0]))


def _lzma(content: bytes, properties: int) -> bytes:
    return lzma.compress(content, lzma.FORMAT_RAW, filters=_filters(properties, len(content)))


def _filters(properties: int, size: int) -> list[dict[str, Any]]:
    (decoder,) = unpacking.lzma_filters(properties)
    window = min(decoder["dict_size"], max(4096, 1 << size.bit_length()))  # a window larger than the content only costs time
    return [{**decoder, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}]


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])
