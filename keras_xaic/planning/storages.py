"""What a weight may be stored as: the combinations that were measured to be exact. Everything else is refused.

Several combinations load and run on an interpreter and give wrong numbers (INT4 convolutions behind int16 or float activations,
per-channel INT8 in a hybrid FULLY_CONNECTED, a non-zero zero point). So this is a list of what is right, not of what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Optional

from keras_xaic.errors import ExportError

if TYPE_CHECKING:
    from keras_xaic.models.kernels import KernelKind

Granularity = Literal["channel", "tensor"]
Storage = Literal["int4", "int8", "float32"]
Activations = Literal["int8", "int16", "float32"]
Runtime = Literal["tflite-runtime", "litert", "tflm"]

RUNTIMES: tuple[Runtime, ...] = ("tflite-runtime", "litert", "tflm")
WIDENING: tuple[Runtime, ...] = ("tflite-runtime", "litert")
"""Interpreters that widen constant weights to float32 exactly; TensorFlow Lite Micro takes the first channel's step for all."""
RUN_BY: dict[Activations, tuple[Runtime, ...]] = {
    "int8": ("tflite-runtime", "tflm"),
    "int16": ("tflite-runtime", "tflm"),
    "float32": WIDENING,
}
"""Activations of a plan -> the interpreters that its file must be exact on."""
KINDS: dict[str, KernelKind] = {
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "depthwise",
    "FULLY_CONNECTED": "dense",
    "TRANSPOSE_CONV": "conv_transpose",
}
"""Weight operators of TFLite -> kind of kernel (see `keras_xaic.models.kernels.Kernel`)."""
INT4_VERSIONS: dict[str, int] = {"CONV_2D": 7, "DEPTHWISE_CONV_2D": 7, "FULLY_CONNECTED": 10}
"""Operator versions that the TFLite converter gives to operators with INT4 weights."""
BITS_OF: dict[Storage, int] = {"int4": 4, "int8": 8, "float32": 32}


@dataclass(frozen=True)
class StorageRule:
    """One exact combination.

    Attributes:
        kinds: Kinds of kernels.
        storage: How the weights lie in the file.
        activations: Type of what goes into the operator.
        granularity: ``tensor``, ``channel`` or both.
        runtimes: Interpreters that compute it exactly.
    """

    kinds: tuple[KernelKind, ...]
    storage: Storage
    activations: Activations
    granularity: tuple[Granularity, ...]
    runtimes: tuple[Runtime, ...] = RUNTIMES


_ALL: tuple[KernelKind, ...] = ("conv", "depthwise", "dense", "conv_transpose")
RULES: tuple[StorageRule, ...] = (
    StorageRule(("conv", "depthwise"), "int4", "int8", ("tensor", "channel")),
    StorageRule(("dense",), "int4", "int8", ("tensor",)),
    StorageRule(("dense",), "int4", "int8", ("channel",), ("litert",)),
    StorageRule(_ALL, "int8", "int8", ("tensor", "channel")),
    StorageRule(("conv",), "int8", "int16", ("channel",)),
    StorageRule(("dense",), "int8", "int16", ("tensor",)),
    StorageRule(("depthwise", "conv_transpose"), "int8", "int16", ("channel",), ("tflite-runtime", "tflm")),
    StorageRule(_ALL, "int8", "float32", ("tensor", "channel"), WIDENING),  # behind a DEQUANTIZE of its own
    StorageRule(
        ("dense",), "int4", "float32", ("tensor",), WIDENING
    ),  # inputs are rounded to int8, sample by sample, as it runs
    StorageRule(_ALL, "float32", "float32", ("tensor", "channel")),
)


def can_be_packed(kind: KernelKind, shape: Sequence[int], activations: Activations = "int8") -> bool:
    """Returns whether tflite-runtime 2.14 computes this kernel right from INT4, where `RULES` allow INT4 at all.

    It has code of its own for dense kernels behind float32 with an even number of inputs from 32 on. Where more than 16 of them
    are left over beside blocks of 32, outputs are wrong by a tenth of their range and more; with a multiple of 4 units it also
    writes past the end of a buffer (valgrind), and sooner or later dies. LiteRT 2.3 is right.

    Args:
        kind: Kind of kernel.
        shape: Shape of the kernel in Keras: (inputs, units) of dense ones.
        activations: Type of what goes into the operator.
    """
    if kind != "dense" or activations != "float32":
        return True
    inputs = shape[0]
    return inputs % 2 == 1 or inputs < 32 or inputs % 32 <= 16


def weights_per_byte(count: int, largest: int) -> Optional[int]:
    """Returns how many weights share a byte where an int8 file looks them up, None where INT4 holds as many (see `look_up`).

    Bytes are positive int8 numbers, the only ones that TensorFlow Lite Micro makes indices of.

    Args:
        count: Number of weights, of which every byte holds equally many.
        largest: Largest magnitude of their integers.
    """
    levels = 2 * largest + 1
    return next((group for group in (4, 3) if levels**group <= 128 and count % group == 0), None)


def legal_storages(
    kind: KernelKind,
    bits: int,
    per_tensor: bool,
    activations: Activations = "int8",
    runtimes: Optional[Sequence[Runtime]] = None,
) -> tuple[Storage, ...]:
    """Returns the storages that reproduce a grid exactly on every given interpreter, the smallest first.

    Args:
        kind: ``conv``, ``depthwise``, ``dense`` or ``conv_transpose``.
        bits: Bit-width of the grid, 2 to 8.
        per_tensor: Whether one step serves the whole kernel.
        activations: Type of what goes into the operator.
        runtimes: The interpreters that must run it; None: those of `RUN_BY`.
    """
    runtimes = RUN_BY[activations] if runtimes is None else runtimes
    granularity: Granularity = "tensor" if per_tensor else "channel"
    found = {
        rule.storage
        for rule in RULES
        if kind in rule.kinds
        and rule.activations == activations
        and granularity in rule.granularity
        and bits <= BITS_OF[rule.storage]
        and all(runtime in rule.runtimes for runtime in runtimes)
    }
    return tuple(sorted(found, key=lambda storage: BITS_OF[storage]))


def require_legal(
    key: str,
    storage: Storage,
    kind: KernelKind,
    bits: int,
    per_tensor: bool,
    activations: Optional[Activations],
    runtimes: Optional[Sequence[Runtime]] = None,
) -> None:
    """Refuses a storage that is not exact for the layer `key`; `activations` is None for types that have no name here.

    Raises:
        ExportError: Naming the layer and what would be right.
    """
    legal = legal_storages(kind, bits, per_tensor, activations, runtimes) if activations else ()
    if storage in legal:
        return
    granularity = "one step per tensor" if per_tensor else "one step per channel"
    raise ExportError(
        f"layer {key!r}: a {bits}-bit {kind} kernel with {granularity} behind {activations or 'unknown'} activations "
        f"cannot be stored as {storage} for {', '.join(runtimes or RUN_BY[activations or 'int8'])}",
        " or ".join(legal) if legal else "another combination; this one has no exact storage",
        "Change the plan's storage, granularity or bits for this layer",
    )
