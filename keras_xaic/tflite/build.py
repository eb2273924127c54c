"""From a compressed Keras model to the bytes of its .tflite file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Protocol, Union, get_args

from keras_xaic._keras import Model, keras
from keras_xaic.errors import ExportError
from keras_xaic.grids import QuantizedKernel
from keras_xaic.models.canonical import canonicalize
from keras_xaic.planning.storages import Activations, Storage
from keras_xaic.tflite.clamping import write_clamps_as_relu
from keras_xaic.tflite.convert import (
    Calibration,
    InputOutput,
    Precision,
    dynamic_range_model,
    float16_model,
    float_twin,
    int8_twin,
    int8_twin_with_islands,
    int16_twin,
)
from keras_xaic.tflite.flatbuffer import load, pack
from keras_xaic.tflite.lookup import look_up
from keras_xaic.tflite.reading import match_stored, read_grids
from keras_xaic.tflite.rewrite import write_grids
from keras_xaic.tflite.slim import slim
from keras_xaic.tflite.weight_only import write_weight_only


class SavablePlan(Protocol):
    """What export does with a plan."""

    @property
    def activations(self) -> Activations:
        """Type of activations between layers."""

    def save(self, path: Any) -> None:
        """Writes the plan as JSON."""


class Compressed(Protocol):
    """What export needs of a compressed model."""

    @property
    def model(self) -> Model:
        """Canonical Keras model whose planned kernels lie on their grids."""

    @property
    def kernels(self) -> Mapping[str, QuantizedKernel]:
        """Weight key -> grid. Kernels that are not here are stored as plain int8."""

    @property
    def storages(self) -> Mapping[str, Storage]:
        """Weight key -> ``int4``, ``int8``, or ``float32`` for a layer that is not quantized."""

    @property
    def plan(self) -> Optional[SavablePlan]:
        """The plan it was made by."""


@dataclass(frozen=True)
class Uncompressed:
    """A Keras model without grids, as `Compressed`."""

    model: Model
    kernels: Mapping[str, QuantizedKernel] = field(default_factory=dict)
    storages: Mapping[str, Storage] = field(default_factory=dict)
    plan: Optional[SavablePlan] = None


def as_compressed(small: Union[Model, Compressed]) -> Compressed:
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


_FLOATING: dict[Precision, Callable[[Model], bytes]] = {
    "float32": float_twin,
    "float16": float16_model,
    "dynamic-range": dynamic_range_model,
}
PRECISION_OF: dict[Activations, Precision] = {"int8": "int8", "int16": "int16", "float32": "weight-only"}
"""Activations of a plan -> what its file computes with."""


def planned_precision(small: Compressed) -> Precision:
    """Returns what the plan of a compressed model says that its file computes with; int8 without a plan."""
    return PRECISION_OF["int8" if small.plan is None else small.plan.activations]


def build_tflite(
    small: Union[Model, Compressed],
    calibration: Calibration,
    io: InputOutput = "int8",
    *,
    precision: Optional[Precision] = None,
    float_layers: Collection[str] = (),
    signature: bool = False,
    lookup: bool = True,
) -> bytes:
    """Returns the .tflite file of a compressed model: slim, with every planned grid exactly as planned.

    Args:
        small: What `compress` returns, or a Keras model (plain int8 weights then).
        calibration: Inputs that set the activation ranges, as the model takes them: (N, ...), or one array per input.
        io: Whether the file takes and gives integer codes or float32 values.
        precision: What the file computes with (see `Precision`); None: what the plan says. With ``int16`` activations and with
            ``weight-only`` grids are stored as int8, since interpreters compute int4 wrongly there, but for dense layers of
            plans for float32 activations; with the other float forms weights are plain numbers.
        float_layers: Weight keys that stay float32 in an int8 or weight-only file, beside those whose storage is ``float32``.
            An int8 file that begins or ends with one takes or gives float32 values there.
        signature: Whether the file names its inputs and outputs.
        lookup: Whether kernels of three values may lie several to a byte in an int8 file (see `look_up`). False for TensorFlow
            Lite Micro, which has its own ways (see `compress_for_micro`), and for processors that want constant weights.

    Raises:
        DataError: If the calibration data does not fit the model.
        ExportError: Naming the layer, if something cannot be written exactly.
    """
    compressed = as_compressed(small)
    precision = precision or planned_precision(compressed)
    islands = {*float_layers, *(key for key, storage in compressed.storages.items() if storage == "float32")}
    if precision == "weight-only":
        content = _weight_only(compressed, islands)
    elif precision in _FLOATING:
        content = _FLOATING[precision](compressed.model)
    elif precision in ("int8", "int16"):
        content = _quantized(compressed, calibration, io, precision, islands)
    else:
        raise ExportError(f"precision {precision!r}", ", ".join(get_args(Precision)))
    model = load(content)
    write_clamps_as_relu(model)
    content = slim(pack(model), signature)
    return look_up(content) if lookup else content


def _weight_only(small: Compressed, islands: set[str]) -> bytes:
    floating = float_twin(small.model)
    kernels = {key: kernel for key, kernel in small.kernels.items() if key not in islands}
    # Plans for other activations have int4 where only these may have it.
    storages = small.storages if planned_precision(small) == "weight-only" else {}
    packed = [key for key in kernels if storages.get(key) == "int4"]
    return write_weight_only(floating, kernels, _places(small.model, floating, islands) if islands else (), packed)


def _quantized(small: Compressed, calibration: Calibration, io: InputOutput, precision: Precision, islands: set[str]) -> bytes:
    floating = float_twin(small.model)
    kernels = {key: kernel for key, kernel in small.kernels.items() if key not in islands}
    storages = dict(small.storages)
    if precision == "int16":
        if islands:
            raise ExportError(f"layer {min(islands)!r} is to stay float behind int16 activations", "float layers in int8 files")
        content, storages = int16_twin(small.model, calibration, io), dict.fromkeys(storages, "int8")
    elif islands:
        content = int8_twin_with_islands(small.model, calibration, _places(small.model, floating, islands), io)
    else:
        content = int8_twin(small.model, calibration, io)
    return write_grids(content, floating, kernels, storages) if kernels else content


def _places(model: Model, floating: bytes, keys: set[str]) -> list[int]:
    """Returns which of the weight operators hold these kernels."""
    stored = match_stored(floating, model)
    unknown = sorted(keys - set(stored))
    if unknown:
        raise ExportError(f"no layer {unknown[0]!r} with weights", f"some of {', '.join(stored)}", "Check the float layers")
    order = [one.index for one in read_grids(floating)]
    return [order.index(one.index) for key in keys for one in stored[key]]
