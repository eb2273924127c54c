"""A plan, and relevance, held against the model that they are for."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import numpy as np

from keras_xaic.errors import PlanError
from keras_xaic.models.branches import check_branches
from keras_xaic.models.kernels import KernelKind, other_matrices, weighted_kernels
from keras_xaic.models.operations import Operations
from keras_xaic.planning.plan import ENTROPY_GRIDS, LayerPlan, Plan, pattern_sparsity
from keras_xaic.planning.storages import legal_storages

if TYPE_CHECKING:
    from keras_xaic._keras import Model
    from keras_xaic.relevance import Relevance


def check_plan(plan: Plan, model: Model) -> None:
    """Refuses a plan that names what the model does not have, or a storage that would give wrong numbers.

    Args:
        plan: The plan.
        model: The model it is for, before branches and filters are removed.

    Raises:
        PlanError: Naming the layer and what would be right.
    """
    if plan.branches:
        check_branches(Operations(model), plan.branches)
    gone = {path for paths in plan.branches.values() for path in paths}
    kernels = {kernel.key: kernel for kernel in weighted_kernels(model)}
    seen: set[str] = set()
    for layer in plan.layers:
        if layer.key not in kernels:
            near = difflib.get_close_matches(layer.key, kernels, 3, 0.0)
            raise PlanError(f"the plan names the layer {layer.key!r}", f"one of the model's, e.g. {', '.join(near)}")
        if kernels[layer.key].path in gone:
            raise PlanError(
                f"the plan says what layer {layer.key!r} gets and takes out the branch that it is in", "one of the two"
            )
        if layer.key in seen:
            raise PlanError(f"the plan names the layer {layer.key!r} twice", "one entry per layer")
        seen.add(layer.key)
        _check_storage(layer, kernels[layer.key].kind, plan)
        if ":" in layer.pattern and layer.sparsity == 0 and layer.grid not in ENTROPY_GRIDS:
            zeros = pattern_sparsity(layer.pattern, 0.0)
            raise PlanError(
                f"the plan gives layer {layer.key!r} the pattern {layer.pattern} and no zeros",
                f"sparsity {zeros:g}, or the pattern unstructured",
            )
    others = other_matrices(model) if plan.rounded else {}
    for name in plan.rounded:
        if name not in others:
            expected = f"one of {', '.join(others)}" if others else "none: all of them are in kernels"
            raise PlanError(f"the plan rounds the matrices of {name!r} that are in no kernel", expected)
    shrinks = plan.remove or plan.filters or plan.branches
    for layer in plan.layers:
        size = int(np.prod(kernels[layer.key].shape))
        if layer.weights > size or (layer.weights != size and not shrinks):
            raise PlanError(
                f"the plan is for {layer.weights:,} weights of layer {layer.key!r}",
                f"{size:,}, those of the model's",
                "Plan for this model",
            )


def check_relevance(relevance: Relevance, model: Model) -> None:
    """Refuses relevance of another model: arrays of other shapes than the kernels of the same names have.

    Raises:
        PlanError: Naming the layer.
    """
    for kernel in weighted_kernels(model):
        scores = relevance.weights.get(kernel.key)
        if scores is not None and np.shape(scores) != kernel.shape:
            raise PlanError(
                f"the relevance of {kernel.key!r} has the shape {np.shape(scores)}",
                f"{kernel.shape}, the kernel's",
                "Compute it for this model: xaic explain",
            )
        channels = relevance.filters.get(kernel.path)
        if channels is not None and np.ndim(channels) != 1:
            raise PlanError(
                f"the relevance of the filters of {kernel.path!r} has the shape {np.shape(channels)}", "one score a filter"
            )


def _check_storage(layer: LayerPlan, kind: KernelKind, plan: Plan) -> None:
    if layer.kind != kind:
        raise PlanError(f"the plan calls layer {layer.key!r} {layer.kind}", kind)
    if layer.is_float and plan.activations == "int16":
        raise PlanError(f"the plan keeps layer {layer.key!r} float among int16 activations", "float layers with int8 ones")
    activations = "float32" if layer.is_float else plan.activations
    legal = legal_storages(kind, layer.bits, layer.granularity == "tensor", activations)
    if layer.storage not in legal:
        raise PlanError(
            f"the plan stores layer {layer.key!r} ({layer.bits}-bit {kind}, one step per {layer.granularity}, {activations} "
            f"activations) as {layer.storage}",
            " or ".join(legal) or "8 bits or fewer in int8 with steps of the other granularity",
            "Change bits, storage or granularity of this layer",
        )
