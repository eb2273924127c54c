"""Operations that TFLite's converter or an interpreter computes wrongly, written as others that are right everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_xaic._keras import tf

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
"""Of Klambauer et al. 2017 (arXiv 1706.02515), as TensorFlow has them."""


class _Editor:
    """Adds nodes in front of one node, and makes that node another operation.

    Args:
        graph: The graph with its weights as constants.
        node: The node.
    """

    def __init__(self, graph: Any, node: Any) -> None:
        self.graph, self.node = graph, node
        self.sources = [name for name in node.input if not name.startswith("^")]
        self._controls = [name for name in node.input if name.startswith("^")]

    @property
    def type(self) -> Any:
        """The node's own type; not asked for where there is none, because the question would leave an empty one there."""
        return self.node.attr["T"]

    def add(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Adds an operation on values of the node's own type; returns its name."""
        one = self.graph.node.add(op=kind, name=f"{self.node.name}/{name}", input=inputs)
        one.attr["T"].CopyFrom(self.type)
        for key, value in attributes.items():
            one.attr[key].CopyFrom(value)
        return str(one.name)

    def constant(self, name: str, value: object, dtype: Any = None) -> str:
        """Adds a constant, of the node's own type where no other is given; returns its name."""
        dtype = tf.dtypes.as_dtype(self.type.type) if dtype is None else dtype
        one = self.graph.node.add(op="Const", name=f"{self.node.name}/{name}")
        one.attr["dtype"].type = dtype.as_datatype_enum
        one.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype))
        return str(one.name)

    def reshaped(self, name: str, source: str, shape: Sequence[int]) -> str:
        """Adds a change of shape; returns its name."""
        where = self.constant(f"{name}/shape", np.array(shape, np.int32), tf.int32)
        return self.add("Reshape", name, source, where, Tshape=tf.compat.v1.AttrValue(type=tf.int32.as_datatype_enum))

    def become(self, kind: str, *inputs: str) -> None:
        """Makes the node this operation on these inputs."""
        self.node.op = kind
        del self.node.input[:]
        self.node.input.extend([*inputs, *self._controls])
        for key in [key for key in self.node.attr if key != "T"]:
            del self.node.attr[key]


def rewrite(graph: Any, shapes: Callable[[str], Sequence[int]], values: Callable[[str], np.ndarray]) -> None:
    """Writes what would be computed wrongly in other operations, in place.

    Args:
        graph: The graph with its weights as constants, a batch of 1.
        shapes: Gives the shape of a tensor by its name.
        values: Gives the values of a constant tensor by its name.
    """
    for node in list(graph.node):
        editor = _Editor(graph, node)
        if node.op == "Selu":
            _selu(editor)
        elif node.op == "Softplus":
            _softplus(editor)
        elif node.op == "Softsign":
            _softsign(editor)
        elif node.op == "Sum" and tf.dtypes.as_dtype(node.attr["T"].type).is_floating:
            _sum(editor, shapes, values)
        elif node.op in ("BatchMatMul", "BatchMatMulV2"):
            _row_times_matrix(editor, shapes)
        elif node.op == "Einsum":
            _inner_product(editor, shapes)
        elif node.op in ("MaxPool3D", "AvgPool3D"):
            _pool_3d(editor, shapes)
        elif node.op in ("Conv2D", "DepthwiseConv2dNative"):
            _long_strides(editor, shapes)


def _selu(editor: _Editor) -> None:
    """``scale * alpha * elu(x) + scale * (1 - alpha) * relu(x)``.

    The converter makes a SELECT of it, whose branches it does not bring to one scale in integers.
    """
    terms = []
    for kind, factor in (("Elu", SELU_SCALE * SELU_ALPHA), ("Relu", SELU_SCALE * (1 - SELU_ALPHA))):
        one = editor.add(kind, kind, editor.sources[0])
        terms.append(editor.add("Mul", f"{kind}/scaled", one, editor.constant(f"{kind}/factor", factor)))
    editor.become("AddV2", *terms)


def _softplus(editor: _Editor) -> None:
    """``relu(x) - log(sigmoid(|x|))``.

    The converter makes ``log(exp(x) + 1)`` of it: integers cannot hold the range of the exponential.
    """
    size = editor.add("Abs", "abs", editor.sources[0])
    small = editor.add("Log", "log", editor.add("Sigmoid", "sigmoid", size))
    editor.become("Sub", editor.add("Relu", "relu", editor.sources[0]), small)


def _softsign(editor: _Editor) -> None:
    """``x / (1 + |x|)``, which TFLite has no operator for."""
    size = editor.add("Abs", "abs", editor.sources[0])
    editor.become("RealDiv", editor.sources[0], editor.add("AddV2", "size", size, editor.constant("one", 1.0)))


def _sum(editor: _Editor, shapes: Callable[[str], Sequence[int]], values: Callable[[str], np.ndarray]) -> None:
    """The mean times the number of values: interpreters do not rescale the sum of int16 values."""
    shape, axes = shapes(editor.sources[0]), values(editor.sources[1])
    count = math.prod(int(shape[axis]) for axis in np.ravel(axes))
    attributes = {key: editor.node.attr[key] for key in ("Tidx", "keep_dims")}
    mean = editor.add("Mean", "mean", *editor.sources, **attributes)
    editor.become("Mul", mean, editor.constant("count", count))


def _row_times_matrix(editor: _Editor, shapes: Callable[[str], Sequence[int]]) -> None:
    """A row times a matrix, as the matrix times a column; of two vectors, as a sum.

    TensorFlow 2.14's converter fails on it: a product with a batch of 1 and a single row loses a dimension.
    """
    turned = [editor.node.attr[name].b for name in ("adj_x", "adj_y")]
    first, second = (list(shapes(name)) for name in editor.sources)
    rows, inner = (first[-1], first[-2]) if turned[0] else (first[-2], first[-1])
    columns = second[-2] if turned[1] else second[-1]
    if rows != 1 or math.prod(first[:-2]) != 1 or math.prod(second[:-2]) != 1:
        return
    batch = max(first[:-2], second[:-2], key=len)
    if columns == 1:
        values = [editor.reshaped(f"row_{number}", name, [*batch, 1, inner]) for number, name in enumerate(editor.sources)]
        _scaled_mean(editor, editor.add("Mul", "products", *values), [len(batch) + 1], inner, keep=True)
        return
    flags = {key: tf.compat.v1.AttrValue(b=not flag) for key, flag in zip(("adj_x", "adj_y"), reversed(turned))}
    column = editor.add("BatchMatMulV2", "column", *reversed(editor.sources), **flags)
    where = editor.constant("shape", np.array([*batch, 1, columns], np.int32), tf.int32)
    editor.become("Reshape", column, where)
    editor.node.attr["Tshape"].type = tf.int32.as_datatype_enum


def _inner_product(editor: _Editor, shapes: Callable[[str], Sequence[int]]) -> None:
    """Sums of products of values in the same places, ``bd,bd->b``, and of a row, ``bd,bnd->bn``; see `_row_times_matrix`."""
    inputs, _, result = editor.node.attr["equation"].s.decode().partition("->")
    labels = inputs.split(",")
    kept = [label for label in labels[0] if label in result]
    if len(labels) == 2 and set(labels[0]) < set(labels[1]):
        editor.become("Einsum", *reversed(editor.sources))
        editor.node.attr["N"].i, editor.node.attr["equation"].s = 2, f"{labels[1]},{labels[0]}->{result}".encode()
        return
    if len(labels) != 2 or labels[0] != labels[1] or len(set(labels[0])) != len(labels[0]) or kept != list(result):
        return
    axes = [axis for axis, label in enumerate(labels[0]) if label not in result]
    count = math.prod(int(shapes(editor.sources[0])[axis]) for axis in axes)
    if axes and shapes(editor.sources[0]) == shapes(editor.sources[1]):
        _scaled_mean(editor, editor.add("Mul", "products", *editor.sources), axes, count, keep=False)


def _scaled_mean(editor: _Editor, source: str, axes: Sequence[int], count: int, keep: bool) -> None:
    """Makes the node the sum of `source` over axes that hold `count` values; see `_sum`."""
    where = editor.constant("axes", np.array(axes, np.int32), tf.int32)
    attributes = {
        "Tidx": tf.compat.v1.AttrValue(type=tf.int32.as_datatype_enum),
        "keep_dims": tf.compat.v1.AttrValue(b=keep),
    }
    mean = editor.add("Mean", "mean", source, where, **attributes)
    editor.become("Mul", mean, editor.constant("count", count))


def _pool_3d(editor: _Editor, shapes: Callable[[str], Sequence[int]]) -> None:
    """Pools the planes, then across them: TFLite has no pooling in three dimensions.

    Largest values and averages (which leave padding out) are the same in either order.
    """
    node = editor.node
    if node.attr["data_format"].s not in (b"", b"NDHWC"):
        return
    size, strides = list(node.attr["ksize"].list.i), list(node.attr["strides"].list.i)
    _, depth, *plane, channels = shapes(editor.sources[0])
    end = shapes(node.name)
    kind = node.op[:-2]

    def pooled(name: str, source: str, window: Sequence[int], step: Sequence[int]) -> str:
        lists = {"ksize": window, "strides": step}
        attributes = {key: tf.compat.v1.AttrValue(list={"i": [1, *value, 1]}) for key, value in lists.items()}
        return editor.add(kind, name, source, padding=node.attr["padding"], **attributes)

    planes = editor.reshaped("as_planes", editor.sources[0], [depth, *plane, channels])
    planes = pooled("planes", planes, size[2:4], strides[2:4])
    across = editor.reshaped("as_rows", planes, [1, depth, end[2] * end[3], channels])
    across = pooled("across", across, [size[1], 1], [strides[1], 1])
    where = editor.constant("shape", np.array(end, np.int32), tf.int32)
    editor.become("Reshape", across, where)
    node.attr["Tshape"].type = tf.int32.as_datatype_enum


def _long_strides(editor: _Editor, shapes: Callable[[str], Sequence[int]]) -> None:
    """Pads by itself where strides are longer than the kernel: the delegate of TFLite 2.14 pads there where it must not."""
    node = editor.node
    if node.attr["padding"].s != b"SAME" or node.attr["data_format"].s not in (b"", b"NHWC"):
        return
    size, kernel = shapes(editor.sources[0])[1:3], shapes(editor.sources[1])[:2]
    strides, dilations = list(node.attr["strides"].list.i)[1:3], (list(node.attr["dilations"].list.i) or [1] * 4)[1:3]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    if all(stride <= extent for stride, extent in zip(strides, reach)):
        return
    padding = [[0, 0]]
    for n, stride, extent in zip(size, strides, reach):
        total = max(0, (-(-n // stride) - 1) * stride + extent - n)
        padding.append([total // 2, total - total // 2])
    source = editor.sources[0]
    if np.any(padding):
        where = editor.constant("padding", np.array([*padding, [0, 0]], np.int32), tf.int32)
        source = editor.add("Pad", "padded", source, where, Tpaddings=tf.compat.v1.AttrValue(type=tf.int32.as_datatype_enum))
    node.attr["padding"].s = b"VALID"
    node.input[0] = source
