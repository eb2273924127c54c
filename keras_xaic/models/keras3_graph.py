"""The graph of a functional model of Keras 3: its calls in order, and how to make them again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable


@dataclass(frozen=True)
class Graph:
    """What leads from some tensors to others.

    Attributes:
        tree: `keras.tree`.
        inputs: Symbolic tensors, in any structure.
        outputs: Symbolic tensors that are made of them.
    """

    tree: Any
    inputs: Any
    outputs: Any

    def calls(self) -> list[Any]:
        """Returns the nodes, each behind those that it reads; inputs are no calls."""
        ends = {id(tensor) for tensor in self.tree.flatten(self.inputs)}
        order: dict[int, Any] = {}
        waiting = [(tensor, False) for tensor in reversed(self.tree.flatten(self.outputs))]
        while waiting:
            tensor, is_ready = waiting.pop()
            operation, index, _ = getattr(tensor, "_keras_history", (None, 0, 0))
            if id(tensor) in ends or operation is None:
                continue
            node = operation._inbound_nodes[index]
            if is_ready:
                order.setdefault(id(node), node)
            elif id(node) not in order:
                waiting.append((tensor, True))
                waiting.extend((one, False) for one in reversed(node.input_tensors))
        return [node for node in order.values() if node.input_tensors]

    def run(self, given: Any, call: Callable[[Any, Any, Any], Any]) -> Any:
        """Makes the calls again.

        Args:
            given: Tensors in the structure of `inputs`.
            call: Gets a node, its arguments and its named arguments with the new tensors; returns what comes out.

        Returns:
            The new tensors in the structure of `outputs`.
        """
        table = dict(zip(map(id, self.tree.flatten(self.inputs)), self.tree.flatten(given)))
        for node in self.calls():
            args, kwargs = node.arguments.fill_in(table)
            table.update(zip(map(id, node.outputs), self.tree.flatten(call(node, args, kwargs))))
        return self.tree.map_structure(lambda tensor: table[id(tensor)], self.outputs)
