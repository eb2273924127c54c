"""Everything that the user said about one run; two runs with equal settings on equal models and data are the same run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from keras_xaic.planning import Budget, Plan
from keras_xaic.recipes import Recipe
from keras_xaic.settings import DataOptions, Device, Training

EPOCHS, MOST_EPOCHS = 10, 120
"""Epochs where neither epochs nor minutes are given, and the most that are trained in however many minutes."""


@dataclass(frozen=True)
class RunSettings:
    """What a run is to do. Its fingerprint is computed from its fields (see `keras_xaic.identity.facts_of`).

    Attributes:
        recipe: The method.
        budget: What may be spent.
        training: How to train.
        device: Where it will run.
        options: How data and model are read.
        baselines: What to compare with.
        plan: Carried out as it is instead of one that is made.
    """

    recipe: Recipe
    budget: Budget
    training: Training
    device: Device
    options: DataOptions
    baselines: tuple[Recipe, ...] = ()
    plan: Optional[Plan] = None

    @property
    def seed(self) -> int:
        """The seed of everything random, the same in all rounds."""
        return self.training.seed or 0

    @property
    def epochs(self) -> int:
        """Passes over the training data, all rounds together; where minutes are limited, at most these."""
        return self.training.effort(EPOCHS, MOST_EPOCHS)
