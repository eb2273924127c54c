"""The gradient of 1x1 kernels with strides, for which native code of TensorFlow writes beyond its memory.

Measured with TensorFlow 2.14.1 and 2.21.0: for convolutions, transposed ones included, with kernels of 1x1, strides of 2 and
an even side the process dies, or not, as memory happens to lie. Residual networks have such shortcuts; the second derivative
of a convolution is that of a transposed one. The same gradient follows from the pixels that the convolution reads.
"""

from __future__ import annotations

import importlib
from typing import Any, Callable

Gradient = Callable[[Any, Any], list[Any]]
"""Takes an operation and the gradient of its output; returns those of its inputs."""


def use_safe_gradients(tf: Any) -> None:
    """Makes TensorFlow (`tf`) compute these gradients from the pixels that are read."""
    registry: Any = importlib.import_module("tensorflow.python.framework.ops").gradient_registry

    def toward_kernel(operation: Any, pixels: Any, upstream: Any) -> Any:
        _, down, across, _ = operation.get_attr("strides")
        return tf.raw_ops.Conv2DBackpropFilter(
            input=pixels[:, ::down, ::across],
            filter_sizes=tf.shape(operation.inputs[1]),
            out_backprop=upstream,
            strides=[1, 1, 1, 1],
            padding="VALID",
        )

    def of_convolution(operation: Any, upstream: Any) -> list[Any]:
        signal, kernel = operation.inputs
        how = {"filter": kernel, "strides": operation.get_attr("strides"), "padding": "VALID"}
        toward_signal = tf.raw_ops.Conv2DBackpropInput(input_sizes=tf.shape(signal), out_backprop=upstream, **how)
        return [toward_signal, toward_kernel(operation, signal, upstream)]

    def of_transposed(operation: Any, upstream: Any) -> list[Any]:
        _, kernel, signal = operation.inputs
        how = {"filter": kernel, "strides": operation.get_attr("strides"), "padding": "VALID"}
        return [None, toward_kernel(operation, upstream, signal), tf.raw_ops.Conv2D(input=upstream, **how)]

    for name, safe in (("Conv2D", of_convolution), ("Conv2DBackpropInput", of_transposed)):
        plain = registry.lookup(name)
        if not getattr(plain, "is_safe", False):
            registry._registry[name]["type"] = _choosing(plain, safe)


def _choosing(plain: Gradient, safe: Gradient) -> Gradient:
    """Returns the gradient that is `safe` where TensorFlow's own is not, and `plain` elsewhere."""

    def gradient(operation: Any, upstream: Any) -> list[Any]:
        strides, layout, padding = (operation.get_attr(name) for name in ("strides", "data_format", "padding"))
        is_risky = max(strides) > 1 and operation.inputs[1].shape[:2].as_list() == [1, 1]
        pads_nothing = padding in (b"VALID", b"SAME")  # neither does with 1x1 kernels
        return (safe if is_risky and pads_nothing and layout == b"NHWC" else plain)(operation, upstream)

    gradient.is_safe = True  # type: ignore[attr-defined]
    return gradient
