"""The arena of a written file, predicted without running it."""

from __future__ import annotations

from keras_xaic.edge.inspect_file import FileInfo
from keras_xaic.tflm_memory import ArenaGraph, ArenaOperator, ArenaTensor, ArenaUse, plan_arena


def predict_arena(info: FileInfo) -> ArenaUse:
    """Returns what a file needs of RAM under TensorFlow Lite Micro.

    >>> import pathlib
    >>> from keras_xaic.edge.inspect_file import read_file
    >>> predict_arena(read_file(pathlib.Path(__file__).with_name("tiny.tflite"))).minimum > 500
    True

    Args:
        info: The file, with one graph. Control flow and what files plan themselves are not looked at.
    """
    return plan_arena(graph_of_file(info))


def graph_of_file(info: FileInfo) -> ArenaGraph:
    """Returns the main graph of a file as the arena is planned from it."""
    graph = info.main
    tensors = tuple(
        ArenaTensor(
            one.shape,
            one.dtype,
            len(one.scales) if len(one.zero_points) else 0,
            constant=info.buffers[one.buffer][1] > 0,
            variable=one.variable,
        )
        for one in graph.tensors
    )
    operators = tuple(ArenaOperator(one.name, one.inputs, one.outputs) for one in graph.operators)
    return ArenaGraph(tensors, operators, graph.inputs, graph.outputs)
