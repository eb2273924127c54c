#!/usr/bin/env python3
"""Unpacks a download container (model.xaic) into the byte-identical .tflite file. Python's standard library is enough.

As a program: ``python3 unpack_xaic.py model.xaic model.tflite``. A container, little-endian, is

    "XAIC", version (1 byte), codec (1), LZMA properties (1), size and CRC-32 of the .tflite file (4 + 4),
    size of the LZMA stream (4), raw LZMA1 stream, range-coded stream, CRC-32 of everything before (4).

The LZMA stream holds a table of regions that were cut out of the file, the bytes of regions that are stored as planes (first
bytes of all numbers, then second bytes, ...), and what is left of the file. Regions of integer weights are range-coded in the
order (out, in, position), in which neighbours are most alike, with adaptive frequencies under contexts of earlier weights.
"""

from __future__ import annotations

import bisect
import lzma
import pathlib
import struct
import sys
import zlib

HEADER = struct.Struct("<4sBBBIII")
MAGIC, VERSION = b"XAIC", 1
INT8, INT4, PLANES = 0, 1, 2
SCHEMES = ("sign", "sign-above", "nearby", "column")
"""What the frequencies of a weight depend on: the sign of the weight before it; that and the sign of the weight above it (the
same place of the output channel before); the sign and the sizes of `WINDOW` weights before it and of `CHANNELS` weights above
it; the sign and the sizes of those above alone."""
CONTEXTS = {"sign": 3, "sign-above": 9, "nearby": 48, "column": 48}
WINDOW, CHANNELS = 32, 8
PRECISION = 16
INCREMENT = 32
BUCKETS = (8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Smallest magnitudes of the classes that share one symbol; what tells their members apart is coded in plain bits."""
HALF = 7 + len(BUCKETS) - 1
_TOP, _WORD = 1 << 32, 0xFFFF


class Damaged(ValueError):
    """The container is not whole, or not a container."""


class Frequencies:
    """Adaptive frequencies of the symbols under one context.

    Args:
        symbols: Number of symbols.
    """

    def __init__(self, symbols: int) -> None:
        self.counts = [8] * symbols
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


def context_of(scheme: str, before: int, above: int, nearby: int, column: int) -> int:
    """Returns the context of a weight.

    Args:
        scheme: One of `SCHEMES`.
        before: The weight before it in coding order, 0 at the start.
        above: The weight one output channel earlier, 0 in the first channel.
        nearby: Sum of the magnitudes of the `WINDOW` weights before it.
        column: Sum of the magnitudes at its place in the `CHANNELS` output channels before.
    """
    sign = (before > 0) - (before < 0) + 1
    if scheme == "sign":
        return sign
    if scheme == "sign-above":
        return 3 * sign + (above > 0) - (above < 0) + 1
    return 3 * (column if scheme == "column" else nearby + column).bit_length() + sign


class RangeDecoder:
    """Reads symbols from a range-coded stream (Martin 1979), with 48 bits of state and 16 bits at a time.

    Args:
        stream: The bytes.
    """

    def __init__(self, stream: bytes) -> None:
        self._words = iter(struct.unpack(f">{len(stream) // 2}H", stream[: len(stream) // 2 * 2]))
        self._range = 1 << 48
        self._code = 0
        for _ in range(3):
            self._code = self._code << 16 | next(self._words, 0)

    def symbol(self, cumulative: list[int], precision: int = PRECISION) -> int:
        """Returns the next symbol under cumulative frequencies that end at ``2^precision``."""
        step = self._range >> precision
        symbol = bisect.bisect_right(cumulative, min(self._code // step, (1 << precision) - 1)) - 1
        self._narrow(step * cumulative[symbol], step * (cumulative[symbol + 1] - cumulative[symbol]))
        return symbol

    def bits(self, count: int) -> int:
        """Returns the next `count` equally likely bits."""
        step = self._range >> count
        value = min(self._code // step, (1 << count) - 1)
        self._narrow(step * value, step)
        return value

    def _narrow(self, low: int, width: int) -> None:
        self._code -= low
        while width < _TOP:
            width <<= 16
            self._code = self._code << 16 | next(self._words, 0)
        self._range = width


def decode_weights(decoder: RangeDecoder, count: int, row: int, scheme: str, limit: int) -> list[int]:
    """Returns `count` weights.

    Args:
        decoder: Where to read.
        count: Number of weights.
        row: Weights of one output channel.
        scheme: One of `SCHEMES`.
        limit: Every weight of -limit..limit is a symbol; with 0, classes of weights are.
    """
    symbols = 2 * (limit or HALF) + 1
    models = [Frequencies(symbols) for _ in range(CONTEXTS[scheme])]
    start, columns = max(CHANNELS * row, WINDOW), [0] * row
    weights = [0] * start  # what lies before the first weight
    nearby = before = 0
    for place in range(start, start + count):
        column = (place - start) % row
        model = models[context_of(scheme, before, weights[place - row], nearby, columns[column])]
        symbol = decoder.symbol(model.cumulative)
        model.count(symbol)
        before = symbol - (limit or HALF)
        if not limit and abs(before) > 7:
            first, end = BUCKETS[abs(before) - 8], BUCKETS[abs(before) - 7]
            magnitude = first + decoder.bits((end - first).bit_length() - 1)
            before = magnitude if before > 0 else -magnitude
        weights.append(before)
        nearby += abs(before) - abs(weights[place - WINDOW])
        columns[column] += abs(before) - abs(weights[place - CHANNELS * row])
    return weights[start:]


def row_length(outer: int, inner: int, positions: int) -> int:
    """Returns how many weights one output channel has; depthwise weights (outer = 1) have a channel for each inner index."""
    return positions if outer == 1 else inner * positions


def stored_order(weights: list[int], outer: int, inner: int, positions: int) -> list[int]:
    """Brings weights from (outer, inner, positions), in which they are coded, to (outer, positions, inner)."""
    if positions == 1 or inner == 1:
        return weights
    stored: list[int] = []
    for start in range(0, outer * inner * positions, inner * positions):
        channel = weights[start : start + inner * positions]
        for position in range(positions):
            stored.extend(channel[position::positions])
    return stored


def unpack(blob: bytes) -> bytes:
    """Returns the .tflite file in a container.

    Raises:
        Damaged: If the container is not whole.
    """
    if len(blob) < HEADER.size + 4 or blob[:4] != MAGIC:
        raise Damaged("not a model.xaic container")
    _, version, codec, properties, size, check, compressed = HEADER.unpack_from(blob)
    if version != VERSION or codec != 0:
        raise Damaged(f"container version {version}.{codec}, written by a newer keras-xaic")
    if zlib.crc32(blob[:-4]) != int.from_bytes(blob[-4:], "little"):
        raise Damaged("the checksum of the container does not match")
    try:
        content = _unpack(blob[HEADER.size : -4], properties, size, compressed)
    except (lzma.LZMAError, IndexError, ValueError, KeyError, OverflowError) as error:
        raise Damaged(f"the container cannot be decoded ({error})") from None
    if len(content) != size or zlib.crc32(content) != check:
        raise Damaged("the checksum of the unpacked file does not match")
    return content


def _unpack(body: bytes, properties: int, size: int, compressed: int) -> bytes:
    reader = _Varints(lzma_decompress(body[:compressed], properties, 2 * size + 65536))
    decoder = RangeDecoder(body[compressed:])
    regions = [[reader.next() for _ in range(6)] for _ in range(reader.next())]
    pieces: list[tuple[int, bytes]] = []
    for gap, kind, outer, inner, positions, options in regions:
        count = outer * inner * positions
        if count > 2 * size:
            raise ValueError("a region larger than the file")
        if kind == PLANES:
            planes = reader.take(count)
            pieces.append((gap, bytes(byte for number in range(inner) for byte in planes[number::inner])))
            continue
        scheme, direct, shift = SCHEMES[options & 3], options >> 2 & 1, options >> 3
        limit = (127 if kind == INT8 else 7) >> shift if direct else 0
        weights = decode_weights(decoder, count, row_length(outer, inner, positions), scheme, limit)
        weights = stored_order(weights, outer, inner, positions)
        pieces.append((gap, _bytes_of([weight << shift for weight in weights], kind)))
    content = bytearray()
    for gap, piece in pieces:
        content += reader.take(gap) + piece
    return bytes(content + reader.rest())


def _bytes_of(weights: list[int], kind: int) -> bytes:
    if kind == INT8:
        return bytes(weight & 255 for weight in weights)
    nibbles = [weight & 15 for weight in weights] + [0] * (len(weights) % 2)
    return bytes(low | high << 4 for low, high in zip(nibbles[0::2], nibbles[1::2]))


def lzma_decompress(stream: bytes, properties: int, most: int) -> bytes:
    """Returns what a raw LZMA1 stream holds; `properties` is ``(pb * 5 + lp) * 9 + lc``."""
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=lzma_filters(properties))
    content = decompressor.decompress(stream, most)
    if not decompressor.eof:
        raise ValueError("the LZMA stream does not end")
    return content


def lzma_filters(properties: int) -> list[dict[str, int]]:
    """Returns the filter chain for Python's lzma module."""
    lc, lp, pb = properties % 9, properties // 9 % 5, properties // 45
    return [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 24, "lc": lc, "lp": lp, "pb": pb}]


class _Varints:
    """Reads numbers of 7 bits a byte, then plain bytes."""

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    def next(self) -> int:
        value = shift = 0
        while True:
            byte = self._content[self._place]
            self._place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def take(self, count: int) -> bytes:
        self._place += count
        return self._content[self._place - count : self._place]

    def rest(self) -> bytes:
        return self._content[self._place :]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python3 unpack_xaic.py model.xaic model.tflite")
    try:
        pathlib.Path(sys.argv[2]).write_bytes(unpack(pathlib.Path(sys.argv[1]).read_bytes()))
    except (Damaged, OSError) as problem:
        sys.exit(f"{sys.argv[1]}: {problem}")
