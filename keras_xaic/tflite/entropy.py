"""Range coding of integer weights: the encoder to the decoder in `keras_xaic.unpacking`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_xaic.unpacking import PRECISION, SCHEMES, WeightModel

SAMPLE = 1 << 15
"""The scheme of a tensor is chosen by coding this many of its weights with each."""
CONTEXTS = 192
"""Places that the C decoder has for contexts: more than any scheme has."""
_STATE, _TOP, _MASK = 48, 1 << 32, (1 << 48) - 1


class RangeEncoder:
    """Writes symbols into a range-coded stream (Martin 1979), with 48 bits of state and 16 bits at a time."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._low = 0
        self._range = 1 << _STATE

    def encode(self, low: int, width: int) -> None:
        """Writes the symbol whose cumulative frequency begins at `low` and has `width` of ``2^PRECISION``."""
        step = self._range >> PRECISION
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
    """How the weights of one tensor are modelled (see `unpacking.WeightModel`).

    Attributes:
        scheme: One of `unpacking.SCHEMES`.
        shift: All weights are multiples of ``2^shift``; their quotients are coded.
        limit: Largest magnitude of a quotient.
        average: Mean magnitude of the quotients, in 256ths.
        row: Weights of one output channel.
    """

    scheme: str
    shift: int
    limit: int
    average: int
    row: int


def best_coding(weights: np.ndarray, row: int) -> Coding:
    """Returns the coding that takes the fewest bytes on the first `SAMPLE` weights.

    Args:
        weights: Integers in coding order.
        row: Number of weights of one output channel.
    """
    shift = _common_shift(weights)
    magnitudes = np.abs(weights >> shift)
    average = round(256 * float(magnitudes.mean()))
    codings = [Coding(scheme, shift, int(magnitudes.max()), average, row) for scheme in SCHEMES]
    return min(codings, key=lambda coding: _size(weights[:SAMPLE], coding))


def encode_weights(encoder: RangeEncoder, weights: np.ndarray, coding: Coding) -> int:
    """Writes weights in coding order; returns the bytes of RAM that the C decoder needs for their frequencies."""
    model = WeightModel(coding.scheme, coding.limit, coding.average, coding.row)
    for weight in (weights >> coding.shift).tolist():
        frequencies, symbol = model.next(), weight + coding.limit
        low = frequencies.cumulative[symbol]
        encoder.encode(low, frequencies.cumulative[symbol + 1] - low)
        frequencies.count(symbol)
        model.learn(weight)
    above, column = coding.scheme == "sign-above", coding.scheme == "sizes-sign"
    return 4 * CONTEXTS + 4 * len(model.models) * (4 * coding.limit + 5) + 4 * -(-coding.row // 4) * (above + 2 * column)


def coding_order(stored: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Brings stored integers from (outer, positions, inner) to (outer, inner, positions), flat."""
    outer, inner, positions = shape
    return stored.reshape(outer, positions, inner).transpose(0, 2, 1).ravel()


def _size(weights: np.ndarray, coding: Coding) -> int:
    encoder = RangeEncoder()
    encode_weights(encoder, weights, coding)
    return len(encoder.finish())


def _common_shift(weights: np.ndarray) -> int:
    together = int(np.bitwise_or.reduce(np.abs(weights))) if weights.size else 0
    return (together & -together).bit_length() - 1 if together else 0
