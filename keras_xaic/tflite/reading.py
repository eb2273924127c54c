"""Reading weights back out of a .tflite file: what was really written, operator by operator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Optional

import numpy as np

from keras_xaic.models.kernels import Kernel, KernelKind, weighted_kernels
from keras_xaic.tflite.flatbuffer import INT2, TensorT, TensorType, load
from keras_xaic.tflite.pairing import WeightOperator, pair_by_value, weight_operators

if TYPE_CHECKING:
    from keras_xaic._keras import Model

StoredAs = Literal["int2", "int4", "int8", "float16", "float32", "lookup", "other"]
_STORAGES: dict[int, StoredAs] = {
    INT2: "int2",
    TensorType.INT4: "int4",
    TensorType.INT8: "int8",
    TensorType.FLOAT32: "float32",
    TensorType.FLOAT16: "float16",
}


@dataclass(frozen=True)
class StoredWeights:
    """The weights of one operator, as they lie in a file.

    Attributes:
        index: The operator's place in the order of execution.
        kind: ``conv``, ``depthwise``, ``dense`` or ``conv_transpose``.
        storage: ``int2``, ``int4``, ``int8``, ``float16`` or ``float32``; ``lookup`` for looked-up ones (see `look_up`).
        integers: Stored numbers in the operator's layout (see `WeightOperator.weights`): int8, or floats as they are.
        scale: float32, one step or one per channel, shaped to broadcast against `integers`; 1 for floats.
        bias: Stored bias (int32, or float32), None where there is none.
        weight_bytes: Bytes of the weights.
        flash_bytes: Bytes of weights, bias and steps: 4 for each step, of the bias too where it keeps its own.
    """

    index: int
    kind: KernelKind
    storage: StoredAs
    integers: np.ndarray
    scale: np.ndarray
    bias: Optional[np.ndarray]
    weight_bytes: int
    flash_bytes: int

    @property
    def values(self) -> np.ndarray:
        """The weights as real numbers, float32."""
        return np.asarray(np.asarray(self.integers, np.float32) * self.scale)


def read_grids(content: bytes) -> list[StoredWeights]:
    """Returns the weights of every weight operator of a .tflite file, in the order in which they run."""
    model = load(content)
    return [_read(one) for one in weight_operators(model)]


def _read(one: WeightOperator) -> StoredWeights:
    model, tensor = one.operator.model, one.weight_tensor
    steps = _steps(tensor)
    scale = one.per_channel(steps if steps.size else np.ones(1, np.float32))
    bias_tensor = one.operator.input(one.bias_position)
    weight_bytes = len(model.buffers[one.stored.buffer].data)
    bias_bytes = 0 if bias_tensor is None or one.bias is None else one.bias.nbytes + 4 * _steps(bias_tensor).size
    storage = _STORAGES.get(tensor.type, "other") if one.codes is None else "lookup"
    total = weight_bytes + 4 * steps.size + bias_bytes
    return StoredWeights(one.operator.index, one.kind, storage, one.weights, scale, one.bias, weight_bytes, total)


def _steps(tensor: TensorT) -> np.ndarray:
    record = tensor.quantization
    if record is None or record.scale is None:
        return np.zeros(0, np.float32)
    return np.asarray(record.scale, np.float32)


def match_stored(content: bytes, model: Model) -> dict[str, list[StoredWeights]]:
    """Returns weight key -> what is stored of it in a .tflite file, with several entries for layers that are called twice.

    Args:
        content: A .tflite file with float, int8 or low-bit weights.
        model: The Keras model that it was made from.
    """
    return match_operators(weight_operators(load(content)), weighted_kernels(model))


def match_operators(found: Sequence[WeightOperator], kernels: Iterable[Kernel]) -> dict[str, list[StoredWeights]]:
    """Returns what `match_stored` does, of the weight operators of a loaded file and the kernels of the model."""
    stored = [_read(one) for one in found]
    values = {kernel.key: kernel.value for kernel in kernels}
    # Rounding moved a weight by up to half a step; the largest step of any operator of that size is a safe bound, since the
    # closest kernel wins.
    bound = {
        key: np.asarray(max((one.scale.max() for one in stored if one.integers.size == kernel.size), default=0.0), np.float32)
        for key, kernel in values.items()
    }
    pairs = pair_by_value(found, [one.values for one in stored], values, bound)
    groups: dict[str, list[StoredWeights]] = {}
    for key, one in zip(pairs, stored):
        if key is not None:
            groups.setdefault(key, []).append(one)
    return groups
