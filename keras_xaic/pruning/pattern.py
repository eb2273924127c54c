"""Which weights go together: single ones, N of every M, or blocks."""

from __future__ import annotations

from typing import Union

import numpy as np

from keras_xaic._keras import Tensor, tf


def pattern_mask(scores: Union[Tensor, np.ndarray], sparsity: Union[Tensor, float], pattern: str = "unstructured") -> Tensor:
    """Returns the mask that keeps the highest scores of a kernel in a pattern.

    A kernel is seen as a matrix, one column per output channel and one row per weight of a channel. The patterns:

    * ``unstructured``: the lowest single weights go;
    * ``N:M``: of every M weights that follow one another in a column the N lowest go, whatever `sparsity` says (Zhou et al.
      2021, arXiv 2102.04010);
    * ``HxW``: the blocks of H rows and W columns with the lowest mean go (Narang et al. 2017, arXiv 1711.02782).

    Args:
        scores: Kernel-shaped scores, float32; the last axis counts output channels.
        sparsity: Fraction of zeros, a scalar number or tensor; at least one weight or block stays.
        pattern: See above.

    Returns:
        Boolean tensor of the kernel's shape.
    """
    rows = tf.reshape(scores, (-1, scores.shape[-1]))
    if ":" in pattern:
        zeros, group = map(int, pattern.split(":"))
        mask = _kept_in_groups(rows, zeros, group)
    elif "x" in pattern:
        height, width = map(int, pattern.split("x"))
        mask = _kept_blocks(rows, sparsity, height, width)
    else:
        mask = _highest(rows, sparsity)
    return tf.reshape(mask, scores.shape)


def _highest(scores: Tensor, sparsity: Union[Tensor, float]) -> Tensor:
    """The highest scores; of equal ones as many as the sparsity asks for."""
    size = tf.size(scores)
    count = tf.maximum(tf.cast(tf.round(tf.cast(size, tf.float32) * (1.0 - sparsity)), tf.int32), 1)
    order = tf.argsort(tf.reshape(scores, [-1]), direction="DESCENDING", stable=True)
    kept = tf.scatter_nd(order[:count, None], tf.ones([count], tf.int32), [size])
    return tf.reshape(kept > 0, tf.shape(scores))


def _kept_in_groups(rows: Tensor, zeros: int, group: int) -> Tensor:
    count, channels = rows.shape
    padded = tf.pad(tf.transpose(rows), [[0, 0], [0, -count % group]], constant_values=rows.dtype.min)
    grouped = tf.reshape(padded, (channels, -1, group))
    rank = tf.argsort(tf.argsort(grouped, direction="DESCENDING", stable=True))
    return tf.transpose(tf.reshape(rank < group - zeros, (channels, -1)))[:count]


def _kept_blocks(rows: Tensor, sparsity: Union[Tensor, float], height: int, width: int) -> Tensor:
    count, channels = rows.shape
    padding = [[0, -count % height], [0, -channels % width]]

    def totals(values: Tensor) -> Tensor:
        padded = tf.pad(values, padding)
        return tf.reduce_sum(tf.reshape(padded, (padded.shape[0] // height, height, padded.shape[1] // width, width)), (1, 3))

    kept = _highest(totals(rows) / totals(tf.ones_like(rows)), sparsity)
    return tf.repeat(tf.repeat(kept, height, 0), width, 1)[:count, :channels]
