"""What a stage of training does beside the steps of Keras: it judges epochs before callbacks of users do, and keeps them."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

import numpy as np

from keras_xaic._keras import Model, Tensor, keras, tf
from keras_xaic.arguments import shown
from keras_xaic.data import Array, Samples, arrays_of
from keras_xaic.errors import MachineError, PlanError, XaicError, first_line
from keras_xaic.files import machine_error
from keras_xaic.metrics import Task
from keras_xaic.models.losses import all_targets, as_targets
from keras_xaic.output_tasks import AnyTask, Tasks

SCHEDULING = ("ReduceLROnPlateau", "LearningRateScheduler")
"""Callbacks of Keras that set the learning rate: with one of them, no schedule of ours does."""
_PASSIVE = ("keras.", "tf_keras.", "tensorflow_model_optimization.", "keras_xaic.")


def sets_rate(callbacks: Sequence[Any]) -> bool:
    """Returns whether a callback of Keras sets the learning rate."""
    return any(kind.__name__ in SCHEDULING for one in callbacks for kind in type(one).__mro__)


def may_set_rate(callbacks: Sequence[Any]) -> bool:
    """Returns whether a callback of the user's own making is among them, which may set the learning rate."""
    return any(not type(one).__module__.startswith(_PASSIVE) for one in callbacks)


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Refuses what is no callback of this Keras, and one that needs what is not installed, before any work.

    Raises:
        PlanError: Naming it.
    """
    other = next((one for one in callbacks if not isinstance(one, keras.callbacks.Callback)), None)
    if other is not None:
        found = f"callbacks of training hold {shown(other)}, which is no Callback of Keras 2"
        home = "tf_keras" if keras.__name__.startswith("tf_keras") else "tf.keras"
        raise PlanError(found, f"instances of subclasses of {home}.callbacks.Callback, one by one in a list")
    kinds = [kind for one in callbacks for kind in type(one).__mro__ if kind.__module__.startswith(_PASSIVE)]
    if any(kind.__name__ == "TensorBoard" for kind in kinds) and importlib.util.find_spec("tensorboard") is None:
        found = "the callback TensorBoard needs the package tensorboard, which is not installed"
        raise PlanError(found, "", "pip install tensorboard, or leave it out of {callbacks}")


class Named:
    """A callback of the user, of whose errors one line says that they are its own.

    Args:
        one: The callback, which Keras asks for everything but for what its hooks raise.
    """

    def __init__(self, one: object) -> None:
        self.one = one

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.one, name)
        return functools.partial(_called, self.one, name, found) if name.startswith(("on_", "set_")) else found


def _called(one: object, name: str, hook: Callable[..., Any], *args: object, **options: object) -> Any:
    try:
        return hook(*args, **options)
    except XaicError:
        raise
    except Exception as error:
        machine = machine_error(error)
        said = f"{type(error).__name__}: {first_line(error)}" if machine is None else machine.found
        found = f"the callback {type(one).__name__} failed in {name} ({said})"
        kind, fix = (PlanError, "Mend it, or leave it out of {callbacks}") if machine is None else (MachineError, machine.fix)
        raise kind(found, "", fix) from error


class FollowCosine(keras.callbacks.Callback):
    """Sets the learning rate of every step, until somebody else does."""

    def __init__(self, rate: Callable[[Any], Any]) -> None:
        super().__init__()
        self.rate = rate
        self.last: Optional[float] = None
        self.others = False

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Sets the rate of the step that comes."""
        optimizer = self.model.optimizer
        now = float(keras.backend.get_value(optimizer.learning_rate))
        self.others = self.others or (self.last is not None and now != self.last)
        if not self.others:
            keras.backend.set_value(optimizer.learning_rate, float(self.rate(optimizer.iterations)))
            self.last = float(keras.backend.get_value(optimizer.learning_rate))


class Judge(keras.callbacks.Callback):
    """Judges every epoch on validation data and writes what it finds into the logs that later callbacks get.

    Args:
        judge: Returns the metric value, higher is better; it may settle what training leaves unsettled.
        told: Called with the number of epochs done and the value.
        validation: Returns further entries of the logs for the model as it is; None where nobody reads them.
    """

    def __init__(
        self,
        judge: Callable[[Model], float],
        told: Callable[[int, float], None],
        validation: Optional[Callable[[Model], dict[str, float]]],
    ) -> None:
        super().__init__()
        self.judge, self.told, self.validation = judge, told, validation

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Judges."""
        self.told(epoch + 1, self.judge(self.model))
        if self.validation is not None and logs is not None:
            logs.update(self.validation(self.model))
            logs.setdefault("lr", _rate_of(self.model.optimizer))


class Keeper(keras.callbacks.Callback):
    """The last callback: gives others their state back after an interruption, reports progress, and ends every epoch."""

    def __init__(
        self, others: Sequence[Any], states: Sequence[dict[str, Any]], step: Callable[[int], None], end: Callable[[float], None]
    ) -> None:
        super().__init__()
        self.others, self.states, self.step, self.end = others, states, step, end

    def on_train_begin(self, logs: Any = None) -> None:
        """Gives states back, after the others have set theirs to the beginning."""
        for one, state in zip(self.others, self.states):
            vars(one).update(state)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Reports the step."""
        self.step(batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Ends the epoch with its loss."""
        self.end(float((logs or {}).get("loss", np.nan)))


def states_of(callbacks: Sequence[Any]) -> list[dict[str, Any]]:
    """Returns what callbacks count while they work, as plain values: numbers and texts among their attributes."""
    return [
        {name: _plain(value) for name, value in vars(one).items() if isinstance(value, (bool, int, float, str, np.generic))}
        for one in callbacks
    ]


def validation_logs(
    task: AnyTask, samples: Samples, losses: Mapping[str, Any], predict: Callable[[Model, Samples], Array], batch_size: int
) -> Any:
    """Returns what tells ``val_loss``, ``val_accuracy`` (for values ``val_mse``) and the task's own metric of a model.

    Of several outputs ``val_loss`` is the weighted sum, and names are led by that of the output: ``val_digit_accuracy``.

    Args:
        task: What the model does.
        samples: Validation data with targets.
        losses: Of labels alone (see `output_losses`).
        predict: Returns outputs.
        batch_size: Of the batches that Keras would validate on.
    """
    targets = all_targets(task, samples, None)
    several = isinstance(task, Tasks)
    tasks = list(task.tasks) if isinstance(task, Tasks) else [task]
    leads = [f"val_{name}_" for name in task.names] if isinstance(task, Tasks) else ["val_"]
    each = losses["loss"] if several else [losses["loss"]]
    weights = losses.get("loss_weights", [1.0])

    def logs(model: Model) -> dict[str, float]:
        outputs, truths = arrays_of(predict(model, samples)), arrays_of(samples.y)
        found, total = {}, 0.0
        for one, lead, loss, weight, target, given, truth in zip(tasks, leads, each, weights, targets, outputs, truths):
            both, metric = tf.constant(target[:]), TrainMetric(one)
            lost = _validation_loss(loss, both, tf.constant(given), batch_size)
            total += weight * lost
            found.update({f"{lead}loss": lost} if several else {})
            found[f"{lead}{metric.name}"] = float(tf.reduce_mean(metric.of(both, tf.constant(given))))
            found.setdefault(f"{lead}{one.metric_name}", float(one.score(given, np.asarray(truth))))
        return {"val_loss": total, **found}

    return logs


def _validation_loss(loss: Any, targets: Any, outputs: Any, batch_size: int) -> float:
    """Returns the mean over samples as Keras logs it: batch by batch, since a loss may be a sum over one."""
    parts = [slice(start, start + batch_size) for start in range(0, len(outputs), batch_size)]
    lost = [float(tf.reduce_mean(loss.call(targets[part], outputs[part]))) for part in parts]
    return float(np.average(lost, weights=[len(outputs[part]) for part in parts]))


def train_metrics(task: AnyTask) -> list[Any]:
    """Returns what Keras' `compile` takes as metrics: one, or of several outputs a list for each."""
    return [[TrainMetric(one)] for one in task.tasks] if isinstance(task, Tasks) else [TrainMetric(task)]


class TrainMetric(keras.metrics.Mean):
    """The metric of training batches: ``accuracy``, or ``mse`` of values.

    Args:
        task: What the model does.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(name="mse" if task.is_values else "accuracy")
        self.task = task

    def of(self, both: Tensor, outputs: Tensor) -> Tensor:
        """Returns it for every sample of a batch, (n,); `both` is what `Targets` gives."""
        task = self.task
        if task.is_values:
            return tf.reduce_mean(tf.square(tf.reshape(outputs, tf.shape(both[:, 0])) - both[:, 0]), axis=-1)
        width = task.outputs if task.family == "classes" else 1
        said, truth = (tf.reshape(one, (tf.shape(outputs)[0], -1, width)) for one in (outputs, both[:, 0]))
        if width > 1:
            same = tf.equal(tf.argmax(said, axis=-1), tf.argmax(truth, axis=-1))
            if task.ignores:
                counts = tf.cast(tf.reduce_sum(truth, axis=-1) > 0, tf.float32)
                hits = tf.reduce_sum(tf.cast(same, tf.float32) * counts, axis=-1)
                return hits / tf.maximum(1.0, tf.reduce_sum(counts, axis=-1))
        else:
            same = tf.equal(said > (0.0 if task.logits else 0.5), truth > 0.5)[..., 0]
        return tf.reduce_mean(tf.cast(same, tf.float32), axis=-1)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Adds a batch."""
        return super().update_state(self.of(as_targets(self.task, y_true, y_pred)[0], y_pred))


def _rate_of(optimizer: Any) -> float:
    rate = optimizer.learning_rate
    return float(rate(optimizer.iterations) if callable(rate) else keras.backend.get_value(rate))


def _plain(value: object) -> Any:
    return value.item() if isinstance(value, np.generic) else value
