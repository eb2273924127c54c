"""Fine-tunes a model under its plan, taught by the original; validation data chooses the epoch, interruptions continue."""

from __future__ import annotations

from keras_xaic.training.fitting import fit, sample_weights, within_minutes
from keras_xaic.training.predicting import predict
from keras_xaic.training.schedule import Epoch, Schedule, check_training

__all__ = ["Epoch", "Schedule", "check_training", "fit", "predict", "sample_weights", "within_minutes"]
