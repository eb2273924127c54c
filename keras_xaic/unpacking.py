#!/usr/bin/env python3
"""Unpacks a download container (model.xaic) into the byte-identical .tflite file. Python's standard library is enough.

As a program: ``python3 unpack_xaic.py model.xaic model.tflite``. A container, little-endian, is

    "XAIC", version (1 byte), LZMA properties (1), size and CRC-32 of the .tflite file (4 + 4), size of the LZMA stream (4),
    size of what it holds (4), RAM that the C decoder needs for frequencies (4), raw LZMA1 stream, range-coded stream, CRC-32
    of everything before (4).

Version 3 has no size of what the LZMA stream holds and no RAM for frequencies.

The LZMA stream holds a table of regions that were cut out of the file, the bytes of regions that are stored as planes (first
bytes of all numbers, then second bytes, ...), and what is left of the file. Regions of integer weights are range-coded in the
order (out, in, position), in which neighbours are most alike, with frequencies that adapt under contexts of earlier weights.
"""

from __future__ import annotations

import bisect
import lzma
import os
import pathlib
import struct
import sys
import zlib
from typing import Optional

HEADERS = {3: struct.Struct("<4sBBIII"), 4: struct.Struct("<4sBBIIIII")}
MAGIC, VERSION = b"XAIC", 4
INT8, INT4, PLANES, INT2 = 0, 1, 2, 3
LOOKUP = 16
# From here on kinds are those of weights that share bytes as digits, the first the highest: 16 times their largest magnitude
# plus how many a byte holds.
SCHEMES = ("sign", "sign-above", "size", "size-sign", "sizes-sign")
"""Contexts. `sign`: the sign of the weight before; `above`: that of the weight at the same place of the output channel before;
`size`: a running average of the magnitudes before; `sizes`: the mean of that and of a running average of those above."""
PRECISION = 22
INCREMENT = 32  # of a count, when its symbol comes
_TOP = 1 << 32


class Damaged(ValueError):
    """The container is not whole, or not a container."""


class Frequencies:
    """Adaptive frequencies of the levels -limit..limit; they start as a two-sided geometric distribution.

    All arithmetic is in integers, so that every machine decodes the same.

    Args:
        limit: Largest level.
        average: Expected magnitude in 256ths.
    """

    def __init__(self, limit: int, average: int) -> None:
        halves = [1 << 20]
        for _ in range(limit):
            halves.append(halves[-1] * average // (average + 256))
        room = INCREMENT * (limit + 1) * (4 if limit > 7 else 1)  # more than a few levels are learned slowly
        total = 2 * sum(halves) - halves[0]
        self.counts = [1 + room * value // total for value in [*halves[:0:-1], *halves]]
        self.seen = 0
        self.refresh()

    def refresh(self) -> None:
        """Takes the counts over into the cumulative frequencies that are coded with."""
        room = (1 << PRECISION) - len(self.counts)
        total, below, cumulative = sum(self.counts), 0, [0]
        for count in self.counts:
            below += 1 + count * room // total
            cumulative.append(below)
        cumulative[-1] = 1 << PRECISION
        self.cumulative = cumulative
        self.left = min(4 + self.seen // 8, 128)
        self.seen += self.left

    def count(self, symbol: int) -> None:
        """Learns that `symbol` came."""
        self.counts[symbol] += INCREMENT
        self.left -= 1
        if not self.left:
            self.refresh()


class WeightModel:
    """Says, weight by weight, what frequencies the next one has; encoder and decoder follow the same model.

    Args:
        scheme: One of `SCHEMES`.
        limit: Largest magnitude.
        average: Mean magnitude of all weights, in 256ths.
        row: Weights of one output channel; depthwise weights have a channel for each inner index.
    """

    def __init__(self, scheme: str, limit: int, average: int, row: int) -> None:
        self.limit, self.average, self.row = limit, average, row
        self._uses_above, self._uses_sign = scheme == "sign-above", "sign" in scheme
        self._uses_size, self._uses_column = scheme.startswith("size"), scheme.startswith("sizes")
        self._columns = [average] * row
        self._earlier = [0] * row  # the last weights, in a ring
        self._place = self._before = 0
        self.models: dict[int, Frequencies] = {}

    def next(self) -> Frequencies:
        """Returns the frequencies of the next weight."""
        size, context = self.average, 0
        if self._uses_column:
            size = size + self._columns[self._place] >> 1
        if self._uses_size:  # four classes an octave
            octave = size.bit_length()
            context = 4 * octave + (size >> octave - 3 & 3 if octave > 2 else 0)
        if self._uses_sign:
            context = 3 * context + (self._before > 0) - (self._before < 0) + 1
        if self._uses_above:
            above = self._earlier[self._place]
            context = 3 * context + (above > 0) - (above < 0) + 1
        model = self.models.get(context)
        if model is None:
            model = self.models[context] = Frequencies(self.limit, size)
        return model

    def learn(self, weight: int) -> None:
        """Takes notice of the weight that came."""
        magnitude, place = abs(weight) << 8, self._place
        self.average += magnitude - self.average >> 6
        self._columns[place] += magnitude - self._columns[place] >> 3
        self._earlier[place] = self._before = weight
        self._place = place + 1 if place + 1 < self.row else 0


class RangeDecoder:
    """Reads symbols from a range-coded stream (Martin 1979), with 48 bits of state and 16 bits at a time."""

    def __init__(self, stream: bytes) -> None:
        self._words = iter(struct.unpack(f">{len(stream) // 2}H", stream[: len(stream) // 2 * 2]))
        self._range, self._code = 1 << 48, 0
        for _ in range(3):
            self._code = self._code << 16 | next(self._words, 0)

    def symbol(self, cumulative: list[int]) -> int:
        """Returns the next symbol under cumulative frequencies that end at ``2^PRECISION``."""
        step = self._range >> PRECISION
        symbol = bisect.bisect_right(cumulative, min(self._code // step, (1 << PRECISION) - 1)) - 1
        self._code -= step * cumulative[symbol]
        self._range = step * (cumulative[symbol + 1] - cumulative[symbol])
        while self._range < _TOP:
            self._range <<= 16
            self._code = self._code << 16 | next(self._words, 0)
        return symbol

    def weights(self, model: WeightModel, count: int) -> list[int]:
        """Returns the next `count` weights."""
        weights = []
        for _ in range(count):
            frequencies = model.next()
            symbol = self.symbol(frequencies.cumulative)
            frequencies.count(symbol)
            weights.append(symbol - model.limit)
            model.learn(symbol - model.limit)
        return weights


def unpack(blob: bytes) -> bytes:
    """Returns the .tflite file in a container.

    Raises:
        Damaged: If the container is not whole.
    """
    if len(blob) < HEADERS[VERSION].size + 4 or blob[:4] != MAGIC:
        raise Damaged("not a model.xaic container")
    if blob[4] not in HEADERS:
        raise Damaged(f"container version {blob[4]}, this program reads versions {min(HEADERS)} to {VERSION}")
    header = HEADERS[blob[4]]
    _, _, properties, size, check, compressed, *more = header.unpack_from(blob)
    if size > most_content(len(blob)):
        raise Damaged(f"its {len(blob):,} bytes claim to be a file of {size:,}")
    if zlib.crc32(blob[:-4]) != int.from_bytes(blob[-4:], "little"):
        raise Damaged("the checksum of the container does not match")
    try:
        content = _unpack(blob[header.size : -4], properties, size, compressed, most_content(len(blob)), *more[:1])
    except (lzma.LZMAError, LookupError, ValueError, OverflowError) as error:
        raise Damaged(f"the container cannot be decoded ({error})") from None
    if len(content) != size or zlib.crc32(content) != check:
        raise Damaged("the checksum of the unpacked file does not match")
    return content


def most_content(length: int) -> int:
    """Returns how many bytes, and weights, a container of `length` bytes may hold: claims alone take no memory and no time."""
    return 65536 + 256 * length


def _unpack(body: bytes, properties: int, size: int, compressed: int, most: int, held: Optional[int] = None) -> bytes:
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=lzma_filters(properties))
    plain = decompressor.decompress(body[:compressed], 2 * size + 65536)
    if held not in (None, len(plain)):
        raise ValueError("an LZMA stream of another size")
    reader = _Reader(plain)
    decoder = RangeDecoder(body[compressed:])
    regions = [[reader.number() for _ in range(8)] for _ in range(reader.number())]
    counts = [outer * inner * positions for _, _, outer, inner, positions, *_ in regions]
    if 0 in counts or sum(counts) > most or any(shift > 7 or limit > 127 for *_, shift, limit, _ in regions):
        raise ValueError("regions that do not fit the file")
    pieces = []
    for count, (gap, kind, _, inner, positions, shift, limit, coding) in zip(counts, regions):
        if kind == PLANES:
            planes = reader.take(count)
            pieces.append((gap, bytes(byte for number in range(inner) for byte in planes[number::inner])))
            continue
        row = positions if count == inner * positions else inner * positions
        weights = decoder.weights(WeightModel(SCHEMES[coding & 7], limit, coding >> 3, row), count)
        pieces.append((gap, stored_bytes([weight << shift for weight in weights], kind, inner, positions)))
    content = bytearray()
    for gap, piece in pieces:
        content += reader.take(gap) + piece
    return bytes(content + reader.take(2 * size))


def stored_bytes(weights: list[int], kind: int, inner: int, positions: int) -> bytes:
    """Brings weights from the order (outer, inner, positions) to (outer, positions, inner), and into bytes."""
    channels = (weights[start : start + inner * positions] for start in range(0, len(weights), inner * positions))
    stored = [weight for channel in channels for place in range(positions) for weight in channel[place::positions]]
    if kind == INT8:
        return bytes(weight & 255 for weight in stored)
    if kind >= LOOKUP:
        largest, group = divmod(kind, LOOKUP)
        digits = [[digit + largest for digit in stored[start : start + group]] for start in range(0, len(stored), group)]
        return bytes(sum(digit * (2 * largest + 1) ** place for place, digit in enumerate(some[::-1])) for some in digits)
    bits, few = (2, 4) if kind == INT2 else (4, 2)
    parts = [(weight & (1 << bits) - 1) << bits * (place % few) for place, weight in enumerate(stored)]
    return bytes(sum(parts[start : start + few]) for start in range(0, len(parts), few))


def lzma_filters(properties: int) -> list[dict[str, int]]:
    """Returns the filter chain for Python's lzma module; `properties` is ``(pb * 5 + lp) * 9 + lc``."""
    lc, lp, pb = properties % 9, properties // 9 % 5, properties // 45
    return [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 24, "lc": lc, "lp": lp, "pb": pb}]


class _Reader:
    """Reads numbers of 7 bits a byte, and plain bytes."""

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    def number(self) -> int:
        value, byte, shift = 0, 128, 0
        while byte > 127 and shift < 35:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
        return value

    def take(self, count: int) -> bytes:
        self._place += count
        return self._content[self._place - count : self._place]


def write(name: str, content: bytes) -> None:
    """Writes a .tflite file atomically; another kind of file is not replaced."""
    path = pathlib.Path(name)
    if path.exists() and not path.is_file():  # a device or a pipe
        path.write_bytes(content)
        return
    path = pathlib.Path(os.path.realpath(name))  # a link stays one
    if path.exists() and path.read_bytes()[4:8] not in (b"TFL3", b""):
        raise OSError(0, "is there and is no .tflite file", name)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        if part.exists():
            part.unlink()
        raise


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python3 unpack_xaic.py model.xaic model.tflite")
    try:
        write(sys.argv[2], unpack(pathlib.Path(sys.argv[1]).read_bytes()))
    except Damaged as problem:
        sys.exit(f"{sys.argv[1]}: {problem}")
    except OSError as problem:
        sys.exit(f"{problem.filename or sys.argv[2]}: {problem.strerror or problem}")
    except KeyboardInterrupt:
        sys.exit(130)
