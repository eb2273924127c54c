"""From a compressed Keras model to the bytes of its .tflite file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Protocol

from keras_xaic._keras import keras
from keras_xaic.errors import ExportError
from keras_xaic.grids import QuantizedKernel
from keras_xaic.models.canonical import canonicalize
from keras_xaic.tflite.clamping import write_clamps_as_relu
from keras_xaic.tflite.convert import Calibration, InputOutput, float_twin, int8_twin
from keras_xaic.tflite.flatbuffer import load, pack
from keras_xaic.tflite.rewrite import write_grids
from keras_xaic.tflite.slim import slim


class SavablePlan(Protocol):
    """What export does with a plan."""

    def save(self, path: Any) -> None:
        """Writes the plan as JSON."""


class Compressed(Protocol):
    """What export needs of a compressed model."""

    @property
    def model(self) -> Any:
        """Canonical Keras model whose planned kernels lie on their grids."""

    @property
    def kernels(self) -> Mapping[str, QuantizedKernel]:
        """Weight key -> grid. Kernels that are not here are stored as plain int8."""

    @property
    def storages(self) -> Mapping[str, str]:
        """Weight key -> ``int4`` or ``int8``."""

    @property
    def plan(self) -> Optional[SavablePlan]:
        """The plan it was made by."""


@dataclass(frozen=True)
class Uncompressed:
    """A Keras model without grids, as `Compressed`."""

    model: Any
    kernels: Mapping[str, QuantizedKernel] = field(default_factory=dict)
    storages: Mapping[str, str] = field(default_factory=dict)
    plan: Optional[SavablePlan] = None


def as_compressed(small: Any) -> Compressed:
    """Returns `small` if it is a `Compressed`; makes one of a Keras model by folding its BatchNorm.

    Raises:
        ExportError: If it is neither.
    """
    if isinstance(small, keras.Model):
        return Uncompressed(canonicalize(small).model)
    if all(hasattr(small, name) for name in ("model", "kernels", "storages", "plan")):
        compressed: Compressed = small
        return compressed
    raise ExportError(f"a {type(small).__name__} cannot be exported", "a Keras model or what `compress` returns")


def build_tflite(
    small: Any,
    calibration: Calibration,
    io: InputOutput = "int8",
    *,
    signature: bool = False,
) -> bytes:
    """Returns the .tflite file of a compressed model: slim, with every planned grid exactly as planned.

    Args:
        small: What `compress` returns, or a Keras model (plain int8 then).
        calibration: Inputs that set the activation ranges, as the model takes them: (N, ...), or one array per input.
        io: Whether the file takes and gives int8 codes or float32 values.
        signature: Whether the file names its inputs and outputs.

    Raises:
        DataError: If the calibration data does not fit the model.
        ExportError: Naming the layer, if something cannot be written exactly.
    """
    compressed = as_compressed(small)
    content = int8_twin(compressed.model, calibration, io)
    if compressed.kernels:
        content = write_grids(content, float_twin(compressed.model), compressed.kernels, compressed.storages)
    model = load(content)
    write_clamps_as_relu(model)
    return slim(pack(model), signature)
