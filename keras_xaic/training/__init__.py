"""Fine-tunes a model under its plan, taught by the original; validation data chooses the epoch, interruptions continue."""

from __future__ import annotations

from keras_xaic.training.fitting import Epoch, Schedule, check_training, fit, predict, within_minutes

__all__ = ["Epoch", "Schedule", "check_training", "fit", "predict", "within_minutes"]
