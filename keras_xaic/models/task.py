"""What a model does - classify or regress - and what that means for losses and figures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable, Optional

import numpy as np

from keras_xaic._keras import keras, tf
from keras_xaic.data import Data, Samples, check_data
from keras_xaic.errors import ModelError, PlanError
from keras_xaic.models.operations import Operations


@dataclass(frozen=True)
class Task:
    """What a model does.

    Attributes:
        kind: ``classes`` (one of several), ``binary`` (one output, yes or no) or ``values`` (regression, reconstruction).
        outputs: Number of outputs per sample for classes, else the product of the output's shape.
        logits: Whether class outputs lack their softmax or sigmoid.
    """

    kind: str
    outputs: int
    logits: bool

    def explained(self, samples: Samples) -> str:
        """Returns where attributions start: the true class, the predicted one without labels, all outputs for values."""
        if self.kind == "values":
            return "all"
        return "true" if samples.labels is not None else "predicted"

    def targets(self, samples: Samples, teacher: Optional[np.ndarray]) -> np.ndarray:
        """Returns what `loss` expects: (N, 2, outputs), what the labels say and what the teacher says."""
        if self.kind == "classes" and samples.labels is not None:
            labels = np.eye(self.outputs, dtype=np.float32)[samples.labels]
        elif samples.y is not None:
            labels = np.asarray(samples.y, np.float32).reshape(len(samples), -1)
        else:
            labels = np.zeros((len(samples), self.outputs), np.float32)
        taught = labels if teacher is None else np.asarray(teacher, np.float32).reshape(len(samples), -1)
        return np.stack([labels, taught], axis=1)

    def loss(self, distillation: float, temperature: float, labels: Any = None) -> Any:
        """Returns ``(1 - d) * task loss(labels) + d * distillation loss(teacher)``.

        For classes the distillation loss is ``T^2 KL(softmax(t / T) || softmax(s / T))`` on logits t and s (Hinton et al.
        2015, arXiv 1503.02531, section 2); for values it is the mean squared difference, for binary outputs cross-entropy
        with the teacher's probability.

        Args:
            distillation: d, from 0 to 1.
            temperature: T.
            labels: A Keras loss, its name, or a function ``(labels, outputs)`` that takes the place of the task loss.

        Raises:
            PlanError: If Keras does not know the loss, or it takes class numbers (labels are one-hot).
        """
        if labels is not None:
            own, taught = _label_loss(labels), self.loss(1.0, temperature)

            def mixed(both: Any, outputs: Any) -> Any:
                term = own(tf.reshape(both[:, 0], tf.shape(outputs)), outputs)
                return (1 - distillation) * term + distillation * taught.call(both, outputs)

            return _Loss(mixed)

        def values(both: Any, outputs: Any) -> Any:
            flat = tf.reshape(outputs, tf.shape(both[:, 0]))
            square = [tf.reduce_mean(tf.square(flat - both[:, i]), axis=-1) for i in (0, 1)]
            return (1 - distillation) * square[0] + distillation * square[1]

        def binary(both: Any, outputs: Any) -> Any:
            flat = tf.reshape(outputs, tf.shape(both[:, 0]))
            taught = tf.sigmoid(both[:, 1]) if self.logits else both[:, 1]
            target = (1 - distillation) * both[:, 0] + distillation * taught
            return keras.losses.binary_crossentropy(target, flat, from_logits=self.logits)

        def classes(both: Any, outputs: Any) -> Any:
            student = self._log_probability(outputs)
            hard = -tf.reduce_sum(both[:, 0] * student, axis=-1)
            if distillation == 0:
                return hard
            taught = tf.nn.log_softmax(self._log_probability(both[:, 1]) / temperature)
            soft = tf.reduce_sum(tf.exp(taught) * (taught - tf.nn.log_softmax(student / temperature)), axis=-1)
            return (1 - distillation) * hard + distillation * temperature**2 * soft

        return _Loss({"values": values, "binary": binary, "classes": classes}[self.kind])

    def figure(self, outputs: np.ndarray, samples: Samples, reference: Optional[np.ndarray] = None) -> float:
        """Returns how good outputs are, higher is better: accuracy, agreement with `reference`, or minus the squared error."""
        if self.kind == "classes":
            truth = samples.labels if samples.labels is not None else None if reference is None else reference.argmax(-1)
            return float("nan") if truth is None else float(np.mean(outputs.argmax(-1) == truth))
        truth = samples.y if samples.y is not None else reference
        if truth is None:
            return float("nan")
        flat = outputs.reshape(len(samples), -1)
        truth = np.asarray(truth, np.float32).reshape(len(samples), -1)
        if self.kind == "binary":
            middle = 0.0 if self.logits else 0.5
            return float(np.mean((flat > middle) == (truth > 0.5)))
        return -float(np.mean(np.square(flat - truth)))

    def labelled(self, samples: Samples, answers: np.ndarray) -> Samples:
        """Returns the samples with labels: their own, else what `answers`, the outputs of a model on them, say is right."""
        if samples.y is not None:
            return samples
        return replace(samples, y=answers.argmax(axis=-1) if self.kind == "classes" else answers)

    def _log_probability(self, outputs: Any) -> Any:
        return tf.nn.log_softmax(outputs) if self.logits else tf.math.log(tf.clip_by_value(outputs, 1e-7, 1.0))


class _Loss(keras.losses.Loss):
    """A loss function as Keras takes it, without the guesses about shapes that Keras makes for plain functions."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__(name="loss")
        self.call = function


def _label_loss(loss: Any) -> Callable[[Any, Any], Any]:
    try:
        found = keras.losses.get(loss)
    except (ValueError, TypeError):
        raise PlanError(f"loss is {loss!r}", "a Keras loss, its name, or a function (labels, outputs)") from None
    name = getattr(found, "__name__", type(found).__name__).lower()
    if "sparse" in name:
        raise PlanError(f"loss is {name!r}", "a loss of one-hot labels", "Use its form without 'sparse'")
    return found


def infer_task(model: Any, data: Data) -> Task:
    """Returns what `model` does, from its head and its targets, after checking that the data fits.

    Raises:
        ModelError: If the model has several inputs or outputs.
        DataError: If the data does not fit the model.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"model {model.name!r} has {len(model.inputs)} inputs and {len(model.outputs)} outputs",
            "one input and one output for compression",
            "Compress the parts as models of their own",
        )
    output_shape = tuple(model.outputs[0].shape)
    integer = data.train.y is not None and data.train.labels is not None
    head = _head_activation(model)
    width = output_shape[-1] or 1
    is_classes = width > 1 and len(output_shape) == 2 and (head == "softmax" or integer)
    check_data(data, tuple(model.inputs[0].shape), output_shape, classifier=is_classes)
    outputs = int(np.prod([d or 1 for d in output_shape[1:]]))
    if is_classes:
        return Task("classes", outputs, logits=head != "softmax")
    if outputs == 1 and (head == "sigmoid" or integer):
        return Task("binary", 1, logits=head != "sigmoid")
    return Task("values", outputs, logits=False)


def _head_activation(model: Any) -> Optional[str]:
    operations = Operations(model)
    last = operations.producer.get(operations.outputs[0])
    if last is None:
        return None
    if isinstance(last.layer, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(last.layer, "activation", None), "__name__", None)
