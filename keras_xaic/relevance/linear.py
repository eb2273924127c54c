"""The linear maps inside weighted layers: forward, and their weights' share sample by sample.

One-dimensional convolutions are two-dimensional ones of height one here, so that there is one way through.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Optional

from keras_xaic._keras import Tensor, layers, tf
from keras_xaic.models.kernels import Kernel


class LinearMap:
    """What a weighted layer does to its input, as a function of input and kernel (the bias is left out).

    Args:
        kernel: The kernel of a dense, convolution, depthwise or transposed convolution layer.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.layer, self.key, self.path = kernel, kernel.layer, kernel.key, kernel.path
        self.shape = kernel.shape
        self.channel_axes = kernel.channel_axes

    @property
    def weight(self) -> Tensor:
        """The kernel, as a tensor."""
        return tf.convert_to_tensor(self.kernel.variable)

    @property
    def bias(self) -> Optional[Tensor]:
        """The bias variable, (channels,), or None."""
        return self.layer.bias if self.kernel.has_bias else None

    def __call__(self, x: Tensor, w: Tensor, like: Tensor) -> Tensor:
        """Returns the layer's output without bias.

        Args:
            x: Input, (n, ..., channels in).
            w: A kernel of the layer's kernel shape.
            like: A tensor of the output's static shape (transposed convolutions do not determine it).
        """
        raise NotImplementedError

    def blocks(self, x: Tensor, s: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Returns per kernel position the pairs that meet there.

        Returns:
            One pair per kernel position, in the order of the kernel's leading axes: inputs (n, groups, positions, a) and
            output signals (n, groups, positions, b), whose product over positions is the kernel's gradient (a, b) there.
        """
        raise NotImplementedError

    def meet(self, x: Tensor, s: Tensor) -> Tensor:
        """Contracts one pair of `blocks` over positions: (n, groups, a, b)."""
        return tf.matmul(x, s, transpose_a=True)

    def meet_samples(self, x: Tensor, s: Tensor) -> Tensor:
        """Contracts one pair of `blocks` with a single position over samples: (groups, a, b)."""
        return tf.matmul(tf.transpose(x[:, :, 0], (1, 2, 0)), tf.transpose(s[:, :, 0], (1, 0, 2)))

    def positions_of(self, s: Tensor) -> int:
        """Number of positions in the output signal of a pair of `blocks`."""
        return int(s.shape[2])

    def assemble(self, per_position: list[Tensor]) -> Tensor:
        """Puts (groups, a, b) blocks of all kernel positions together to one tensor of the kernel's shape."""
        stacked = tf.stack(per_position)
        _, groups, a, b = stacked.shape
        return tf.reshape(tf.transpose(stacked, (0, 2, 1, 3)), (*self.shape[:-2], a, groups * b))

    def split(self, w: Tensor) -> list[Tensor]:
        """The inverse of `assemble`: kernel -> (groups, a, b) for every kernel position."""
        flat = tf.reshape(w, (-1, *self.shape[-2:]))
        groups = self.groups
        parts = tf.reshape(flat, (flat.shape[0], self.shape[-2], groups, self.shape[-1] // groups))
        return tf.unstack(tf.transpose(parts, (0, 2, 1, 3)))

    groups = 1


class DenseMap(LinearMap):
    """``y = x w`` along the last axis."""

    def __call__(self, x: Tensor, w: Tensor, like: Tensor) -> Tensor:
        """See `LinearMap.__call__`."""
        return tf.matmul(x, w) if x.shape.rank == 2 else tf.tensordot(x, w, [[-1], [0]])

    def blocks(self, x: Tensor, s: Tensor) -> list[tuple[Tensor, Tensor]]:
        """See `LinearMap.blocks`."""
        return [(_flat(x), _flat(s))]


class _Sliding(LinearMap):
    """What convolutions share: 2-D views, padding, and the window slices of every kernel position."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        layer = self.layer
        self.is_1d = len(kernel.shape) == 3
        self.window = (1, *layer.kernel_size) if self.is_1d else tuple(layer.kernel_size)
        self.strides = (1, *layer.strides) if self.is_1d else tuple(layer.strides)
        self.dilation = (1, *layer.dilation_rate) if self.is_1d else tuple(layer.dilation_rate)
        self.groups = getattr(layer, "groups", 1)

    def flat_image(self, x: Tensor) -> Tensor:
        """(n, length, channels) -> (n, 1, length, channels)."""
        return x[:, None] if self.is_1d else x

    def flat_kernel(self, w: Tensor) -> Tensor:
        """Kernel of one dimension -> of two."""
        return w[None] if self.is_1d else w

    def unflat(self, y: Tensor) -> Tensor:
        """The inverse of `flat_image`."""
        return y[:, 0] if self.is_1d else y

    def padded(self, x: Tensor) -> Tensor:
        """The 2-D input with the layer's padding made explicit, so that a plain sliding window remains."""
        pads = [(0, 0)]
        for size, window, stride, dilation in zip(x.shape[1:3], self.window, self.strides, self.dilation):
            pads.append(_padding(self.layer.padding, size, (window - 1) * dilation + 1, stride))
        return tf.pad(x, [*pads, (0, 0)]) if any(map(any, pads)) else x

    def windows(self, x: Tensor, rows: int, columns: int) -> Iterator[Tensor]:
        """For every kernel position the padded input that it sees, (n, rows, columns, channels)."""
        for i in range(self.window[0]):
            for j in range(self.window[1]):
                top, left = i * self.dilation[0], j * self.dilation[1]
                bottom, right = top + (rows - 1) * self.strides[0] + 1, left + (columns - 1) * self.strides[1] + 1
                yield x[:, top : bottom : self.strides[0], left : right : self.strides[1]]

    def grouped(self, x: Tensor) -> Tensor:
        """(n, ..., channels) -> (n, groups, positions, channels / groups)."""
        if self.groups == 1:
            return _flat(x)
        parts = tf.reshape(x, (x.shape[0], -1, self.groups, x.shape[-1] // self.groups))
        return tf.transpose(parts, (0, 2, 1, 3))


class ConvMap(_Sliding):
    """Convolutions with strides, dilation, groups and causal padding."""

    def __call__(self, x: Tensor, w: Tensor, like: Tensor) -> Tensor:
        """See `LinearMap.__call__`."""
        x, w = self.flat_image(x), self.flat_kernel(w)
        padding = self.layer.padding.upper()
        if padding == "CAUSAL":
            x, padding = self.padded(x), "VALID"
        parts = zip(tf.split(x, self.groups, -1), tf.split(w, self.groups, -1))
        ys = [tf.nn.convolution(xg, wg, self.strides, padding, dilations=self.dilation) for xg, wg in parts]
        return self.unflat(ys[0] if len(ys) == 1 else tf.concat(ys, -1))

    def blocks(self, x: Tensor, s: Tensor) -> list[tuple[Tensor, Tensor]]:
        """See `LinearMap.blocks`."""
        x, s = self.padded(self.flat_image(x)), self.flat_image(s)
        signal = self.grouped(s)
        return [(self.grouped(seen), signal) for seen in self.windows(x, s.shape[1], s.shape[2])]


class DepthwiseMap(_Sliding):
    """Depthwise convolutions: every input channel is a group of its own, with `depth_multiplier` outputs."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.groups = kernel.shape[-2]

    def __call__(self, x: Tensor, w: Tensor, like: Tensor) -> Tensor:
        """See `LinearMap.__call__`."""
        x, w = self.flat_image(x), self.flat_kernel(w)
        strides = (1, max(self.strides), max(self.strides), 1) if self.is_1d else (1, *self.strides, 1)
        padding = self.layer.padding.upper()
        return self.unflat(tf.nn.depthwise_conv2d(x, w, strides, padding, dilations=self.dilation))

    def blocks(self, x: Tensor, s: Tensor) -> list[tuple[Tensor, Tensor]]:
        """See `LinearMap.blocks`."""
        x, s = self.padded(self.flat_image(x)), self.flat_image(s)
        count, rows, columns, _ = s.shape
        signal = tf.reshape(s, (count, rows * columns, self.groups, -1))
        return [(tf.reshape(seen, (count, rows * columns, self.groups, 1)), signal) for seen in self.windows(x, rows, columns)]

    def meet(self, x: Tensor, s: Tensor) -> Tensor:
        """See `LinearMap.meet`."""
        return tf.reduce_sum(x * s, axis=1)[:, :, None]  # cheaper than many matrix products of width one

    def meet_samples(self, x: Tensor, s: Tensor) -> Tensor:
        """See `LinearMap.meet_samples`."""
        return tf.reduce_sum(x * s, axis=(0, 1))[:, None]

    def positions_of(self, s: Tensor) -> int:
        """See `LinearMap.positions_of`."""
        return int(s.shape[1])

    def assemble(self, per_position: list[Tensor]) -> Tensor:
        """See `LinearMap.assemble`."""
        return tf.reshape(tf.stack(per_position), self.shape)  # (positions, channels, 1, multiplier)

    def split(self, w: Tensor) -> list[Tensor]:
        """See `LinearMap.split`."""
        return tf.unstack(tf.reshape(w, (-1, self.shape[-2], 1, self.shape[-1])))


class TransposedMap(_Sliding):
    """Transposed convolutions: the gradient of a convolution with respect to its input, used forward."""

    def __call__(self, x: Tensor, w: Tensor, like: Tensor) -> Tensor:
        """See `LinearMap.__call__`."""
        x, w = self.flat_image(x), self.flat_kernel(w)
        shape = (x.shape[0], *self.flat_image(like).shape[1:])
        if max(self.dilation) > 1:
            y = tf.nn.atrous_conv2d_transpose(x, w, shape, self.dilation[0], self.layer.padding.upper())
        else:
            y = tf.nn.conv2d_transpose(x, w, shape, self.strides, self.layer.padding.upper())
        return self.unflat(y)

    def blocks(self, x: Tensor, s: Tensor) -> list[tuple[Tensor, Tensor]]:
        """See `LinearMap.blocks`."""
        x, s = self.flat_image(x), self.flat_image(s)
        inputs, s = _flat(x), self.padded(s)
        rows, columns = x.shape[1], x.shape[2]
        short = [
            max(0, (window - 1) * dilation + (size - 1) * stride + 1 - have)
            for window, dilation, size, stride, have in zip(
                self.window, self.dilation, (rows, columns), self.strides, s.shape[1:3]
            )
        ]
        s = tf.pad(s, [(0, 0), (0, short[0]), (0, short[1]), (0, 0)]) if any(short) else s
        return [(_flat(seen), inputs) for seen in self.windows(s, rows, columns)]  # the kernel is (..., out, in)


class MatrixMap(DenseMap):
    """A kernel inside a recurrent or attention layer, seen as a matrix.

    Args:
        key: Its weight key.
        shape: Its shape.
        rows: Number of inputs; the rest of the shape counts outputs.
    """

    def __init__(self, key: str, shape: tuple[int, ...], rows: int) -> None:
        self.key, self.shape, self.rows = key, shape, rows
        self.columns = math.prod(shape) // rows

    def __call__(self, x: Tensor, w: Tensor, like: Tensor) -> Tensor:
        """See `LinearMap.__call__`."""
        return tf.tensordot(x, tf.reshape(w, (self.rows, -1)), [[-1], [0]])

    def assemble(self, per_position: list[Tensor]) -> Tensor:
        """See `LinearMap.assemble`."""
        return tf.reshape(per_position[0], self.shape)

    def split(self, w: Tensor) -> list[Tensor]:
        """See `LinearMap.split`."""
        return [tf.reshape(w, (1, self.rows, -1))]


def linear_map(kernel: Kernel) -> LinearMap:
    """Returns the linear map of a kernel."""
    layer = kernel.layer
    if isinstance(layer, layers.Dense):
        return DenseMap(kernel)
    if isinstance(layer, (layers.DepthwiseConv1D, layers.DepthwiseConv2D)):
        return DepthwiseMap(kernel)
    if isinstance(layer, (layers.Conv1DTranspose, layers.Conv2DTranspose)):
        return TransposedMap(kernel)
    return ConvMap(kernel)


def _flat(x: Tensor) -> Tensor:
    """(n, ..., channels) -> (n, 1, positions, channels)."""
    return tf.reshape(x, (x.shape[0], 1, -1, x.shape[-1]))


def _padding(kind: str, size: int, extent: int, stride: int) -> tuple[int, int]:
    if kind == "causal":
        return extent - 1, 0
    if kind == "valid":
        return 0, 0
    total = max(0, (-(-size // stride) - 1) * stride + extent - size)
    return total // 2, total - total // 2
