"""Spends a byte budget where it matters.

What needs TensorFlow is loaded when it is first used: plans and recipes are read without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_xaic.budget import Budget
from keras_xaic.lazy import loaded_later
from keras_xaic.planning.options import PlanOptions
from keras_xaic.planning.plan import FilterPlan, LayerPlan, Plan, with_grid
from keras_xaic.planning.sparsity import kept_weights, weight_score
from keras_xaic.planning.storages import legal_storages

if TYPE_CHECKING:
    from keras_xaic.planning.checking import check_plan
    from keras_xaic.planning.filters import PLAIN_BITS, keep_masks
    from keras_xaic.planning.planner import measure_damage, plan
    from keras_xaic.planning.sensitivity import SENSITIVITIES
else:
    del plan  # the module of that name: here it is the function

_HOME = {
    "PLAIN_BITS": "filters",
    "SENSITIVITIES": "sensitivity",
    "check_plan": "checking",
    "keep_masks": "filters",
    "measure_damage": "planner",
    "plan": "planner",
}

__all__ = [
    "PLAIN_BITS",
    "SENSITIVITIES",
    "Budget",
    "FilterPlan",
    "LayerPlan",
    "Plan",
    "PlanOptions",
    "check_plan",
    "keep_masks",
    "kept_weights",
    "legal_storages",
    "measure_damage",
    "plan",
    "weight_score",
    "with_grid",
]


__getattr__ = loaded_later(__name__, _HOME)
