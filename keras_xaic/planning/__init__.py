"""Spends a byte budget where it matters."""

from __future__ import annotations

from keras_xaic.budget import Budget
from keras_xaic.planning.filters import PLAIN_BITS, keep_masks
from keras_xaic.planning.options import PlanOptions
from keras_xaic.planning.plan import FilterPlan, LayerPlan, Plan, check_plan, with_grid
from keras_xaic.planning.planner import measure_damage, plan
from keras_xaic.planning.sensitivity import SENSITIVITIES
from keras_xaic.planning.sparsity import kept_weights, weight_score
from keras_xaic.planning.storages import legal_storages

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
