"""Range coding of integer weights: the encoder to the decoder in `keras_xaic.tflite.unpacking`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from keras_xaic.tflite.unpacking import (
    BUCKETS,
    CHANNELS,
    CONTEXTS,
    HALF,
    INCREMENT,
    PRECISION,
    SCHEMES,
    WINDOW,
    Frequencies,
)

_PRIOR = 8 / INCREMENT
"""What `Frequencies` starts with, in observations of each symbol."""
_STATE, _TOP, _MASK = 48, 1 << 32, (1 << 48) - 1


class RangeEncoder:
    """Writes symbols into a range-coded stream (Martin 1979), with 48 bits of state and 16 bits at a time."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._low = 0
        self._range = 1 << _STATE

    def encode(self, low: int, width: int, precision: int = PRECISION) -> None:
        """Writes the symbol whose cumulative frequency begins at `low` and has `width` of ``2^precision``."""
        step = self._range >> precision
        self._add(step * low)
        self._range = step * width
        while self._range < _TOP:
            self._words.append(self._low >> 32)
            self._low = self._low << 16 & _MASK
            self._range <<= 16

    def _add(self, amount: int) -> None:
        self._low += amount
        if self._low > _MASK:  # carry into the words that were written
            self._low &= _MASK
            place = len(self._words) - 1
            while self._words[place] == 0xFFFF:
                self._words[place] = 0
                place -= 1
            self._words[place] += 1

    def finish(self) -> bytes:
        """Returns the stream; the decoder takes zeros for what is not there."""
        self._add(-self._low % _TOP)
        words = [*self._words, self._low >> 32]
        while words and words[-1] == 0:
            words.pop()
        return struct.pack(f">{len(words)}H", *words)


@dataclass(frozen=True)
class Coding:
    """How the weights of one tensor are modelled.

    Attributes:
        scheme: One of `unpacking.SCHEMES`.
        limit: Every level of -limit..limit is a symbol; 0 puts large levels into classes.
        shift: All weights are multiples of ``2^shift``; their quotients are coded.
    """

    scheme: str
    limit: int
    shift: int

    @property
    def options(self) -> int:
        """The coding as one number of the container's table."""
        return SCHEMES.index(self.scheme) | bool(self.limit) << 2 | self.shift << 3


def best_coding(weights: np.ndarray, row: int, largest: int) -> tuple[Coding, float]:
    """Returns the coding that takes the fewest bits, and how many.

    With counts n_xc of symbol x in context c, frequencies that adapt from a prior of a for each of S symbols take
    ``log2 prod_c [G(n_c + S a) / G(S a)] prod_x [G(a) / G(n_xc + a)]`` bits, in whatever order the symbols come
    (Krichevsky and Trofimov 1981, for a = 1/2).

    Args:
        weights: Integers in coding order.
        row: Number of weights of one output channel.
        largest: Largest magnitude that the storage allows, 127 or 7.
    """
    shift = _common_shift(weights)
    levels = weights >> shift
    choices = []
    for scheme in SCHEMES:
        contexts = _contexts(levels, row, scheme)
        for limit in {largest >> shift, 0 if largest >> shift > 7 else largest >> shift}:
            symbols, plain = _symbols(levels, limit)
            cost = _adaptive_bits(contexts, symbols, 2 * (limit or HALF) + 1, CONTEXTS[scheme]) + float(plain.sum())
            choices.append((cost, SCHEMES.index(scheme), Coding(scheme, limit, shift)))
    cost, _, coding = min(choices, key=lambda choice: choice[:2])
    return coding, cost


def encode_weights(encoder: RangeEncoder, weights: np.ndarray, row: int, coding: Coding) -> None:
    """Writes weights in coding order (see `unpacking.decode_weights`)."""
    levels = weights >> coding.shift
    symbols, plain = _symbols(levels, coding.limit)
    first = np.abs(levels) if coding.limit else np.array([0] * 8 + list(BUCKETS))[np.abs(symbols - HALF)]
    models = [Frequencies(2 * (coding.limit or HALF) + 1) for _ in range(CONTEXTS[coding.scheme])]
    places = zip(
        _contexts(levels, row, coding.scheme).tolist(), symbols.tolist(), plain.tolist(), (np.abs(levels) - first).tolist()
    )
    for context, symbol, bits, rest in places:
        model = models[context]
        low = model.cumulative[symbol]
        encoder.encode(low, model.cumulative[symbol + 1] - low)
        model.count(symbol)
        if bits:
            encoder.encode(rest, 1, bits)


def coding_order(stored: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Brings stored integers from (outer, positions, inner) to (outer, inner, positions), flat."""
    outer, inner, positions = shape
    return stored.reshape(outer, positions, inner).transpose(0, 2, 1).ravel()


def _common_shift(weights: np.ndarray) -> int:
    together = int(np.bitwise_or.reduce(np.abs(weights))) if weights.size else 0
    return (together & -together).bit_length() - 1 if together else 0


def _symbols(levels: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns symbols and the number of plain bits that follow each."""
    if limit:
        return levels + limit, np.zeros(levels.size, np.int64)
    magnitude = np.abs(levels)
    edges = np.array(BUCKETS)
    classes = np.where(magnitude < 8, magnitude, 7 + np.searchsorted(edges, magnitude, side="right"))
    widths = np.concatenate([np.zeros(8, np.int64), np.log2(np.diff(edges)).astype(np.int64)])
    return HALF + np.sign(levels) * classes, widths[classes]


def _contexts(levels: np.ndarray, row: int, scheme: str) -> np.ndarray:
    """Returns `unpacking.context_of` for every place."""
    before, above = _delayed(levels, 1), _delayed(levels, row)
    sign = np.sign(before) + 1
    if scheme == "sign":
        return sign
    if scheme == "sign-above":
        return 3 * sign + np.sign(above) + 1
    size = _delayed_sum(np.abs(levels), row, CHANNELS)
    if scheme == "nearby":
        size = size + _delayed_sum(np.abs(levels), 1, WINDOW)
    return 3 * np.ceil(np.log2(size + 1)).astype(np.int64) + sign


def _delayed_sum(magnitudes: np.ndarray, distance: int, count: int) -> np.ndarray:
    """Returns for every place the sum of the `count` magnitudes that lie 1, 2, ... times `distance` before it."""
    return np.sum([_delayed(magnitudes, distance * times) for times in range(1, count + 1)], axis=0)


def _delayed(levels: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([np.zeros(min(count, levels.size), levels.dtype), levels[: max(levels.size - count, 0)]])


def _adaptive_bits(contexts: np.ndarray, symbols: np.ndarray, count: int, context_count: int) -> float:
    table = np.bincount(contexts * count + symbols, minlength=context_count * count).reshape(context_count, count)
    seen = gammaln(table.sum(axis=1) + count * _PRIOR) - gammaln(count * _PRIOR)
    return float((seen - (gammaln(table + _PRIOR) - gammaln(_PRIOR)).sum(axis=1)).sum() / np.log(2))
