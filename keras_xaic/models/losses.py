"""What a task is trained with: losses of labels and teacher, and the loss that a model carries."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

import numpy as np

from keras_xaic._keras import Model, Tensor, keras, tf
from keras_xaic.data import Array, Samples, arrays_of
from keras_xaic.errors import PlanError, first_line
from keras_xaic.metrics import IGNORED, Task
from keras_xaic.output_tasks import AnyTask, Tasks

_CARRIED = "_xaic_loss"
"""Attribute of a loaded model: the loss that its file names, or of several outputs the losses."""
_SHORT = {
    "mse": "mean_squared_error",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error",
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
    "kldivergence": "kl_divergence",
    "kullback_leibler_divergence": "kl_divergence",
    "huber_loss": "huber",
    "logcosh": "log_cosh",
}

TRIED = 8
"""Samples on which a user's loss is tried."""


def loss_name(loss: Any) -> str:
    """Returns the name of a loss, ``snake_case`` as Keras writes it: of a name, a function, an object or a configuration.

    Empty where there is none, or where several outputs have several.
    """
    if isinstance(loss, Mapping):
        if "class_name" in loss:
            known = str(loss["class_name"])
            return loss_name(loss.get("config") if known == "function" else known)
        loss = list(loss.values())
    if isinstance(loss, (list, tuple)):
        return loss_name(loss[0]) if len(loss) == 1 else ""
    if loss is None:
        return ""
    given = loss if isinstance(loss, str) else getattr(loss, "__name__", None) or type(loss).__name__
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", given.rsplit(">", 1)[-1]).lower()
    return _SHORT.get(plain, plain)


def carried_loss(model: Model) -> str:
    """Returns the name of the loss that a model carries: what it was compiled with, else what its file says; else empty."""
    return loss_name(_carried(model))


def carried_losses(model: Model, names: Sequence[str]) -> list[str]:
    """Returns per output the name of the loss that a model carries (see `carried_loss`).

    Args:
        model: The model.
        names: Of its outputs, as losses may be listed by.
    """
    if len(names) == 1:
        return [carried_loss(model)]
    carried = _carried(model)
    if isinstance(carried, Mapping) and "class_name" not in carried:
        return [loss_name(carried.get(name)) for name in names]
    if isinstance(carried, (list, tuple)):
        return [loss_name(one) for one in carried] if len(carried) == len(names) else [""] * len(names)
    return [loss_name(carried)] * len(names)


def carry_losses(model: Model, clone: Model) -> None:
    """Keeps on a clone which losses the model carries."""
    vars(clone)[_CARRIED] = _carried(model)


def _carried(model: Model) -> Any:
    return getattr(model, "loss", None) or vars(model).get(_CARRIED)


def remember_loss(model: Model, training: Any) -> None:
    """Keeps on a loaded model what the training configuration in its file (a mapping, or JSON) says of the loss."""
    try:
        config = json.loads(training) if isinstance(training, (str, bytes)) else training
        found = config.get("loss")
        loss_name(found)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return
    vars(model)[_CARRIED] = found


class Targets:
    """What a loss expects of a batch, made when it is asked for: (n, 2, outputs), what labels say and what the teacher says."""

    def __init__(self, task: Task, samples: Samples, teacher: Optional[np.ndarray]) -> None:
        self.task, self.labels, self.teacher = task, samples.y, teacher
        self.count = len(samples)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> np.ndarray:
        taught = None if self.teacher is None else np.asarray(self.teacher[index], np.float32)
        if self.labels is None:
            assert taught is not None, "neither labels nor a teacher"
            labels = np.zeros_like(taught)
        else:
            labels = self._labels(np.asarray(self.labels[index]))
        both = [one.reshape(len(one), -1) for one in (labels, labels if taught is None else taught)]
        return np.stack(both, axis=1)

    def _labels(self, y: np.ndarray) -> np.ndarray:
        task = self.task
        if task.family != "classes":
            return np.asarray(y, np.float32)
        if y.shape[-1:] == (task.outputs,) and y.ndim > 1 and y[:1].size != np.prod(y.shape[1:-1], dtype=int):
            return np.asarray(y, np.float32)  # one-hot, or probabilities
        rows = np.eye(task.outputs + 1, dtype=np.float32)[:, : task.outputs]  # the last row, -1: IGNORED
        return rows[y.reshape(len(y), -1).astype(np.int64)]


def output_losses(
    task: AnyTask, samples: Samples, teacher: Optional[Array], distillation: float, temperature: float, labels: Any = None
) -> dict[str, Any]:
    """Returns what Keras' `compile` takes as losses: one, or with several outputs one and its weight for each.

    The loss of values counts in units of their variance there, so that outputs of any scale add up; then each counts as its
    weight says.

    Args:
        task: What the model does.
        samples: Training samples.
        teacher: Outputs of the original on them; None without.
        distillation: See `task_loss`.
        temperature: See `task_loss`.
        labels: See `task_loss`; of several outputs also by name, or a list.

    Raises:
        PlanError: See `task_loss`.
    """
    if not isinstance(task, Tasks):
        return {"loss": task_loss(task, distillation, temperature, labels)}
    if isinstance(labels, Mapping):
        unknown = [str(name) for name in labels if name not in task.names]
        if unknown:
            raise PlanError(f"loss of {unknown[0]!r}", f"names of outputs: {', '.join(task.names)}")
        own = [labels.get(name) for name in task.names]
    else:
        own = list(labels) if isinstance(labels, (list, tuple)) else [labels] * len(task.names)
    if len(own) != len(task.names):
        raise PlanError(f"{len(own)} losses", f"one for each of {len(task.names)} outputs")
    known = arrays_of(samples.y if samples.y is not None else teacher)
    spreads = [float(np.var(np.asarray(one))) or 1.0 if one_task.is_values else 1.0 for one_task, one in zip(task.tasks, known)]
    return {
        "loss": [task_loss(one, distillation, temperature, loss) for one, loss in zip(task.tasks, own)],
        "loss_weights": [weight / spread for weight, spread in zip(task.weights, spreads)],
    }


def all_targets(task: AnyTask, samples: Samples, teacher: Optional[Array]) -> list[Targets]:
    """Returns per output what its loss expects."""
    if not isinstance(task, Tasks):
        return [Targets(task, samples, teacher)]  # type: ignore[arg-type]
    none = [None] * len(task.names)
    labels, taught = (none if one is None else arrays_of(one) for one in (samples.y, teacher))
    x = arrays_of(samples.x)[0]
    return [Targets(one, Samples(x, y), given) for one, y, given in zip(task.tasks, labels, taught)]


def task_loss(task: Task, distillation: float, temperature: float, labels: Any = None) -> _Loss:
    """Returns ``(1 - d) * loss of the labels + d * loss of the teacher`` for what `Targets` gives.

    For classes, of samples or of positions, the distillation loss is ``T^2 KL(softmax(t / T) || softmax(s / T))`` on logits t
    and s (Hinton et al. 2015, arXiv 1503.02531, section 2); for values it is the mean squared difference, for outputs that say
    yes or no each for itself the cross-entropy with the teacher's probabilities.

    Args:
        task: What the model does.
        distillation: d, from 0 to 1.
        temperature: T.
        labels: A Keras loss, its name, or a function ``(labels, outputs)`` that takes the place of the loss of the labels.

    Raises:
        PlanError: If Keras does not know the loss, or it takes class numbers (labels are one-hot).
    """
    if labels is not None:
        own, taught = check_loss(labels), task_loss(task, 1.0, temperature)

        def mixed(both: Tensor, outputs: Tensor) -> Tensor:
            term = tf.convert_to_tensor(_per_sample(own)(tf.reshape(both[:, 0], tf.shape(outputs)), outputs))
            if term.shape.rank != 0 and term.shape.rank != 1:  # of each output, or position; or Python's, which says no shape
                term = tf.reduce_mean(tf.reshape(term, (tf.shape(outputs)[0], -1)), axis=-1)
            return term if distillation == 0 else (1 - distillation) * term + distillation * taught.function(both, outputs)

        return _Loss(task, mixed, None if distillation == 0 else task_loss(task, 0.0, temperature, labels))

    def values(both: Tensor, outputs: Tensor) -> Tensor:
        flat = tf.reshape(outputs, tf.shape(both[:, 0]))
        square = [tf.reduce_mean(tf.square(flat - both[:, i]), axis=-1) for i in (0, 1)]
        return (1 - distillation) * square[0] + distillation * square[1]

    def yes_no(both: Tensor, outputs: Tensor) -> Tensor:
        flat = tf.reshape(outputs, tf.shape(both[:, 0]))
        said = tf.clip_by_value(both[:, 0], 0.0, 1.0)  # -1 and 1 of a hinge loss are 0 and 1 here
        taught = tf.sigmoid(both[:, 1]) if task.logits else both[:, 1]
        target = (1 - distillation) * said + distillation * taught
        return keras.losses.binary_crossentropy(target, flat, from_logits=task.logits)

    def classes(both: Tensor, outputs: Tensor) -> Tensor:
        positions = (-1, tf.size(outputs[0]) // task.outputs, task.outputs)
        student = _log_probability(task, tf.reshape(outputs, positions))
        hard = -tf.reduce_sum(tf.reshape(both[:, 0], positions) * student, axis=-1)
        if distillation == 0:
            return tf.reduce_mean(hard, axis=-1)
        taught = tf.nn.log_softmax(_log_probability(task, tf.reshape(both[:, 1], positions)) / temperature)
        soft = tf.reduce_sum(tf.exp(taught) * (taught - tf.nn.log_softmax(student / temperature)), axis=-1)
        return tf.reduce_mean((1 - distillation) * hard + distillation * temperature**2 * soft, axis=-1)

    function = {"values": values, "yes_no": yes_no, "classes": classes}[task.loss_family]
    return _OwnLoss(task, function, None if distillation == 0 else task_loss(task, 0.0, temperature))


def as_targets(task: Task, given: Tensor, outputs: Tensor) -> tuple[Tensor, bool]:
    """Returns what `Targets` gives, and whether it was made of labels alone: of those that a callback evaluates the model on.

    Args:
        task: What the model does.
        given: What `Targets` gives, which has two entries as long as all outputs of a sample; or labels.
        outputs: Of the model.
    """
    sizes, count = outputs.shape[1:].as_list(), outputs.shape[1:].num_elements()
    if given.shape.rank == 3 and given.shape[1] in (None, 2) and (count is None or given.shape[2] in (None, count)):
        return given, False
    flat = (tf.shape(outputs)[0], -1)
    if task.family == "classes" and given.shape[1:].as_list() != sizes:
        numbers = tf.cast(tf.reshape(given, flat), tf.int64)
        said = f"class numbers from 0 to {task.outputs - 1}, or one-hot labels, are evaluated while a model is trained"
        known = (numbers >= (IGNORED if task.ignores else 0)) & (numbers < task.outputs)
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(known), [said])]):
            given = tf.one_hot(numbers, task.outputs)
    labels = tf.reshape(tf.cast(given, tf.float32), flat)
    return tf.stack([labels, labels], axis=1), True


def _per_sample(loss: Any) -> Any:
    """Returns a loss of every sample, so that weights can count; one that is not to be averaged is left as it is."""
    reduction = getattr(loss, "reduction", None)
    means = (keras.losses.Reduction.AUTO, keras.losses.Reduction.SUM_OVER_BATCH_SIZE)
    if not isinstance(loss, keras.losses.Loss) or reduction not in means:
        return loss
    return lambda labels, outputs: tf.reduce_mean(tf.reshape(loss.call(labels, outputs), (tf.shape(outputs)[0], -1)), axis=-1)


class _Loss(keras.losses.Loss):
    """A loss function as Keras takes it, without the guesses about shapes that Keras makes for plain functions."""

    def __init__(self, task: Task, function: Callable[[Tensor, Tensor], Tensor], of_labels: Optional[_Loss]) -> None:
        super().__init__(name="loss")
        self.task, self.function, self.of_labels = task, function, of_labels

    def call(self, given: Tensor, outputs: Tensor) -> Tensor:
        """Returns the loss of every sample; that of labels alone where no teacher is beside them."""
        both, alone = as_targets(self.task, given, outputs)
        if alone and self.of_labels is not None:
            return self.of_labels.function(both, outputs)
        return self.function(both, outputs)


class _OwnLoss(_Loss):
    """A loss of ours alone: there is nothing of a user's in it that TensorFlow would have to rewrite for graphs."""

    call = tf.autograph.experimental.do_not_convert(_Loss.call)


def _log_probability(task: Task, outputs: Tensor) -> Tensor:
    return tf.nn.log_softmax(outputs) if task.logits else tf.math.log(tf.clip_by_value(outputs, 1e-7, 1.0))


def check_loss(loss: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns a loss of one-hot labels as a function: given as a name, a class, an object or a function.

    Those of Keras that take class numbers become their form for one-hot labels.

    Raises:
        PlanError: If Keras does not know it, or it takes class numbers.
    """
    try:
        is_class = isinstance(loss, type) and issubclass(loss, keras.losses.Loss)
        found = loss() if is_class else keras.losses.get(loss)
        if isinstance(loss, type) and not is_class:
            raise TypeError
    except (ValueError, TypeError):
        raise PlanError(f"loss is {loss!r}", "a Keras loss, its name, or a function (labels, outputs)") from None
    if isinstance(found, keras.losses.SparseCategoricalCrossentropy) and found.get_config().get("ignore_class") is None:
        return keras.losses.CategoricalCrossentropy(bool(found.get_config().get("from_logits")), reduction=found.reduction)
    if found is keras.losses.sparse_categorical_crossentropy:
        return keras.losses.categorical_crossentropy
    name = getattr(found, "__name__", type(found).__name__).lower()
    if "sparse" in name:
        raise PlanError(f"loss is {name!r}", "a loss of one-hot labels", "Use its form without 'sparse'")
    return found


def _called(loss: Any) -> str:
    return loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)


def try_loss(model: Model, task: AnyTask, samples: Samples, loss: Any) -> None:
    """Refuses a user's loss that fails on the first samples, gives no number there, or has no gradient.

    Args:
        model: A regular model.
        task: What it does.
        samples: Of its inputs, in their order; the first are taken.
        loss: See `task_loss`; None is none.

    Raises:
        PlanError: Naming the loss.
    """
    if loss is None or samples.y is None:
        return
    few = samples.take(slice(TRIED))
    feeds = [tf.constant(one) for one in few.feeds(slice(None))]
    outputs = tf.nest.flatten(model(feeds if len(feeds) > 1 else feeds[0], training=False))
    made = output_losses(task, few, None, 0.0, 1.0, loss)["loss"]
    for one, targets, given in zip(made if isinstance(made, list) else [made], all_targets(task, few, None), outputs):
        named = "a loss of an output" if isinstance(loss, (Mapping, list, tuple)) else f"the loss {_called(loss)}"
        both = tf.constant(targets[:])
        shapes = [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in (both, given)]
        try:
            value, gradient = _with_gradient(one, shapes)(both, given)
        except Exception as error:
            found = f"{named} failed on outputs {tuple(given.shape)} ({type(error).__name__}: {first_line(error)})"
            raise PlanError(
                found, "a function (labels, outputs) of tensors of one shape; labels of classes are one-hot"
            ) from error
        if not np.isfinite(value):
            raise PlanError(f"{named} is {value} for the model as it is", "a number")
        if not gradient:
            found = f"{named} has no gradient: outputs do not reach it, or through NumPy, rounding or comparisons alone"
            raise PlanError(found, "a function (labels, outputs) that TensorFlow can derive")


def _with_gradient(loss: _Loss, shapes: Sequence[Any]) -> Any:
    """Returns a function that gives the loss, and whether it has a gradient, computed in a graph as training does."""

    def called(both: Tensor, outputs: Tensor) -> tuple[Tensor, bool]:
        value = loss(both, outputs)
        return value, tf.gradients(value, outputs)[0] is not None

    return tf.function(called, input_signature=shapes)
