"""How a stage trains: epochs, learning rate, optimizer and loss; what an epoch measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from keras_xaic._keras import keras
from keras_xaic.arguments import keyword_only, shown
from keras_xaic.errors import PlanError, first_line
from keras_xaic.models.losses import check_loss
from keras_xaic.settings import Training
from keras_xaic.training.callbacks import check_callbacks
from keras_xaic.training.parallel import strategy_of


@keyword_only(after=3)
@dataclass(frozen=True)
class Schedule:
    """How to fine-tune.

    Attributes:
        epochs: Passes over the training samples.
        learning_rate: First learning rate; it falls along a cosine to 1 % of that.
        batch_size: Samples a step.
        distillation: Weight of the original's outputs in the loss, 0 to 1; the rest is the weight of the labels.
        temperature: Softens both outputs in the distillation term (Hinton et al. 2015, arXiv 1503.02531, section 2).
        select_from: Epochs before this one (fraction of all, 0 to 1) cannot be chosen as the best.
        seed: Seed of the order of samples.
        patience: Training ends after this many epochs in a row that are no better on validation data; None never ends it early.
        optimizer: Name of a Keras optimizer, or one that is set up: every stage trains with a fresh one of its settings, its
            own learning rate included.
        loss: What takes the place of the task's own loss of the labels: a Keras loss, its name, or a function
            ``(labels, outputs)``; of several outputs also by name. Classes come one-hot, so it is ``categorical_crossentropy``,
            not the sparse one.
        share: Part of the training samples that an epoch passes over, drawn again in each, above 0 to 1.
        minutes: Time that all epochs together may take on this machine (see `within_minutes`); None does not limit it.
        class_weight: Class -> how much its samples count.
        explanation_loss: How much the maps of the original teach (see `keras_xaic.training.explanations`); 0 is not at all.
    """

    epochs: int
    learning_rate: float = 1e-3
    batch_size: int = 64
    distillation: float = 0.7
    temperature: float = 2.0
    select_from: float = 0.0
    seed: int = 0
    patience: Optional[int] = None
    optimizer: Any = "adam"
    loss: Any = None
    share: float = 1.0
    minutes: Optional[float] = None
    class_weight: Optional[Mapping[int, float]] = None
    explanation_loss: float = 0.0

    @classmethod
    def of(cls, training: Training, epochs: int, seed: int) -> Schedule:
        """Returns how a stage trains by the user's settings; minutes are shared out by whoever knows the stages."""
        names = (
            "learning_rate",
            "batch_size",
            "distillation",
            "patience",
            "optimizer",
            "loss",
            "class_weight",
            "explanation_loss",
        )
        return cls(epochs=epochs, seed=seed, **{name: getattr(training, name) for name in names})

    def steps(self, samples: int) -> int:
        """Returns the number of training steps over all epochs."""
        return self.epochs * self.steps_per_epoch(samples)

    def steps_per_epoch(self, samples: int) -> int:
        """Returns the number of training steps in one epoch."""
        return -(-max(1, round(samples * self.share)) // self.batch_size)

    def selectable(self, number: int) -> bool:
        """Returns whether the model may be chosen as it is after `number` epochs."""
        return number > self.select_from * self.epochs or number == self.epochs

    def is_over(self, history: Sequence[Epoch]) -> bool:
        """Returns whether training ends here."""
        if self.patience is None or len(history) >= self.epochs:
            return len(history) >= self.epochs
        values = [epoch.held_back for epoch in history if self.selectable(epoch.number)]
        return bool(values) and len(values) - 1 - int(np.argmax(values)) >= self.patience

    @property
    def has_optimizer(self) -> bool:
        """Whether the optimizer is set up already, its learning rate included."""
        return not isinstance(self.optimizer, (str, type))

    def cosine(self, samples: int) -> Any:
        """Returns the learning rate as a function of the step."""
        return keras.optimizers.schedules.CosineDecay(self.learning_rate, max(1, self.steps(samples)), alpha=0.01)

    def make_optimizer(self, samples: int, constant: bool = False) -> Any:
        """Returns a fresh optimizer.

        Args:
            samples: Number of training samples.
            constant: Whether its learning rate stays as it is, so that callbacks can set it.

        Raises:
            PlanError: If Keras does not know it.
        """
        kinds = (keras.optimizers.Optimizer, keras.optimizers.legacy.Optimizer)
        rate = self.learning_rate if constant else self.cosine(samples)
        if isinstance(self.optimizer, kinds):
            try:
                made = type(self.optimizer).from_config(self.optimizer.get_config())
            except Exception as error:
                found = f"a fresh {type(self.optimizer).__name__} cannot be made of the optimizer ({first_line(error)})"
                raise PlanError(found, "one whose get_config() returns what its constructor takes", "Extend it") from error
            if constant and isinstance(getattr(made, "_learning_rate", None), keras.optimizers.schedules.LearningRateSchedule):
                found = "the optimizer has a schedule of its own, and a callback sets the learning rate, too"
                raise PlanError(found, "one of both")
            return made
        if isinstance(self.optimizer, type) and issubclass(self.optimizer, kinds) and self.optimizer not in kinds:
            return self.optimizer(rate)
        named = {name.lower(): getattr(keras.optimizers, name) for name in dir(keras.optimizers) if name[0].isupper()}
        known = {name: kind for name, kind in named.items() if kind not in kinds}
        if not isinstance(self.optimizer, str) or self.optimizer.lower() not in known:
            found = f"optimizer is {shown(self.optimizer)}"
            raise PlanError(found, "the name of a Keras optimizer such as adam, its class, or one that is set up")
        return known[self.optimizer.lower()](rate)


@dataclass(frozen=True)
class Epoch:
    """What one epoch measured: the loss, and the task's metric value on validation data (higher is better)."""

    number: int
    loss: float
    held_back: float


def check_training(training: Training) -> None:
    """Refuses an optimizer or a loss that Keras does not know, and a callback that cannot work, before any work.

    Raises:
        PlanError: Naming it.
        MachineError: If the strategy needs devices that are not here.
    """
    strategy_of(training.strategy)
    Schedule.of(training, 1, 0).make_optimizer(1)
    check_callbacks(training.callbacks)
    if training.loss is not None:
        several = training.loss.values() if isinstance(training.loss, Mapping) else training.loss
        for loss in several if isinstance(training.loss, (Mapping, list, tuple)) else [training.loss]:
            check_loss(loss)
