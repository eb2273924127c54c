"""Trains a model to live within its plan: the original teaches, validation data chooses the epoch, interruptions continue."""

from __future__ import annotations

from keras_xaic.training.fitting import Epoch, Schedule, check_training, fit, predict, within_minutes

__all__ = ["Epoch", "Schedule", "check_training", "fit", "predict", "within_minutes"]
