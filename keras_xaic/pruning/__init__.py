"""TFMOT schedules and masks that follow relevance."""

from __future__ import annotations

from keras_xaic.pruning.apply import can_prune, kernel_masks, prune_by_relevance
from keras_xaic.pruning.mask import PruneByRelevance
from keras_xaic.pruning.pattern import pattern_mask
from keras_xaic.pruning.schedule import RelevanceSchedule, ramp_power, relevance_schedules

__all__ = [
    "PruneByRelevance",
    "RelevanceSchedule",
    "can_prune",
    "kernel_masks",
    "pattern_mask",
    "prune_by_relevance",
    "ramp_power",
    "relevance_schedules",
]
