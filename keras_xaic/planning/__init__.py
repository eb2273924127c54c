"""Spends a byte budget where it matters."""

from __future__ import annotations

from keras_xaic.planning.budget import Budget
from keras_xaic.planning.checking import check_plan
from keras_xaic.planning.filter_plan import FilterPlan
from keras_xaic.planning.filters import PLAIN_BITS, keep_masks
from keras_xaic.planning.grid_choice import with_grid
from keras_xaic.planning.plan_file import LayerPlan, Plan
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
    "check_plan",
    "keep_masks",
    "kept_weights",
    "legal_storages",
    "measure_damage",
    "plan",
    "weight_score",
    "with_grid",
]
