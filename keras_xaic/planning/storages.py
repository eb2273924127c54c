"""What a weight may be stored as: the combinations that were measured to be exact. Everything else is refused.

Several combinations load and run on an interpreter and give wrong numbers (INT4 convolutions behind int16 or float activations,
per-channel INT8 in a hybrid FULLY_CONNECTED, a non-zero zero point). So this is a list of what is right, not of what is wrong.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Optional, get_args

from keras_xaic.errors import ExportError

if TYPE_CHECKING:
    from keras_xaic.models.kernels import KernelKind

Granularity = Literal["channel", "tensor"]
Storage = Literal["int4", "int8", "float32"]
Activations = Literal["int8", "int16", "float32"]
Runtime = str
"""Name of an edge interpreter."""

_TABLE = json.loads((pathlib.Path(__file__).parents[1] / "edge" / "storages.json").read_text(encoding="utf-8"))
"""What interpreters were measured to do, by version; `bench/storages.py` writes it."""
RUNTIMES: tuple[Runtime, ...] = tuple(_TABLE["measured"])
RUN_BY: dict[Activations, tuple[Runtime, ...]] = {key: tuple(names) for key, names in _TABLE["must_run_on"].items()}
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


Combination = tuple["KernelKind", Storage, Activations, Granularity]
"""Kind of kernel, how its weights lie in the file, type of what goes into the operator, and for what one scale serves."""


def _is_used(row: dict[str, Any], interpreter: Runtime) -> bool:
    def covers(exception: dict[str, Any]) -> bool:
        same = all(exception.get(key, row[key]) == row[key] for key in ("storage", "activations", "granularity"))
        named = interpreter in exception.get("interpreters", [interpreter])
        return same and named and row["kind"] in exception.get("kinds", [row["kind"]])

    return not any(covers(exception) for exception in _TABLE["not_used"])


def _exact() -> dict[Combination, tuple[Runtime, ...]]:
    """Returns the combinations that the newest measured version of an interpreter computes right, and by which ones."""
    found: dict[Combination, tuple[Runtime, ...]] = {}
    for interpreter, versions in _TABLE["measured"].items():
        for row in versions[list(versions)[-1]]:
            if row["right"] and _is_used(row, interpreter):
                key = (row["kind"], row["storage"], row["activations"], row["granularity"])
                found[key] = (*found.get(key, ()), interpreter)
    return found


EXACT = _exact()


SLOW = 1.25
"""A storage is slow that takes so many times as long as INT8 does."""


def can_be_packed(kind: KernelKind, shape: Sequence[int], activations: Activations = "int8") -> bool:
    """Returns whether every interpreter computes this kernel right from INT4, where `EXACT` allows INT4 at all.

    One has code of its own for dense kernels behind float32 with an even number of inputs from 32 on (``packed_dense_wrong`` of
    the table). Where more than 16 of them are left over beside blocks of 32, outputs are wrong by a tenth of their range and
    more; with a multiple of 4 units it also writes past the end of a buffer (valgrind), and sooner or later dies.

    Args:
        kind: Kind of kernel.
        shape: Shape of the kernel in Keras: (inputs, units) of dense ones.
        activations: Type of what goes into the operator.
    """
    if kind != "dense" or activations != "float32":
        return True
    inputs = shape[0]
    return not any(
        inputs % 2 == 0 and inputs >= one["even_inputs_from"] and inputs % one["block"] > one["most_left_over"]
        for one in _TABLE["packed_dense_wrong"]
    )


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
    storages: tuple[Storage, ...] = get_args(Storage)
    return tuple(
        storage
        for storage in storages
        if bits <= BITS_OF[storage] and set(runtimes) <= set(EXACT.get((kind, storage, activations, granularity), ()))
    )


def require_legal(
    key: str,
    storage: Storage,
    kind: KernelKind,
    bits: int,
    per_tensor: bool,
    activations: Optional[Activations],
) -> None:
    """Refuses a storage that is not exact for the layer `key`; `activations` is None for types that have no name here.

    Raises:
        ExportError: Naming the layer and what would be right.
    """
    legal = legal_storages(kind, bits, per_tensor, activations) if activations else ()
    if storage in legal:
        return
    granularity = "one step per tensor" if per_tensor else "one scale per channel"
    raise ExportError(
        f"layer {key!r}: a {bits}-bit {kind} kernel with {granularity} behind {activations or 'unknown'} activations "
        f"cannot be stored as {storage} for {', '.join(RUN_BY[activations or 'int8'])}",
        " or ".join(legal) if legal else "another combination; this one has no exact storage",
        "Change the plan's storage, granularity or bits for this layer",
    )
