"""The graph of a functional model of Keras 2: its calls in order, and how to make them again."""

from __future__ import annotations

from typing import Any

from keras_xaic._keras import tf


def is_symbolic(value: object) -> bool:
    """Whether something is a tensor of a graph."""
    return hasattr(value, "_keras_history")


def calls_to(outputs: Any) -> list[Any]:
    """Returns the calls that lead to tensors, each behind those that it reads; inputs are no calls."""
    order: dict[int, Any] = {}
    waiting = [(tensor, False) for tensor in reversed(outputs)]
    while waiting:
        tensor, is_ready = waiting.pop()
        if not is_symbolic(tensor):
            continue
        node = tensor.node
        if is_ready:
            order.setdefault(id(node), node)
        elif id(node) not in order:
            waiting.append((tensor, True))
            waiting.extend((one, False) for one in reversed(node.keras_inputs))
    return [node for node in order.values() if not node.is_input]


def run_again(calls: list[Any], inputs: Any, given: Any, outputs: Any, call: Any) -> list[Any]:
    """Makes calls again, with other inputs; `call` gets a node and its arguments, and returns what comes out."""
    table = {id(old): new for old, new in zip(inputs, given)}
    for node in calls:
        args, kwargs = tf.nest.map_structure(lambda one: table.get(id(one), one), (node.call_args, node.call_kwargs))
        made = tf.nest.flatten(call(node, args, kwargs))
        table.update(zip(map(id, tf.nest.flatten(node.outputs)), made))
    return [table[id(tensor)] for tensor in outputs]
