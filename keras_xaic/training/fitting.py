"""Fine-tuning that can be interrupted: distillation, selection on validation data, early stopping, checkpoints."""

from __future__ import annotations

import contextlib
import json
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable, Optional

import numpy as np

from keras_xaic._keras import Model, keras, tf
from keras_xaic.arguments import keyword_only, shown
from keras_xaic.data import Array, Samples, concatenated, joined
from keras_xaic.errors import PlanError, XaicError
from keras_xaic.files import save_arrays, telling, write_atomic
from keras_xaic.identity import digest_of, facts_of
from keras_xaic.models.losses import Targets, all_targets, check_loss, output_losses
from keras_xaic.models.ports import ports_of
from keras_xaic.output_tasks import AnyTask
from keras_xaic.settings import Training
from keras_xaic.training.callbacks import (
    FollowCosine,
    Judge,
    Keeper,
    Named,
    check_callbacks,
    may_set_rate,
    sets_rate,
    states_of,
    train_metrics,
    validation_logs,
)

TIMED_STEPS = 10
"""Training steps that are timed to see how many epochs fit a limit of minutes."""
LEAST_SHARE = 0.05
"""Part of the training samples that an epoch passes over however little time there is."""


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

    @classmethod
    def of(cls, training: Training, epochs: int, seed: int) -> Schedule:
        """Returns how a stage trains by the user's settings; minutes are shared out by whoever knows the stages."""
        names = ("learning_rate", "batch_size", "distillation", "patience", "optimizer", "loss", "class_weight")
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
            made = type(self.optimizer).from_config(self.optimizer.get_config())
            if constant and isinstance(getattr(made, "_learning_rate", None), keras.optimizers.schedules.LearningRateSchedule):
                found = "the optimizer has a schedule of its own, and a callback sets the learning rate, too"
                raise PlanError(found, "one of both")
            return made
        if isinstance(self.optimizer, type) and issubclass(self.optimizer, kinds):
            return self.optimizer(rate)
        known = {name.lower(): getattr(keras.optimizers, name) for name in dir(keras.optimizers) if name[0].isupper()}
        if not isinstance(self.optimizer, str) or self.optimizer.lower() not in known:
            found = f"optimizer is {shown(self.optimizer)}"
            raise PlanError(found, "the name of a Keras optimizer such as adam, its class, or one that is set up")
        return known[self.optimizer.lower()](rate)


def check_training(training: Training) -> None:
    """Refuses an optimizer or a loss that Keras does not know, and a callback that cannot work, before any work.

    Raises:
        PlanError: Naming it.
    """
    Schedule.of(training, 1, 0).make_optimizer(1)
    check_callbacks(training.callbacks)
    if training.loss is not None:
        several = training.loss.values() if isinstance(training.loss, Mapping) else training.loss
        for loss in several if isinstance(training.loss, (Mapping, list, tuple)) else [training.loss]:
            check_loss(loss)


@dataclass(frozen=True)
class Epoch:
    """What one epoch measured: the loss, and the task's metric value on validation data (higher is better)."""

    number: int
    loss: float
    held_back: float


class _Batches(keras.utils.Sequence):
    """Shuffled batches of one epoch, and then of the next: inputs, and labels beside the teacher's outputs.

    Of several inputs or outputs there is one array for each.
    """

    def __init__(self, samples: Samples, targets: Sequence[Targets], schedule: Schedule, number: int) -> None:
        self.samples, self.targets, self.batch_size = samples, targets, schedule.batch_size
        self.weights = _weights(samples, schedule.class_weight)
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


def _weights(samples: Samples, classes: Any) -> Optional[np.ndarray]:
    """Returns how much each sample counts, (N,) float32: its own weight times that of its class; None where all count alike."""
    if classes is None:
        return None if samples.weight is None else samples.weight.astype(np.float32)
    labels = samples.labels
    if labels is None:
        raise PlanError("class_weight is given, and the samples have no classes", "classification with labels")
    unknown = sorted(set(np.unique(labels).tolist()) - set(classes))
    if unknown:
        raise PlanError(f"class_weight has no weight of class {unknown[0]}", "one of every class")
    weights = np.array([classes[one] for one in labels.tolist()], np.float32)
    return weights if samples.weight is None else weights * samples.weight.astype(np.float32)


def fit(
    model: Model,
    train: Samples,
    held_back: Samples,
    task: AnyTask,
    schedule: Schedule,
    *,
    teacher: Optional[Array] = None,
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
        teacher: (N, outputs) outputs of the original model on `train`, `Parts` of several; without them only labels teach.
        callbacks: Further Keras callbacks; where one sets ``model.stop_training``, the epoch is the last.
        checkpoint: Directory for the state after every epoch; a call with the same directory continues from there.
        progress: Told the training steps that are done, all of them, and a note, after every step.
        judge: Returns the metric value of the model after an epoch; it may settle what training leaves unsettled, such as
            statistics. None: the task's metric value on `held_back`.

    Returns:
        One entry per epoch.
    """
    judge = judge or (lambda model: task.goodness(predict(model, held_back), held_back))
    ours, theirs = _by_owner(callbacks)
    losses = _losses(task, train, teacher, schedule)
    constant = sets_rate(theirs) or (may_set_rate(theirs) and not schedule.has_optimizer)
    metrics = train_metrics(task) if theirs else None
    model.compile(schedule.make_optimizer(len(train), constant), metrics=metrics, **losses)
    _build(model)
    state = _State(model, checkpoint, _identity(train, held_back, task, schedule, teacher, theirs))
    history, known = state.restore()
    values: list[float] = []

    def judged(number: int, value: float) -> None:
        values.append(value)
        if schedule.selectable(number):
            state.consider(value)

    def step(done: int) -> None:
        note = f"epoch {len(history) + 1}/{schedule.epochs}" + (f", validation {history[-1].held_back:.4f}" if history else "")
        progress(len(history) * schedule.steps_per_epoch(len(train)) + done, schedule.steps(len(train)), note)

    def end(lost: float) -> None:
        history.append(Epoch(len(history) + 1, lost, values[-1]))
        model.stop_training = model.stop_training or schedule.is_over(history)
        state.save(history, states_of(theirs), stopped=bool(model.stop_training))

    with _traced_once(model):
        if not history and schedule.select_from == 0:  # training may make things worse
            state.consider(judge(model))
        if not schedule.is_over(history) and not state.stopped:
            said = None
            if theirs:
                said = validation_logs(task, held_back, output_losses(task, held_back, None, 0.0, 1.0, schedule.loss), predict)
            following = [FollowCosine(schedule.cosine(len(train)))] if constant and not sets_rate(theirs) else []
            users = [Named(one) for one in theirs]
            try:
                model.fit(
                    _Batches(train, all_targets(task, train, teacher), schedule, len(history)),
                    verbose=0,
                    shuffle=False,
                    callbacks=[*ours, *following, Judge(judge, judged, said), *users, Keeper(theirs, known, step, end)],
                    initial_epoch=len(history),
                    epochs=schedule.epochs,
                )
            except XaicError as error:
                raise error from error.__context__  # the cause, which Keras hides
    state.restore_best()
    return history


def _losses(task: AnyTask, train: Samples, teacher: Optional[Array], schedule: Schedule) -> dict[str, Any]:
    """Returns what Keras' `compile` takes: labels teach where there are some, the teacher where there is one."""
    weight = 1.0 if train.y is None else 0.0 if teacher is None else schedule.distillation
    return output_losses(task, train, teacher, weight, schedule.temperature, schedule.loss)


def _by_owner(callbacks: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Returns our callbacks and those of the Model Optimization toolkit, and the user's."""
    places = ("keras_xaic.", "tensorflow_model_optimization.")
    ours = [one for one in callbacks if type(one).__module__.startswith(places)]
    return ours, [one for one in callbacks if one not in ours]


def within_minutes(
    model: Model, train: Samples, task: AnyTask, schedule: Schedule, teacher: Optional[Array] = None
) -> Schedule:
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
    losses = _losses(task, train, teacher, schedule)
    before = model.get_weights()
    model.compile("sgd", **losses)
    few = _Batches(train, all_targets(task, train, teacher), schedule, 0)
    taken = []
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


_traced: dict[int, Any] = {}
"""The compiled calls of models that are being trained, by the `id` of the model."""


@contextlib.contextmanager
def _traced_once(model: Model) -> Iterator[None]:
    """Has `predict` trace `model` once in all; training changes its variables, not what it computes with them."""
    before = _traced.get(id(model))
    _traced[id(model)] = before or _compiled(model)
    try:
        yield
    finally:
        if before is None:
            del _traced[id(model)]


def _compiled(model: Model) -> Any:
    return tf.function(lambda x: model(x, training=False), reduce_retracing=True)


def _build(model: Model) -> None:
    """Makes the optimizer's variables: where a training step makes them, TensorFlow traces it twice."""
    optimizer = model.optimizer
    build = optimizer.build if hasattr(optimizer, "build") else optimizer._create_all_weights  # legacy ones
    build(model.trainable_variables)


def predict(model: Model, samples: Samples, batch_size: int = 256) -> Any:
    """Returns the model's outputs, (N, ...) float32, batch by batch; of several outputs `Parts`."""
    call = _traced.get(id(model)) or _compiled(model)
    names, parts = ports_of(model).outputs, []
    for start in range(0, len(samples), batch_size):
        feeds = [tf.constant(one) for one in samples.feeds(slice(start, start + batch_size))]
        outputs = tf.nest.flatten(call(feeds if len(feeds) > 1 else feeds[0]))
        parts.append(joined([np.asarray(one) for one in outputs], names if len(names) > 1 else ()))
    return concatenated(parts)


def _identity(
    train: Samples,
    held_back: Samples,
    task: AnyTask,
    schedule: Schedule,
    teacher: Optional[Array],
    theirs: Sequence[Any],
) -> str:
    """What tells one training from another; of callbacks the user's, since ours follow from the plan."""
    data = [
        None if array is None else digest_of(array)
        for array in (train.x, train.y, train.weight, held_back.x, held_back.y, teacher)
    ]
    seen = [(one.scale, one.offset, one.task) for one in (train, held_back)]
    return json.dumps(facts_of([replace(schedule, minutes=None), task, seen, data, theirs]), sort_keys=True)


class _State:
    """Everything needed to go on after an interruption, kept after every epoch."""

    def __init__(self, model: Model, directory: Optional[pathlib.Path], identity: str) -> None:
        self.model, self.directory = model, directory
        self.best: Optional[list[np.ndarray]] = None
        self.best_value = -np.inf
        self.identity, self.stopped = identity, False
        self.checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)

    def restore(self) -> tuple[list[Epoch], list[dict[str, Any]]]:
        """Returns the epochs that are done and the state of callbacks, with the model as it was after them."""
        if self.directory is None or not (self.directory / "epochs.json").exists():
            return [], []
        saved = json.loads((self.directory / "epochs.json").read_text())
        if saved.get("identity") != self.identity:
            return [], []  # of other settings: training starts over, and its files take the place of these
        self.checkpoint.restore(str(self.directory / saved["checkpoint"])).expect_partial()
        self.best_value = saved["best_value"] if saved["best_value"] is not None else -np.inf
        if saved["best"] is not None:
            with np.load(self.directory / saved["best"]) as arrays:
                self.best = [arrays[f"{i:04d}"] for i in range(len(arrays.files))]
        self.stopped = saved.get("stopped", False)
        return [Epoch(**epoch) for epoch in saved["epochs"]], saved.get("callbacks", [])

    def save(self, history: list[Epoch], callbacks: list[dict[str, Any]], stopped: bool) -> None:
        """Keeps the model after an epoch, and whether it was the last."""
        if self.directory is None:
            return
        with telling():
            self.directory.mkdir(parents=True, exist_ok=True)
            name, best = f"epoch-{len(history)}", None if self.best is None else f"best-{len(history)}.npz"
            if self.best is not None and best is not None:
                save_arrays(self.directory / best, {f"{i:04d}": value for i, value in enumerate(self.best)}, compressed=False)
            self.checkpoint.write(str(self.directory / name))
            value = None if self.best is None else float(self.best_value)
            epochs = [vars(epoch) for epoch in history]
            content = {"checkpoint": name, "best": best, "best_value": value, "epochs": epochs, "identity": self.identity}
            content.update({"callbacks": callbacks, "stopped": stopped})
            write_atomic(self.directory / "epochs.json", json.dumps(content))
            for stale in self.directory.glob(f"*-{len(history) - 1}.*"):  # epochs.json names others now
                stale.unlink()

    def consider(self, value: float) -> None:
        """Remembers the weights of now if no earlier ones were better."""
        if value >= self.best_value:
            self.best_value = value
            self.best = [variable.numpy() for variable in self.model.variables]

    def restore_best(self) -> None:
        """Leaves the model with its best weights."""
        if self.best is not None:
            for variable, value in zip(self.model.variables, self.best):
                variable.assign(value)
