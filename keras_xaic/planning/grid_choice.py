"""Which grid a plan's layers get."""

from __future__ import annotations

from typing import Any

from keras_xaic.planning.cost import weight_bytes
from keras_xaic.planning.plan_file import Grid, Plan


def with_grid(plan: Plan, grid: Grid) -> Plan:
    """Returns the plan with every layer on `grid`, and with the bytes that follow from it.

    A codebook's levels may lie anywhere in int8, so a kernel with a codebook takes a byte per weight in `model.tflite`,
    whatever its bit-width; on TensorFlow Lite Micro (lookup tables) and in the download it takes its bit-width and less.

    Args:
        plan: Its bits, sparsities and granularities stay.
        grid: See `LayerPlan.grid`.
    """
    layers, more = [], 0
    for layer in plan.layers:
        if layer.is_float:
            layers.append(layer)
            continue
        update: dict[str, Any] = {"grid": grid}
        if grid == "codebook":
            wider = weight_bytes(layer.weights, "int8", layer.bits)
            wider -= weight_bytes(layer.weights, layer.storage, layer.bits, plan.activations)
            update.update(storage="int8", flash_bytes=layer.flash_bytes + wider)
            more += wider
        layers.append(layer.model_copy(update=update))
    return plan.model_copy(update={"layers": layers, "predicted_flash_bytes": plan.predicted_flash_bytes + more})
