"""Explanation matching: a model in training is held to what the original looks at, beside what it says.

A map is the gradient of the original's decision times the input, one value per position. Beside the usual loss, training
lowers one minus the cosine of the maps of both models (see docs/theory.md, Training).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from keras_xaic._keras import Model, Tensor, keras, tf
from keras_xaic.data import Array, Samples, arrays_of
from keras_xaic.errors import PlanError
from keras_xaic.metrics import Task
from keras_xaic.output_tasks import AnyTask, Tasks

EXPLAINED = 4
"""Of so many samples of a batch one is explained: an explanation costs several times what learning from a sample does."""
SIDE = 8
"""Longest side of an image's map: it is averaged over squares; maps of sequences have up to so many squared positions."""
LEAST = 1e-12
"""Added to squared lengths, which are divided by."""
TRIED = 2
"""Samples that tell whether a model can be taught so."""


class Taught(NamedTuple):
    """What the original teaches about the training samples: its outputs, and what it looks at.

    Attributes:
        outputs: (N, outputs), `Parts` of several; None without.
        maps: (N, positions) float16 of length 1; None without.
    """

    outputs: Optional[Array]
    maps: Optional[np.ndarray] = None

    @classmethod
    def of(cls, given: Any) -> Taught:
        """Returns outputs alone, or what is one already."""
        return given if isinstance(given, cls) else cls(given)


def check_explanations(model: Model, task: AnyTask, samples: Samples) -> None:
    """Refuses a model that cannot be taught by its maps.

    Raises:
        PlanError: If its inputs have no gradient, or none that training can follow.
    """
    few = samples.take(slice(TRIED))
    xs = [tf.constant(one) for one in few.feeds(slice(None))]
    outputs = tf.nest.flatten(model(xs if len(xs) > 1 else xs[0], training=False))
    taught = [tf.reshape(one, (len(few), -1)) for one in outputs]
    try:
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(maps_of(model, task, xs, taught) ** 2)
        tape.gradient(value, model.trainable_variables)
    except (TypeError, ValueError, LookupError, tf.errors.OpError) as error:
        words = " ".join(str(error).split())[:200]
        found = f"explanation_loss, and the model's inputs have no gradient that training could follow ({words})"
        raise PlanError(found, "a model of real numbers throughout", "Leave out {explanation_loss}") from None


def explain(model: Model, samples: Samples, task: AnyTask, outputs: Array, batch_size: int = 256) -> np.ndarray:
    """Returns what a model looks at in each sample, (N, positions) float16 of length 1.

    Args:
        model: The original.
        samples: Training samples.
        task: What it does.
        outputs: Its outputs on them; the map is that of what it decides for.
    """

    one = tf.function(lambda xs, taught: maps_of(model, task, xs, taught), reduce_retracing=True)
    found = []
    for start in range(0, len(samples), batch_size):
        here = np.arange(start, min(start + batch_size, len(samples)))
        taught = [tf.constant(np.asarray(part[here], np.float32).reshape(len(here), -1)) for part in arrays_of(outputs)]
        found.append(one([tf.constant(x) for x in samples.feeds(here)], taught).numpy().astype(np.float16))
    return np.concatenate(found)


def maps_of(model: Model, task: AnyTask, xs: Sequence[Tensor], taught: Sequence[Tensor]) -> Tensor:
    """Returns gradient x input of what the original decides for, (n, positions) of length 1.

    Args:
        model: Whose map it is.
        task: What it does.
        xs: Inputs.
        taught: Per output what the original says, flat; its decision is what is explained in both models.
    """
    with tf.GradientTape() as tape:
        tape.watch(xs)
        outputs = tf.nest.flatten(model(list(xs) if len(xs) > 1 else xs[0], training=False))
        value = decision(task, outputs, taught)
    gradients = tape.gradient(value, xs)
    if any(one is None for one in gradients):
        raise ValueError("an input is not differentiable")
    flat = tf.concat([_map(x * one, tensor.shape) for x, one, tensor in zip(xs, gradients, model.inputs)], axis=1)
    return flat * tf.math.rsqrt(tf.reduce_sum(flat**2, axis=1, keepdims=True) + LEAST)


def decision(task: AnyTask, outputs: Sequence[Tensor], taught: Sequence[Tensor]) -> Tensor:
    """Returns how much each sample's outputs, before softmax or sigmoid, speak for what the original decides, (n,)."""
    parts = list(zip(task.tasks, task.weights)) if isinstance(task, Tasks) else [(task, 1.0)]
    total = []
    for (one, weight), output, said in zip(parts, outputs, taught):
        assert isinstance(one, Task)
        own = tf.reshape(output, tf.shape(said))
        if one.loss_family == "values":
            spoken = tf.reduce_sum(own * tf.math.l2_normalize(said, axis=1, epsilon=LEAST), axis=1)
        else:
            rows = (tf.shape(said)[0], -1, one.outputs)
            own, said = tf.reshape(own, rows), tf.reshape(said, rows)
            raw = own if one.logits else _before(own, one.loss_family == "yes_no")
            raw -= 0.0 if one.loss_family == "yes_no" else tf.reduce_mean(raw, axis=-1, keepdims=True)
            spoken = tf.reduce_sum(raw * tf.one_hot(tf.argmax(said, -1), one.outputs), axis=(1, 2))
        total.append(weight * spoken)
    return tf.add_n(total)


def _before(probability: Tensor, is_sigmoid: bool) -> Tensor:
    """Returns what a softmax (up to a constant) or a sigmoid was applied to."""
    raw = tf.math.log(probability + 1e-12)  # its square is divided by where this is derived twice
    return raw - tf.math.log(1.0 - probability + 1e-7) if is_sigmoid else raw


def _map(relevance: Tensor, shape: Any) -> Tensor:
    """Returns one value per position, (n, positions), of images and sequences the means over neighbours.

    Args:
        relevance: (n, ...) of every input value.
        shape: The input's shape as the model knows it.
    """
    sizes = tuple(shape[1:-1])
    if len(shape) < 3:
        return tf.reshape(relevance, (tf.shape(relevance)[0], -1))
    total = tf.reduce_sum(relevance, axis=-1, keepdims=True)
    most = {1: SIDE * SIDE, 2: SIDE}.get(len(sizes))
    if most is not None and None not in sizes and max(sizes) > most:
        width = math.ceil(max(sizes) / most)
        pool = tf.nn.avg_pool1d if len(sizes) == 1 else tf.nn.avg_pool2d
        total = pool(total, width, width, "SAME")
    return tf.reshape(total, (tf.shape(total)[0], -1))


@contextlib.contextmanager
def matching(model: Model, task: AnyTask, share: float) -> Iterator[None]:
    """Has a compiled model's training steps match maps, too; batches carry them behind the targets.

    The gradient of the maps' loss loses what would raise the loss of the outputs (Yu et al. 2020, arXiv 2001.06782), and gets
    the length `share` times that gradient has: both are then as important at every step, on every model.

    Args:
        model: The model.
        task: What it does.
        share: Length of the one gradient as a share of the other.
    """

    def train_step(data: Any) -> Any:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        *targets, maps = y
        targets = targets[0] if len(targets) == 1 else tuple(targets)
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = model.compute_loss(x, targets, outputs, weight)
        variables = model.trainable_variables
        main = _dense(tape.gradient(loss, variables), variables)
        few = tf.maximum(1, tf.shape(maps)[0] // EXPLAINED)
        xs = [one[:few] for one in tf.nest.flatten(x)]
        taught = [one[:few, 1] for one in tf.nest.flatten(targets)]
        with tf.GradientTape() as tape:
            own = maps_of(model, task, xs, taught)
            apart = 1.0 - tf.reduce_mean(tf.reduce_sum(own * tf.cast(maps[:few], own.dtype), axis=1))
        other = _dense(tape.gradient(apart, variables), variables)
        model.optimizer.apply_gradients(zip(_joined(main, other, share), variables))
        return model.compute_metrics(x, targets, outputs, weight)

    vars(model)["train_step"] = train_step
    model.make_train_function(force=True)
    try:
        yield
    finally:
        del vars(model)["train_step"]
        model.train_function = None


def _dense(gradients: Sequence[Any], variables: Sequence[Any]) -> list[Tensor]:
    return [
        tf.zeros_like(variable) if one is None else tf.convert_to_tensor(one) for one, variable in zip(gradients, variables)
    ]


def _joined(main: Sequence[Tensor], other: Sequence[Tensor], share: float) -> list[Tensor]:
    """Returns the sum of two gradients, the second without what works against the first and of a share of its length.

    One that is not finite is left out.
    """
    squared = tf.add_n([tf.reduce_sum(one**2) for one in main]) + LEAST
    along = tf.add_n([tf.reduce_sum(a * b) for a, b in zip(main, other)])
    against = tf.minimum(along, 0.0) / squared
    free = [b - against * a for a, b in zip(main, other)]
    length = tf.sqrt(tf.add_n([tf.reduce_sum(one**2) for one in free]) + LEAST)
    factor = share * tf.sqrt(squared) / length
    usable = tf.math.is_finite(factor) & tf.math.is_finite(length)
    return [tf.where(usable, a + factor * b, a) for a, b in zip(main, free)]
