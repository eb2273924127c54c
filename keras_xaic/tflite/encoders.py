"""Weight encodings that TensorFlow Lite Micro's DECODE operator unpacks: lookup table, Huffman code, pruning mask.

Every encoding is a data tensor and an ancillary tensor, which begins with 16 bytes of metadata: decode type, version 1, two
zeros, and 12 bytes of the type's own (TFLM DECODE operator design, May 2025).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Optional, Union

import numpy as np

LOOKUP_TABLE, HUFFMAN, PRUNING = 0, 1, 2
MOST_INDEX_BITS = 7
_PER_TENSOR = 15
_LONGEST_CODE = 31
_WIDEST_TABLE = 9
_TABLE_SLACK = 1.5
"""A decoding table may have this many entries per node of the code tree that it stands for, halved."""


@dataclass(frozen=True)
class Encoded:
    """Weights as DECODE takes them.

    Attributes:
        kind: ``lookup-table``, ``huffman`` or ``pruning``.
        data: The data tensor, uint8.
        ancillary: The ancillary tensor, uint8.
    """

    kind: str
    data: np.ndarray
    ancillary: np.ndarray

    @property
    def size(self) -> int:
        """Bytes of both tensors."""
        return self.data.size + self.ancillary.size


def encode_lookup_table(weights: np.ndarray, axis: Optional[int]) -> Optional[Encoded]:
    """Returns weights as indices of 1 to 7 bits into tables of values, None if there are too many different values.

    Args:
        weights: int8 weights.
        axis: The quantized dimension where there is one scale per channel, else None. The decoder takes a table per channel
            for one, and one table for the other; anything else decodes to wrong weights without an error.
    """
    rows = weights.reshape(1, -1) if axis is None else np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    tables = [np.unique(row) for row in rows]
    stride = max(len(table) for table in tables)
    bits = max(1, (stride - 1).bit_length())
    if bits > MOST_INDEX_BITS:
        return None
    indices = np.stack([np.searchsorted(table, row) for table, row in zip(tables, rows)])
    if axis is not None:
        moved = (weights.shape[axis], *(n for i, n in enumerate(weights.shape) if i != axis))
        indices = np.moveaxis(indices.reshape(moved), 0, axis)
    flat = indices.ravel().astype(np.uint8)
    planes = flat[:, np.newaxis] >> np.arange(bits - 1, -1, -1, dtype=np.uint8) & 1
    values = np.zeros((len(tables), stride), np.int8)
    for row, table in zip(values, tables):
        row[: len(table)] = table
    own = [1, (_PER_TENSOR if axis is None else axis) << 4 | bits, stride]
    return Encoded("lookup-table", np.packbits(planes.ravel()), _ancillary(LOOKUP_TABLE, own, values.view(np.uint8).ravel()))


def encode_pruning(weights: np.ndarray) -> Encoded:
    """Returns weights as one bit each, which says whether it is zero, and the values of those that are not."""
    flat = weights.ravel()
    return Encoded("pruning", np.packbits(flat != 0), _ancillary(PRUNING, [1], flat[flat != 0].view(np.uint8)))


def encode_huffman(weights: np.ndarray) -> Optional[Encoded]:
    """Returns weights in a Huffman code (Huffman 1952), None if its codes get too long.

    Bits are written from the most significant on, padded to 4 bytes, and followed by 4 bytes that the decoder may read.
    """
    values, places, counts = np.unique(weights.ravel(), return_inverse=True, return_counts=True)
    tree = _code_tree(values, counts)
    codes = _codes(tree)
    if max(length for _, length in codes.values()) > _LONGEST_CODE:
        return None
    tables = _decoding_tables(tree)
    if tables is None:
        return None
    width, table = tables
    code, length = (np.array([codes[int(value)][i] for value in values], np.int64)[places] for i in (0, 1))
    ends = np.cumsum(length)
    position = np.arange(ends[-1]) - np.repeat(ends - length, length)  # of every bit within its code
    bits = np.repeat(code, length) >> (np.repeat(length, length) - 1 - position) & 1
    data = np.packbits(bits.astype(np.uint8))
    padding = np.zeros(-data.size % 4 + 4, np.uint8)
    return Encoded("huffman", np.append(data, padding), _ancillary(HUFFMAN, [1, (width - 1) << 4], table.view(np.uint8)))


def _ancillary(decode_type: int, own: list[int], content: np.ndarray) -> np.ndarray:
    header = np.zeros(16, np.uint8)
    header[:2] = decode_type, 1
    header[4 : 4 + len(own)] = own
    return np.concatenate([header, content])


_Tree = Union[int, "tuple[_Tree, _Tree]"]
"""A symbol, or what follows a 0 and what follows a 1."""


def _code_tree(values: np.ndarray, counts: np.ndarray) -> tuple[_Tree, _Tree]:
    heap: list[tuple[int, int, _Tree]] = [(int(n), i, int(v)) for i, (n, v) in enumerate(zip(counts, values))]
    if len(heap) == 1:
        return heap[0][2], heap[0][2]  # a code needs a bit
    heapq.heapify(heap)
    made = len(heap)
    while len(heap) > 1:
        (n0, _, zero), (n1, _, one) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (n0 + n1, made, (zero, one)))
        made += 1
    root = heap[0][2]
    assert isinstance(root, tuple)
    return root


def _codes(tree: _Tree, code: int = 0, length: int = 0) -> dict[int, tuple[int, int]]:
    """Returns symbol -> (code, number of bits)."""
    if not isinstance(tree, tuple):
        return {tree: (code, length)}
    return {**_codes(tree[1], code << 1 | 1, length + 1), **_codes(tree[0], code << 1, length + 1)}


def _decoding_tables(tree: _Tree) -> Optional[tuple[int, np.ndarray]]:
    """Returns how many bits look up the first table, and all tables, uint16, one after the other.

    An entry is 0x8000 | bits used << 11 | symbol, or (bits of the next table - 1) << 11 | distance to the next table. None if
    a distance does not fit.
    """
    width = _table_width(tree)
    entries: list[int] = [0] * (1 << width)
    waiting = [(0, _table(tree, width))]
    while waiting:
        start, table = waiting.pop(0)
        for place, (node, used) in enumerate(table, start):
            if isinstance(node, tuple):
                next_width = _table_width(node)
                distance = len(entries) - place
                if distance > 2047:
                    return None
                entries[place] = (next_width - 1) << 11 | distance
                waiting.append((len(entries), _table(node, next_width)))
                entries += [0] * (1 << next_width)
            else:
                entries[place] = 0x8000 | used << 11 | node & 0xFF
    return width, np.array(entries, "<u2")


def _table(tree: _Tree, width: int, used: int = 0) -> list[tuple[_Tree, int]]:
    """Returns what each of the ``2^width`` next bit patterns leads to, and after how many bits."""
    if not isinstance(tree, tuple):
        return [(tree, used)] * (1 << (width - used))
    if used == width:
        return [(tree, used)]
    return _table(tree[0], width, used + 1) + _table(tree[1], width, used + 1)


def _table_width(tree: _Tree) -> int:
    """Returns the widest table that is not much larger than the part of the tree that it stands for."""
    best = 1
    for width in range(1, min(_depth(tree), _WIDEST_TABLE) + 1):
        covered = _branches(tree) - sum(_branches(node) for node, _ in set(_table(tree, width)))
        if 1 << width <= _TABLE_SLACK * 2 * covered:
            best = width
    return best


def _depth(tree: _Tree) -> int:
    return 1 + max(_depth(tree[0]), _depth(tree[1])) if isinstance(tree, tuple) else 0


def _branches(tree: _Tree) -> int:
    return 1 + _branches(tree[0]) + _branches(tree[1]) if isinstance(tree, tuple) else 0
