"""Fine-tuning: batches, distillation, the choice of the epoch on validation data, and what fits a limit of minutes."""

from __future__ import annotations

import contextlib
import pathlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Callable, Optional

import numpy as np

from keras_xaic._keras import Model, keras, tf
from keras_xaic.data import Array, Samples
from keras_xaic.errors import PlanError, XaicError, XaicWarning
from keras_xaic.models.losses import all_targets, output_losses
from keras_xaic.output_tasks import AnyTask
from keras_xaic.progress import Note
from keras_xaic.training.callbacks import (
    FollowCosine,
    Judge,
    Keeper,
    Named,
    may_set_rate,
    sets_rate,
    states_of,
    train_metrics,
    validation_logs,
)
from keras_xaic.training.explanations import Taught, matching
from keras_xaic.training.parallel import in_its_scope
from keras_xaic.training.predicting import predict, traced_once
from keras_xaic.training.schedule import Epoch, Schedule
from keras_xaic.training.state import State, identity_of
from keras_xaic.units import format_value

TIMED_STEPS = 10
"""Training steps that are timed to see how many epochs fit a limit of minutes."""
LEAST_SHARE = 0.05
"""Part of the training samples that an epoch passes over however little time there is."""


class _Batches(keras.utils.Sequence):
    """Shuffled batches of one epoch, and then of the next: inputs, and labels beside the teacher's outputs.

    Of several inputs or outputs there is one array for each. Behind them come maps where the original's explanations teach.
    """

    def __init__(self, samples: Samples, targets: Sequence[Any], schedule: Schedule, number: int) -> None:
        self.samples, self.targets, self.batch_size = samples, targets, schedule.batch_size
        self.weights = sample_weights(samples, schedule.class_weight)
        self.schedule, self.number = schedule, number - 1
        self.on_epoch_end()

    def on_epoch_end(self) -> None:
        self.number += 1
        order = np.random.default_rng(self.schedule.seed * 1000 + self.number).permutation(len(self.samples))
        self.order = order[: max(1, round(len(self.samples) * self.schedule.share))]

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        batch = _alone_or_all(self.samples.feeds(chosen)), _alone_or_all([one[chosen] for one in self.targets])
        return batch if self.weights is None else (*batch, self.weights[chosen])


def _alone_or_all(arrays: Sequence[Any]) -> Any:
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def sample_weights(samples: Samples, classes: Optional[Mapping[int, float]]) -> Optional[np.ndarray]:
    """Returns how much each sample counts, (N,) float32: its own weight times that of its class; None where all count alike.

    Raises:
        PlanError: If samples have no classes, or one that has no weight.
    """
    if classes is None:
        return None if samples.weight is None else samples.weight.astype(np.float32)
    labels = samples.labels
    if labels is None:
        raise PlanError("class_weight is given, and the samples have no classes", "classification with labels")
    first = max(0, getattr(samples.task, "first", 0))  # weights are those of the labels that the user has
    unknown = sorted({one + first for one in np.unique(labels).tolist()} - set(classes))
    if unknown:
        raise PlanError(f"class_weight has no weight of class {unknown[0]}", "one of every class")
    weights = np.array([classes[one + first] for one in labels.tolist()], np.float32)
    return weights if samples.weight is None else weights * samples.weight.astype(np.float32)


@in_its_scope
def fit(
    model: Model,
    train: Samples,
    held_back: Samples,
    task: AnyTask,
    schedule: Schedule,
    *,
    teacher: Any = None,
    callbacks: Sequence[Any] = (),
    checkpoint: Optional[pathlib.Path] = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    judge: Optional[Callable[[Model], float]] = None,
) -> list[Epoch]:
    """Trains `model` in place and leaves it with the weights that were best on validation data, those before included.

    Args:
        model: The model to train; it is compiled here.
        train: Training samples.
        held_back: Samples for choosing the epoch; never test data.
        task: What the model does.
        schedule: How to train.
        teacher: (N, outputs) outputs of the original model on `train`, `Parts` of several, or `Taught`; without them only
            labels teach.
        callbacks: Further Keras callbacks; where one sets ``model.stop_training``, the epoch is the last.
        checkpoint: Directory for the state after an epoch, of short ones one a second; a call with it continues from there.
        progress: Told the training steps that are done, all of them, and a note, after every step.
        judge: Returns the metric value of the model after an epoch; it may settle what training leaves unsettled, such as
            statistics. None: the task's metric value on `held_back`.

    Returns:
        One entry per epoch.
    """
    judge = judge or (lambda model: task.goodness(predict(model, held_back), held_back))
    ours, theirs = _by_owner(callbacks)
    taught = Taught.of(teacher)
    losses = _losses(task, train, taught.outputs, schedule)
    constant = sets_rate(theirs) or (may_set_rate(theirs) and not schedule.has_optimizer)
    metrics = train_metrics(task) if theirs else None
    model.compile(schedule.make_optimizer(len(train), constant), metrics=metrics, **losses)
    _build(model)
    state = State(model, checkpoint, identity_of(train, held_back, task, schedule, teacher, theirs))
    history, known = state.restore()
    values: list[float] = []

    def judged(number: int, value: float) -> None:
        values.append(value)
        if schedule.selectable(number):
            state.consider(value)

    def step(done: int) -> None:
        found = f", validation {format_value(history[-1].held_back)}" if history else ""
        note = f"epoch {len(history) + 1}/{schedule.epochs}{found}"
        told = Note.of(note, len(history), history[-1].held_back if history else None)
        progress(len(history) * schedule.steps_per_epoch(len(train)) + done, schedule.steps(len(train)), told)

    def end(lost: float) -> None:
        history.append(Epoch(len(history) + 1, lost, values[-1]))
        model.stop_training = model.stop_training or schedule.is_over(history)
        stopped, states = bool(model.stop_training), states_of(theirs) if theirs else None
        state.save(history, states, stopped, last=stopped or len(history) == schedule.epochs)

    with traced_once(model), _taught_maps(model, task, taught, schedule), _shapes_known(model), _masks_ignored(model):
        if not history and schedule.select_from == 0:  # training may make things worse
            state.consider(judge(model))
        if not schedule.is_over(history) and not state.stopped:
            said = None
            if theirs:
                alone = output_losses(task, held_back, None, 0.0, 1.0, schedule.loss)
                said = validation_logs(task, held_back, alone, predict, schedule.batch_size)
            following = [FollowCosine(schedule.cosine(len(train)))] if constant and not sets_rate(theirs) else []
            users = [Named(one) for one in theirs]
            try:
                model.fit(
                    _Batches(train, _targets(task, train, taught), schedule, len(history)),
                    verbose=0,
                    shuffle=False,
                    callbacks=[*ours, *following, Judge(judge, judged, said), *users, Keeper(theirs, known, step, end)],
                    initial_epoch=len(history),
                    epochs=schedule.epochs,
                )
            except XaicError as error:
                raise error from error.__context__  # the cause, which Keras hides
    state.restore_best()
    lost = next((one.number for one in history if not np.isfinite(one.loss)), None)
    if lost is not None and not all(np.isfinite(one).all() for one in model.get_weights()):
        found = f"training ended in weights that are no numbers (from epoch {lost} on)"
        raise PlanError(found, "a learning rate that the model bears", "Lower that of Training")
    if lost is not None:
        said = f"The loss of training was no number in epoch {lost}: weights of before are kept. Is the learning rate too high?"
        warnings.warn(said, XaicWarning, stacklevel=2)
    return history


def _targets(task: AnyTask, train: Samples, taught: Taught) -> list[Any]:
    """Returns per output what its loss expects, and the original's maps where there are some."""
    return [*all_targets(task, train, taught.outputs), *([] if taught.maps is None else [taught.maps])]


def _taught_maps(model: Model, task: AnyTask, taught: Taught, schedule: Schedule) -> Any:
    return contextlib.nullcontext() if taught.maps is None else matching(model, task, schedule.explanation_loss)


@contextlib.contextmanager
def _shapes_known(model: Model) -> Iterator[None]:
    """Has training steps know the shapes of their inputs: of such batches Keras keeps the ranks, and some layers need more."""
    before = vars(model).get("train_step")
    step = model.train_step

    def train_step(data: Any) -> Any:
        given = tf.nest.flatten(keras.utils.unpack_x_y_sample_weight(data)[0])
        for one, tensor in zip(given, model.inputs):
            if one.shape.rank == tensor.shape.rank:
                one.set_shape([None, *tensor.shape[1:]])
        return step(data)

    vars(model)["train_step"] = train_step
    try:
        yield
    finally:
        vars(model).pop("train_step") if before is None else vars(model).update(train_step=before)
        model.train_function = None


@contextlib.contextmanager
def _masks_ignored(model: Model) -> Iterator[None]:
    """Has losses and metrics judge all positions, as `Task.score` does; labels say which do not count (`metrics.IGNORED`)."""
    own = {name: getattr(model, name) for name in ("compute_loss", "compute_metrics")}

    def bare(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(x: Any, y: Any, outputs: Any, weights: Any = None) -> Any:
            return function(x, y, tf.nest.map_structure(tf.identity, outputs), weights)  # Keras hangs masks on tensors

        return called

    vars(model).update({name: bare(function) for name, function in own.items()})
    try:
        yield
    finally:
        for name in own:
            del vars(model)[name]


def _losses(task: AnyTask, train: Samples, teacher: Optional[Array], schedule: Schedule) -> dict[str, Any]:
    """Returns what Keras' `compile` takes: labels teach where there are some, the teacher where there is one."""
    weight = 1.0 if train.y is None else 0.0 if teacher is None else schedule.distillation
    return output_losses(task, train, teacher, weight, schedule.temperature, schedule.loss)


def _by_owner(callbacks: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Returns our callbacks and those of the Model Optimization toolkit, and the user's."""
    places = ("keras_xaic.", "tensorflow_model_optimization.")
    ours = [one for one in callbacks if type(one).__module__.startswith(places)]
    return ours, [one for one in callbacks if one not in ours]


@in_its_scope
def within_minutes(model: Model, train: Samples, task: AnyTask, schedule: Schedule, teacher: Any = None) -> Schedule:
    """Returns the schedule with as many epochs, at most those it has, as fit its minutes; of a long epoch only a part.

    A few training steps are timed; they leave no trace in `model`.

    Args:
        model: The model to train.
        train: Training samples.
        task: What the model does.
        schedule: How to train; returned as it is without a limit of minutes.
        teacher: As for `fit`.
    """
    if schedule.minutes is None or schedule.epochs == 0:
        return schedule
    taught = Taught.of(teacher)
    losses = _losses(task, train, taught.outputs, schedule)
    before = model.get_weights()
    model.compile("sgd", **losses)
    few = _Batches(train, _targets(task, train, taught), schedule, 0)
    taken = []
    with _taught_maps(model, task, taught, schedule), _masks_ignored(model):
        for number in range(min(len(few), TIMED_STEPS + 1)):
            start = time.perf_counter()
            model.train_on_batch(*few[number])
            taken.append(time.perf_counter() - start)
    model.set_weights(before)
    seconds = float(np.median(taken[1:] or taken)) * schedule.steps_per_epoch(len(train))
    epochs = schedule.minutes * 60 / max(seconds, 1e-9)
    if epochs < 1:
        return replace(schedule, epochs=1, share=schedule.share * max(epochs, LEAST_SHARE))
    return replace(schedule, epochs=min(schedule.epochs, int(epochs)))


def _build(model: Model) -> None:
    """Makes the optimizer's variables: where a training step makes them, TensorFlow traces it twice."""
    optimizer = model.optimizer
    build = optimizer.build if hasattr(optimizer, "build") else optimizer._create_all_weights  # legacy ones
    build(model.trainable_variables)
