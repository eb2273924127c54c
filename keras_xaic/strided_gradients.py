"""The gradient of a 1x1 convolution with strides, whose kernel in TensorFlow writes beyond its memory.

Measured with TensorFlow 2.14.1 and 2.21.0: for kernels of 1x1, strides of 2 and an even side the process dies, or not, as
memory happens to lie. Residual networks have such shortcuts. The same gradient follows from the pixels that the convolution
reads.
"""

from __future__ import annotations

import importlib
from typing import Any


def use_safe_gradient(tf: Any) -> None:
    """Makes TensorFlow (`tf`) compute the gradient from the pixels that are read."""
    registry: Any = importlib.import_module("tensorflow.python.framework.ops").gradient_registry
    plain = registry.lookup("Conv2D")
    if getattr(plain, "is_safe", False):
        return

    def gradient(operation: Any, upstream: Any) -> list[Any]:
        strides, layout = operation.get_attr("strides"), operation.get_attr("data_format")
        kernel = operation.inputs[1]
        if layout != b"NHWC" or kernel.shape[:2].as_list() != [1, 1] or max(strides) == 1:
            return plain(operation, upstream)
        signal = operation.inputs[0]
        toward_input = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(signal), filter=kernel, out_backprop=upstream, strides=strides, padding="VALID"
        )
        read = signal[:, :: strides[1], :: strides[2]]
        toward_kernel = tf.raw_ops.Conv2DBackpropFilter(
            input=read, filter_sizes=tf.shape(kernel), out_backprop=upstream, strides=[1, 1, 1, 1], padding="VALID"
        )
        return [toward_input, toward_kernel]

    gradient.is_safe = True  # type: ignore[attr-defined]
    registry._registry["Conv2D"]["type"] = gradient
