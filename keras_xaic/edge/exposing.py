"""A file's inner values as its outputs, which is the one way to see them that every interpreter and delegate respects.

Interpreters let some operators write their result over what they read, even where they are told to keep all tensors, and
delegates keep inner values to themselves. Outputs stay.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from keras_xaic.edge.inspect_file import FileInfo, Table


def with_outputs(info: FileInfo, tensors: Sequence[int]) -> bytes:
    """Returns a file whose main graph has these outputs, in this order.

    Args:
        info: The file.
        tensors: Numbers of tensors of the main graph.
    """
    graph = next(Table.root(info.content).tables(2))
    changed = bytearray(info.content) + bytes(-len(info.content) % 4)
    place = graph.find(2)  # the field that says where the list of outputs lies
    struct.pack_into("<I", changed, place, len(changed) - place)
    return bytes(changed + struct.pack(f"<{len(tensors) + 1}i", len(tensors), *tensors))
