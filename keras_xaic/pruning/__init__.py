"""TFMOT schedules and masks that follow relevance."""

from __future__ import annotations

from keras_xaic.pruning.apply import can_prune, kernel_masks, prune_by_relevance, ramp_power
from keras_xaic.pruning.mask import PruneByRelevance
from keras_xaic.pruning.schedule import RelevanceSchedule

__all__ = ["PruneByRelevance", "RelevanceSchedule", "can_prune", "kernel_masks", "prune_by_relevance", "ramp_power"]
