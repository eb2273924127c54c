"""What every stage of training shares: data, task, teacher, the user's own callbacks."""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, Optional

import numpy as np

from keras_xaic.bundle import Made, cached
from keras_xaic.data import Data, Parts, Samples, arrays_of
from keras_xaic.errors import DataError
from keras_xaic.files import write_atomic
from keras_xaic.json_files import read_json
from keras_xaic.models.statistics import remeasure_batchnorm
from keras_xaic.models.surgery import remove_channels
from keras_xaic.models.task import fitted, infer_task
from keras_xaic.output_tasks import AnyTask
from keras_xaic.progress import Progress
from keras_xaic.tasks import with_task
from keras_xaic.training import Epoch, Schedule, fit, predict, within_minutes
from keras_xaic.training.explanations import Taught, check_explanations, explain

if TYPE_CHECKING:
    from keras_xaic._keras import Model
    from keras_xaic.relevance.choices import Target


@dataclass(frozen=True)
class Context:
    """What every stage of training needs.

    Attributes:
        task: What the model does.
        train: Samples to train on.
        held_back: Training samples that choose the epoch.
        teacher: Outputs of the original on `train`, perhaps with its maps (see `Taught`); None without training.
        calibration: Samples for attributions on the way.
        callbacks: The user's Keras callbacks.
        checkpoint: Directory of the state of training, or None.
        progress: Told how far the work is.
        deadline: When training shall be over, on the clock of `time.monotonic`; None does not limit it.
        strategy: Of TensorFlow, on whose devices models are trained (see `keras_xaic.training.parallel`); None: on one.
    """

    task: AnyTask
    train: Samples
    held_back: Samples
    teacher: Optional[Taught]
    calibration: Samples
    callbacks: Sequence[Any]
    checkpoint: Optional[pathlib.Path]
    progress: Progress
    deadline: Optional[float] = None
    strategy: Any = None

    @classmethod
    def of(
        cls,
        model: Model,
        data: Data,
        *,
        epochs: int,
        seed: int,
        calibration: int,
        callbacks: Sequence[Any],
        checkpoint: Optional[pathlib.Path],
        progress: Progress,
        minutes: Optional[float] = None,
        teacher: Any = None,
    ) -> Context:
        """Returns the context for compressing `model`, which is the teacher unless another model, or its outputs, are given."""
        knows = isinstance(teacher, (np.ndarray, Parts, Taught))
        taught = Taught.of(teacher) if knows else Taught(None)
        original = model if teacher is None or knows else teacher
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        data = fitted(model, data)
        task = infer_task(model, data, strict=False)
        data = with_task(data, task)
        train, held_back = data.split(seed=seed)
        said = () if taught.outputs is None else arrays_of(taught.outputs)
        if any(one.dtype.kind not in "biuf" or one.ndim == 0 or len(one) != len(train) for one in said):
            known = ", ".join(f"{one.shape} of {one.dtype}" for one in said)
            raise DataError(f"teacher has the shape {known}", f"outputs on {len(train)} training samples")
        if epochs and not knows:
            taught = Taught(predict(original, train))
        if held_back.y is None and epochs:  # without labels, what the original says is right
            held_back = task.labelled(held_back, predict(original, held_back))
        samples = data.calibration(calibration, seed)
        return cls(task, train, held_back, taught if epochs else None, samples, callbacks, checkpoint, progress, deadline)

    def scope(self) -> Any:
        """Returns the context in which models are made that will be trained."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()

    def _to_train(self, model: Model) -> Model:
        """Returns the model, or where it was not made for the strategy a clone that is."""
        if self.strategy is None or model.distribute_strategy is self.strategy:
            return model
        with self.scope():
            return remove_channels(model, {})

    def explained_by(self, original: Model) -> Context:
        """Returns the same with the maps of the original as teachers, too.

        Raises:
            PlanError: If its inputs have no gradient.
        """
        if self.teacher is None or self.teacher.maps is not None:
            return self
        check_explanations(original, self.task, self.train)
        outputs: Any = self.teacher.outputs
        return replace(self, teacher=Taught(outputs, explain(original, self.train, self.task, outputs)))

    @property
    def target(self) -> Target:
        """Where attributions start (see `Task.explained`)."""
        return self.task.explained(self.calibration)

    def cached(
        self,
        name: str,
        make: Callable[[], Made],
        save: Callable[[Made, pathlib.Path], Any],
        load: Callable[[pathlib.Path], Made],
    ) -> Made:
        """Returns what was decided before an interruption, or decides and keeps it (see `keras_xaic.bundle.cached`)."""
        name = name.replace(" ", "-")
        return cached(None if self.checkpoint is None else self.checkpoint / f"{name}.json", make, save, load)

    def minutes(self, share: float) -> Optional[float]:
        """Returns this share of the time that is left, in minutes; None where it is not limited."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic()) / 60 * share

    def within(self, schedule: Schedule, model: Model, stage: str) -> Schedule:
        """Returns the schedule with what fits its minutes (see `within_minutes`), the same after an interruption."""
        if schedule.minutes is None:
            return schedule

        def effort() -> dict[str, Any]:
            made = within_minutes(self._to_train(model), self.train, self.task, schedule, self.teacher)
            return {"epochs": made.epochs, "share": made.share}

        kept = self.cached(f"{stage} effort", effort, lambda made, path: write_atomic(path, json.dumps(made)), read_json)
        return replace(schedule, **kept)

    def judged(self, model: Model) -> float:
        """Returns the metric value on validation data, with BatchNorm statistics measured again in place unless worse.

        On a grid some weights flip between two levels at every step until the end (Nagel et al. 2022, arXiv 2203.11086), so
        moving averages are those of many models, none of which is this one.
        """
        value = self.task.goodness(predict(model, self.held_back), self.held_back)
        before = model.get_weights()
        if not remeasure_batchnorm(model, self.train):
            return value
        again = self.task.goodness(predict(model, self.held_back), self.held_back)
        if again < value:
            model.set_weights(before)
        return max(again, value)

    def fit(self, model: Model, schedule: Schedule, stage: str, callbacks: Sequence[Any] = ()) -> list[Epoch]:
        """Trains `model` in place; `stage` names it to people and its checkpoints."""
        trained = self._to_train(model)
        history = fit(
            trained,
            self.train,
            self.held_back,
            self.task,
            schedule,
            teacher=self.teacher,
            callbacks=[*callbacks, *self.callbacks],
            checkpoint=None if self.checkpoint is None else self.checkpoint / stage.replace(" ", "-"),
            progress=functools.partial(self.progress, stage),
            judge=self.judged,
        )
        if trained is not model:
            model.set_weights(trained.get_weights())
        return history
