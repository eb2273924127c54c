"""Layers are stored as they take the least time within a limit on flash; bits and zeros stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from keras_xaic.planning import cost
from keras_xaic.planning.accounts import Accounts
from keras_xaic.planning.allocation import Candidate, Limits, allocate
from keras_xaic.planning.latency import has_fast_code
from keras_xaic.planning.plan import LayerPlan
from keras_xaic.planning.storages import SLOW

LITTLE = 0.002
"""Share of plain int8's time that a layer may take longer for bytes that nobody has limited."""


def fastest(
    accounts: Accounts, layers: Sequence[LayerPlan], flash: Optional[int], plain: float
) -> tuple[list[LayerPlan], bool]:
    """Returns layers as they take the least time within the limit on flash, and whether any is looked up.

    A byte a weight holds the same grid, takes the same download and is as fast as plain int8; packing makes layers slow
    that fast kernels do not take so. Those that have to be packed for flash are the ones that it costs least time; nothing
    is looked up that need not be.

    Args:
        accounts: What they take.
        layers: What was chosen.
        flash: Bytes of `model.tflite`, or None.
        plain: Microseconds of plain int8, which the cost is told in.
    """
    for may_look_up in (False, True):
        ways = {layer.key: _storages_of(accounts, layer, may_look_up) for layer in layers}
        offered = {
            key: [
                Candidate(one.bits, _cost(accounts, key, stored, plain), one.flash_bytes, 0, stored=stored)
                for stored, one in found
            ]
            for key, found in ways.items()
        }
        taken_by_all = accounts.overhead(layers) + accounts.flash_correction + (cost.TABLE_BYTES if may_look_up else 0)
        chosen = allocate(offered, Limits(None if flash is None else flash - taken_by_all))
        if chosen is not None:
            taken = [(str(chosen[key].stored), dict(found)[chosen[key].stored]) for key, found in ways.items()]
            break
    else:
        taken = [(accounts.stored_as(layer), layer) for layer in layers]
    return [_told(accounts, stored, layer, plain) for stored, layer in taken], any(stored == "lookup" for stored, _ in taken)


def _storages_of(accounts: Accounts, layer: LayerPlan, may_look_up: bool) -> list[tuple[Any, LayerPlan]]:
    """Returns the ways to store what a layer was given, each with the bytes that it takes."""
    if layer.is_float:
        return [("float32", layer)]
    smallest = accounts.storage(layer.key, layer.bits)
    found: list[tuple[Any, LayerPlan]] = []
    looked_up = may_look_up and accounts.stored_as(layer) == "lookup"
    for storage in dict.fromkeys((layer.storage, smallest, "int8")):
        if looked_up and storage == "int4":  # a file that looks up one kernel does so with all that get smaller
            continue
        one = layer.model_copy(update={"storage": storage})
        found.append((storage, one.model_copy(update={"flash_bytes": accounts.stored_bytes(one)})))
    if looked_up:
        found.append(("lookup", layer))
    return found


def _cost(accounts: Accounts, key: str, stored: Any, plain: float) -> float:
    """Returns the time that a storage takes where that is worth more bytes; else that of a byte a weight."""
    taken, usual = accounts.counted_time(key, stored), accounts.time(key, "int8")
    is_little = usual < taken <= max(SLOW * usual, usual + LITTLE * plain)
    return usual if is_little else taken


def _told(accounts: Accounts, stored: Any, layer: LayerPlan, plain: float) -> LayerPlan:
    """Returns a layer with what its storage costs in time."""
    taken, usual = accounts.time(layer.key, stored), accounts.time(layer.key, "float32" if layer.is_float else "int8")
    slowdown = round(taken / usual, 2) if usual > 0 else 1.0
    if slowdown <= SLOW and has_fast_code(accounts.works[layer.key], stored):
        return layer.model_copy(update={"slowdown": slowdown})
    how = "looked up" if stored == "lookup" else "packed"
    said = f"{how} for flash: {slowdown:.1f} times its time, {(taken - usual) / max(plain, 1e-9):+.0%} of plain int8's"
    return layer.model_copy(update={"slowdown": slowdown, "reason": f"{layer.reason}; {said}"})
