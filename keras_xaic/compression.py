"""Carries out a plan: removes filters, prunes, quantizes, and trains the model to live with it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

import numpy as np

from keras_xaic.arguments import a_path, an, called, checked, this_or_path, whole
from keras_xaic.bundle import Bundle, undisturbed
from keras_xaic.data import Array, Parts, as_data
from keras_xaic.errors import DataError, PlanError
from keras_xaic.files import PathLike
from keras_xaic.grids import QuantizedKernel, load_kernels
from keras_xaic.models.frozen import thawed
from keras_xaic.models.given import as_model
from keras_xaic.models.keras3_objects import save_keras3
from keras_xaic.models.kernels import weighted_kernels
from keras_xaic.models.loading import load_model
from keras_xaic.models.losses import try_loss
from keras_xaic.models.ports import Ports, keep_ports, ports_of
from keras_xaic.models.regular import regularize
from keras_xaic.models.surgery import remove_channels
from keras_xaic.planning import Plan, check_plan
from keras_xaic.planning.plan import find_layer
from keras_xaic.progress import Progress, silent
from keras_xaic.pruning import kernel_masks
from keras_xaic.pruning.filters import remove_filters
from keras_xaic.pruning.weights import prune_weights
from keras_xaic.quantization.other_weights import hold_rounded, release
from keras_xaic.quantization.stage import quantize_weights
from keras_xaic.relevance import Relevance
from keras_xaic.settings import Training
from keras_xaic.training import Epoch, Schedule, check_training
from keras_xaic.training.context import Context
from keras_xaic.training.explanations import Taught
from keras_xaic.training.parallel import strategy_of
from keras_xaic.usual import in_usual_keras

if TYPE_CHECKING:
    from keras_xaic._keras import Model
    from keras_xaic.planning.storages import Storage


@dataclass(frozen=True)
class CompressedModel:
    """A model that was compressed by a plan.

    Attributes:
        model: The compressed Keras model: flat, BatchNorm folded, the weights of planned kernels exactly on their grids.
        kernels: Kernel key -> the integers and scales that export writes.
        plan: The plan it was made by.
        history: Training stage -> what each epoch measured.
        trainable: The same model as it was trained: BatchNorm is not folded, masked weights are zero, and the others are not
            rounded to their grids yet. Training can continue from it. None where it was read from a bundle.
    """

    model: Model
    kernels: Mapping[str, QuantizedKernel]
    plan: Plan
    history: Mapping[str, list[Epoch]]
    trainable: Any = None

    def __repr__(self) -> str:
        return f"<CompressedModel {self.model.name!r}: {len(self.kernels)} kernels on grids, {self.sparsity:.1%} zeros>"

    @property
    def storages(self) -> dict[str, Storage]:
        """Kernel key -> how its integers lie in the file."""
        return {layer.key: layer.storage for layer in self.plan.layers}

    @property
    def sparsity(self) -> float:
        """Fraction of zero weights over all kernels."""
        total = sum(kernel.integers.size for kernel in self.kernels.values())
        return sum(float(np.sum(kernel.integers == 0)) for kernel in self.kernels.values()) / max(1, total)

    @checked(path=a_path)
    def save_keras3(self, path: PathLike) -> pathlib.Path:
        """Writes the model as a ``.keras`` file of Keras 3, which has to be installed.

        Raises:
            ModelError: If it is not, does not take the model, or computes something else.
        """
        return save_keras3(self.model, path)

    @classmethod
    @checked(bundle=this_or_path(Bundle))
    def load(cls, bundle: Union[Bundle, PathLike]) -> CompressedModel:
        """Reads the compressed model back from a bundle.

        Raises:
            DataError, ModelError, PlanError: If a file of the bundle is missing or unusable.
        """
        bundle = bundle if isinstance(bundle, Bundle) else Bundle(pathlib.Path(bundle))
        with undisturbed(bundle) if bundle.path.is_dir() else contextlib.nullcontext():
            model = load_model(bundle.keras_model)
            names = bundle.ports()
            if names is not None and tuple(map(len, names)) == (len(model.inputs), len(model.outputs)):
                keep_ports(model, Ports(*names))
            kernels = load_kernels(bundle.grids) if bundle.grids.is_file() else {}
            plan = Plan.load(bundle.plan) if bundle.plan.is_file() else Plan()
            _check_together(bundle, model, kernels, plan)
        return cls(model, kernels, plan, {})


def _check_together(bundle: Bundle, model: Model, kernels: Mapping[str, QuantizedKernel], plan: Plan) -> None:
    """Refuses a bundle of which a part is missing or another one's: its kernels would get other grids, without a word."""
    for key in (kernel.key for kernel in weighted_kernels(model)):
        planned = find_layer(plan, key)
        if (key in kernels and planned is None) or (planned is not None and not planned.is_float and key not in kernels):
            raise DataError(
                f"{bundle.plan} and {bundle.grids.name} disagree on the kernel {key!r}: one is missing, or of another bundle",
                "both as they were written",
                f"Copy the whole bundle again, or export {bundle.keras_model} alone",
            )


EPOCHS, MOST_EPOCHS = 5, 120
"""Epochs where neither epochs nor minutes are given, and the most that are trained in however many minutes."""
PRUNING_SHARE = 0.5
"""Share of the epochs that goes into removal and pruning, where half of the weights or more go; quantization gets the rest."""
BYTES_ONLY = 0.8
"""Share of the epochs that goes into removal where all weights keep 8 bits, to which hardly any training is needed."""
REMOVAL_TIME = 0.4
"""Share of the minutes that goes into removal: its epochs are those of large models."""


@checked(plan=an(Plan), relevance=an(Relevance), training=an(Training), calibration=whole(1), replan=called)
@in_usual_keras
def apply(
    model: Union[Model, PathLike],
    plan: Plan,
    data: Any,
    *,
    relevance: Optional[Relevance] = None,
    training: Optional[Training] = None,
    calibration: int = 256,
    teacher: Optional[Union[Model, Array]] = None,
    replan: Optional[Callable[[Model, Plan], Plan]] = None,
    checkpoint: Optional[pathlib.Path] = None,
    progress: Progress = silent,
) -> CompressedModel:
    """Carries out `plan` on a trained model.

    Filters are removed (structured pruning), in one step or in several with training in between; sparsity ramps up under
    relevance-ordered TFMOT masks whose scores are refreshed on the way; then the model trains with its weights on the
    planned grids. All training imitates the original's outputs, too, and validation data choose the epoch that is kept.

    >>> from keras_xaic._keras import keras, layers
    >>> model = keras.Sequential([keras.Input((8,)), layers.Dense(3, "softmax", name="head")])
    >>> head = {"key": "head", "kind": "dense", "weights": 24, "bits": 3, "granularity": "tensor", "storage": "int4"}
    >>> x, y = np.random.default_rng(0).normal(size=(32, 8)).astype("float32"), np.arange(32) % 3
    >>> small = apply(model, Plan(layers=[head]), (x, y), training=Training(epochs=0))
    >>> small.storages, len(np.unique(small.model.get_layer("head").kernel)) <= 7
    ({'head': 'int4'}, True)

    Args:
        model: The trained `keras.Model`, which is not changed, or the path of one.
        plan: What every layer gets.
        data: Anything that `as_data` takes.
        relevance: Decides which weights and filters are removed; computed where it is needed and not given.
        training: How to train; None: 5 epochs. The quantization stage begins with half of its learning rate. Under a limit on
            time, if less than half of the metric value is left after the removal of filters, training begins with three times
            the learning rate.
        calibration: Number of samples for attributions on the way.
        teacher: The model whose outputs training imitates, where that is not `model`: give the original if `model` has lost
            accuracy already. Or its outputs on the training samples without validation data (`Data.split`); then `data` needs
            labels.
        replan: Called after the removal of filters with the smaller model and the plan as it was carried out until then;
            returns what the model's layers get.
        checkpoint: Directory for the state of training; the same call with the same directory continues. Of other plans it
            keeps the state apart.
        progress: Told how far the work is.

    Returns:
        The compressed model with its exact grids, and the plan as it was carried out.

    Raises:
        DataError, ModelError, PlanError: If the parts do not fit together.
    """
    training, model = training or Training(), as_model(model)
    if teacher is not None and not isinstance(teacher, (np.ndarray, Parts, Taught)):
        teacher = as_model(teacher)
    check_training(training)
    model = regularize(model)  # without dictionaries, too: Keras trains by lists as by names, but not by both
    check_plan(plan, model)
    if training.activation_ranges is not None and plan.activations == "float32":
        raise PlanError("activation_ranges for float32 activations, which lie on no grid", "None, or a plan with int8 or int16")
    seed = plan.seed if training.seed is None else training.seed
    model = thawed(model) if training.train_frozen else model
    epochs = training.effort(EPOCHS, MOST_EPOCHS) if model.trainable_weights else 0
    context = Context.of(
        model,
        as_data(data),
        epochs=epochs,
        seed=seed,
        calibration=calibration,
        callbacks=training.callbacks,
        checkpoint=None if checkpoint is None else checkpoint / _digest_of(plan),
        progress=progress,
        minutes=training.minutes,
        teacher=teacher,
    )
    context = replace(context, strategy=strategy_of(training.strategy) if epochs else None)
    if training.explanation_loss > 0:
        if isinstance(teacher, (np.ndarray, Parts)):
            raise PlanError("explanation_loss, and a teacher that is outputs alone", "the model that teaches")
        context = context.explained_by(model if teacher is None or isinstance(teacher, Taught) else teacher)
    try_loss(model, context.task, context.train, training.loss)
    whole = Schedule.of(training, epochs, seed)
    removal = _removal_epochs(epochs, plan, model)
    time = 1.0 if not plan.layers else BYTES_ONLY if _bytes_only(plan) else REMOVAL_TIME
    schedule = replace(whole, epochs=removal, minutes=context.minutes(time))
    removed = remove_filters(model, plan, relevance, context, schedule)
    small, plan, history = removed.model, removed.plan, dict(removed.history)
    if replan is not None and (plan.branches or plan.remove):
        plan = context.cached("plan", functools.partial(replan, small, plan), Plan.save, Plan.load)
    sparse = _is_sparse(plan)
    pruning = round((epochs - removal) * PRUNING_SHARE * min(1.0, 2.0 * _missing_zeros(small, plan))) if sparse else 0
    untrained = remove_channels(small, {}) if epochs == 0 and training.rounding == "outputs" else None
    if sparse:
        schedule = replace(whole, epochs=pruning, minutes=context.minutes(PRUNING_SHARE))
        small, history["prune"] = prune_weights(small, plan, relevance, context, schedule, training.refresh)
    masks = {key: mask for key, mask in kernel_masks(small).items() if not mask.all()} if sparse else None

    rest = epochs - removal - pruning if plan.layers else 0
    rate = training.learning_rate / 2
    schedule = replace(whole, epochs=rest, learning_rate=rate, seed=seed + 500, minutes=context.minutes(1.0))
    held = hold_rounded(small, plan.rounded)
    made = quantize_weights(
        small,
        plan,
        masks,
        relevance,
        context,
        schedule,
        activation_ranges=training.activation_ranges,
        unrounded=untrained,
        round_frozen=training.rounding == "outputs",
        refresh=training.refresh,
    )
    for one in (made.model, made.trainable):
        release(one, held)
    if made.history:
        history["quantize"] = made.history
    keep_ports(made.model, ports_of(model))
    return CompressedModel(made.model, made.kernels, plan, history, trainable=made.trainable)


def _digest_of(plan: Plan) -> str:
    """Returns what tells plans apart by what they do: the state of training by one is nothing to another."""
    done = {"layers", "branches", "remove", "rounded", "filters", "activations", "lookup"}
    return hashlib.sha256(plan.model_dump_json(include=done).encode()).hexdigest()[:12]


def _removal_epochs(epochs: int, plan: Plan, model: Model) -> int:
    """Returns how many epochs removal gets: all it may have where half of the weights or branches go, none where hardly any do.

    What comes after it recovers a little removal, too, and pruning all removal in one step.
    """
    if not plan.branches and not plan.remove and plan.filters is None:
        return 0
    if not plan.layers:
        return epochs
    left = sum(layer.weights for layer in plan.layers) / max(1, sum(kernel.size for kernel in weighted_kernels(model)))
    share = BYTES_ONLY if _bytes_only(plan) else PRUNING_SHARE
    first = round(epochs * share * (1.0 if plan.branches else min(1.0, 2.0 * (1.0 - left))))
    if not _is_sparse(plan):
        return first
    return first // 2 if plan.filters is not None and plan.filters.steps > 1 else 0


def _bytes_only(plan: Plan) -> bool:
    """Returns whether all weights keep 8 bits or more."""
    return all(layer.bits >= 8 for layer in plan.layers)


def _missing_zeros(model: Model, plan: Plan) -> float:
    """Returns the share of all weights that masks have yet to make zero.

    As with removal, pruning gets the less time the less there is to do: training on the grids makes up for a little, too.
    """
    zeros = {kernel.key: int((kernel.value == 0).sum()) for kernel in weighted_kernels(model)}
    missing = [max(0, int(layer.masked_sparsity * layer.weights) - zeros[layer.key]) for layer in plan.layers]
    return sum(missing) / max(1, sum(layer.weights for layer in plan.layers))


def _is_sparse(plan: Plan) -> bool:
    """Returns whether masks must make zeros."""
    return any(layer.masked_sparsity > 0 for layer in plan.layers)
