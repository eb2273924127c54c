"""Whether the numbers in data are rows that a model's tables have: embeddings read rows by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from keras_xaic._keras import Model, keras
from keras_xaic.data import Samples
from keras_xaic.errors import DataError
from keras_xaic.models.operations import Operation, Operations

_BATCH = 1024


def check_rows(model: Model, samples: Mapping[str, Sequence[Samples]]) -> None:
    """Refuses samples of which an embedding would read a row that it does not have.

    Embeddings behind layers with weights are left alone: of what these give, no data is to blame.

    Args:
        model: The model.
        samples: What they are called in messages -> samples of its inputs: of each, or of all together.

    Raises:
        DataError: Naming the sample, the number and the layer.
    """
    operations = Operations(model)
    tables = [one for one in operations if isinstance(one.layer, keras.layers.Embedding)]
    needed = {one.name: _before(operations, one) for one in tables}
    tables = [one for one in tables if not any(other.layer.weights for other in needed[one.name])]
    if not tables:
        return
    names = {other.name for one in tables for other in needed[one.name]}
    for name, parts in samples.items():
        for start in range(0, len(parts[0]), _BATCH):
            rows = slice(start, start + _BATCH)
            tensors = operations.start([feed for part in parts for feed in part.feeds(rows)])
            for operation in (one for one in operations if one.name in names):
                tensors.update(zip(operation.outputs, operation.call(tensors)))
            for table in tables:
                _check(table, np.asarray(tensors[table.inputs[0]]).astype(np.int64), name, start)


def _before(operations: Operations, operation: Operation) -> list[Operation]:
    """Returns the operations that make what goes into one."""
    found: list[Operation] = []
    keys = [*operation.inputs]
    while keys:
        maker = operations.producer.get(keys.pop())
        if maker is not None and maker not in found:
            found.append(maker)
            keys.extend(maker.inputs)
    return found


def _check(table: Operation, rows: np.ndarray, where: str, start: int) -> None:
    most = int(table.layer.input_dim) - 1
    wrong = np.argwhere((rows < 0) | (rows > most))
    if len(wrong):
        found = f"{where}[{start + wrong[0][0]}] asks the layer {table.path} for row {rows[tuple(wrong[0])]}"
        fix = "Give what the model does not know, and what only fills up, the numbers that it was trained with"
        raise DataError(found, f"a whole number from 0 to {most}", fix)
