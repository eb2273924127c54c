"""From a compressed Keras model to the bytes of its .tflite file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Optional, Protocol, Union, get_args

from keras_xaic._keras import Model, keras
from keras_xaic.errors import ExportError
from keras_xaic.grids import QuantizedKernel
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.kernels import weighted_kernels
from keras_xaic.models.ports import ports_of
from keras_xaic.planning.storages import Activations, Storage
from keras_xaic.tflite.clamping import write_clamps_as_relu
from keras_xaic.tflite.convert import Calibration, Source, traced
from keras_xaic.tflite.converter import Precision, Wish
from keras_xaic.tflite.flatbuffer import ModelT, pack
from keras_xaic.tflite.lookup import with_lookup
from keras_xaic.tflite.pairing import weight_operators
from keras_xaic.tflite.reading import match_operators
from keras_xaic.tflite.rewrite import write_grids
from keras_xaic.tflite.signature import name_signature
from keras_xaic.tflite.slim import make_slim
from keras_xaic.tflite.weight_only import write_weight_only


class SavablePlan(Protocol):
    """What export does with a plan."""

    @property
    def activations(self) -> Activations:
        """Type of activations between layers."""

    @property
    def lookup(self) -> bool:
        """Whether kernels of three values may be looked up."""

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


PRECISION_OF: dict[Activations, Precision] = {"int8": "int8", "int16": "int16", "float32": "weight-only"}
"""Activations of a plan -> what its file computes with."""


def planned_precision(small: Compressed) -> Precision:
    """Returns what the plan of a compressed model says that its file computes with; int8 without a plan."""
    return PRECISION_OF["int8" if small.plan is None else small.plan.activations]


def build_tflite(
    small: Union[Model, Compressed],
    calibration: Calibration,
    *,
    precision: Optional[Precision] = None,
    float_layers: Collection[str] = (),
    lookup: bool = True,
) -> bytes:
    """Returns the .tflite file of a compressed model: slim, with every planned grid exactly as planned.

    It takes and gives what it computes with (see `with_io`).

    Args:
        small: What `compress` returns, or a Keras model (plain int8 weights then).
        calibration: Inputs that set the activation ranges, as the model takes them: (N, ...), or one array per input.
        precision: What the file computes with (see `Precision`); None: what the plan says. With ``int16`` activations and with
            ``weight-only`` grids are stored as int8, since interpreters compute int4 wrongly there, but for dense layers of
            plans for float32 activations; with the other float forms weights are plain numbers.
        float_layers: Weight keys that stay float32 in an int8 or weight-only file, beside those whose storage is ``float32``.
            An int8 file that begins or ends with one takes or gives float32 values there.
        lookup: Whether kernels of three values may lie several to a byte in an int8 file (see `look_up`). False for TensorFlow
            Lite Micro, which has its own ways (see `compress_for_micro`), and for processors that want constant weights.

    Raises:
        DataError: If the calibration data does not fit the model.
        ExportError: Naming the layer, if something cannot be written exactly.
    """
    compressed = as_compressed(small)
    precision = precision or planned_precision(compressed)
    with source_of(compressed, precision, calibration) as source:
        file = build_file(compressed, source, Wish(precision), float_layers)
    return pack(with_lookup(file) if lookup and may_look_up(compressed) else file)


def source_of(small: Compressed, precision: Precision, calibration: Calibration) -> AbstractContextManager[Source]:
    """Returns the traced model that files of a precision are made from (see `traced`).

    Raises:
        ExportError: If there is no such precision.
    """
    if precision not in get_args(Precision):
        raise ExportError(f"precision {precision!r}", ", ".join(get_args(Precision)))
    return traced(small.model, precision, calibration if precision in ("int8", "int16") else None)


def build_file(small: Compressed, source: Source, wish: Wish, float_layers: Collection[str] = ()) -> ModelT:
    """Returns what `build_tflite` packs, before kernels are looked up.

    Args:
        small: The compressed model.
        source: The same, traced (see `source_of`).
        wish: What the file computes with, takes and gives.
        float_layers: See `build_tflite`.
    """
    islands = {*float_layers, *(key for key, storage in small.storages.items() if storage == "float32")}
    kernels = {key: kernel for key, kernel in small.kernels.items() if key not in islands}
    integers, weight_only = wish.precision in ("int8", "int16"), wish.precision == "weight-only"
    if islands and wish.precision == "int16":
        raise ExportError(f"layer {min(islands)!r} is to stay float behind int16 activations", "float layers in int8 files")
    places = _places(small, source, islands) if integers or weight_only else []
    wanted = Wish("float32") if weight_only else replace(wish, floating=tuple(sorted(places)))
    file = source.converted(wanted, with_twin=integers and bool(kernels))
    if weight_only:
        # Plans for other activations have int4 where only these may have it.
        storages = small.storages if planned_precision(small) == "weight-only" else {}
        write_weight_only(file, kernels, places, [key for key in kernels if storages.get(key) == "int4"])
    elif integers and kernels:
        storages = dict.fromkeys(small.storages, "int8") if wish.precision == "int16" else small.storages
        write_grids(file, weight_operators(source.floating), kernels, storages)
    write_clamps_as_relu(file)
    ports = ports_of(small.model)
    several = len(ports.inputs) > 1 or len(ports.outputs) > 1
    make_slim(file, signature=several)
    if several:
        name_signature(file, ports.inputs, ports.outputs)
    return file


def may_look_up(small: Compressed) -> bool:
    """Whether the plan of a compressed model lets kernels be looked up."""
    return small.plan is None or small.plan.lookup


def _places(small: Compressed, source: Source, keys: set[str]) -> list[int]:
    """Returns which of the weight operators of the float32 twin hold these kernels."""
    if not keys:
        return []
    floating = weight_operators(source.floating)
    stored = match_operators(floating, weighted_kernels(small.model))
    unknown = sorted(keys - set(stored))
    if unknown:
        raise ExportError(f"no layer {unknown[0]!r} with weights", f"some of {', '.join(stored)}", "Check the float layers")
    order = [one.operator.index for one in floating]
    return [order.index(one.index) for key in keys for one in stored[key]]
