"""Plans as tests want them: every kernel alike."""

from __future__ import annotations

from keras_xaic.models import weighted_kernels
from keras_xaic.planning import LayerPlan, Plan


def plan_for(model, bits: int = 4, sparsity: float = 0.0) -> Plan:
    """Every kernel of a model gets `bits`, and zeros if it is no depthwise one; dense layers have one scale."""
    entries = [
        LayerPlan(
            key=kernel.key,
            kind=kernel.kind,
            weights=kernel.size,
            bits=bits,
            granularity="tensor" if kernel.kind == "dense" else "channel",
            storage="int4",
            sparsity=sparsity if kernel.kind != "depthwise" else 0.0,
        )
        for kernel in weighted_kernels(model)
    ]
    return Plan(layers=entries, seed=5)
