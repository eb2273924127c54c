"""Models as users hand them over: in memory or as a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from keras_xaic.data import Data, arrays_of, as_data
from keras_xaic.errors import DataError, ModelError
from keras_xaic.metrics import Task
from keras_xaic.models import channel_groups, fitted, infer_task, weighted_kernels
from keras_xaic.models.given import as_model
from keras_xaic.models.kernels import other_matrices
from keras_xaic.models.regular import regularize
from keras_xaic.output_tasks import AnyTask
from keras_xaic.progress import Progress, silent
from keras_xaic.settings import DataOptions
from keras_xaic.tasks import with_task

if TYPE_CHECKING:
    from keras_xaic._keras import Model
    from keras_xaic.files import PathLike
    from keras_xaic.recipes import Recipe


def load(
    model: Union[Model, PathLike], options: DataOptions, data: Optional[Data] = None, progress: Progress = silent
) -> Model:
    """Returns `model`, loaded if it is a path, made regular (see `regularize`).

    Free dimensions take the sizes of ``options.input_shape``, else those of `data`.
    """
    return load_fitted(model, options, data, progress)[0]


def load_fitted(
    model: Union[Model, PathLike], options: DataOptions, data: Optional[Data], progress: Progress = silent
) -> tuple[Model, Any]:
    """Returns the same, and the data in the order of the model's inputs and outputs (see `fitted`)."""
    model = as_model(model, options.allow_unsafe, options.custom_objects, options.architecture)
    data = None if data is None else fitted(model, data)
    source, shapes = "the data", [] if data is None else [tuple(one.shape[1:]) for one in arrays_of(data.train.x)]
    if options.input_shape is not None:
        source, shapes = "input_shape", [_fitting(tuple(int(size) for size in options.input_shape), model), *shapes[1:]]
    regular = regularize(model, shapes)
    for before, after in zip(model.inputs, regular.inputs):
        if tuple(before.shape) != tuple(after.shape):
            progress(f"free dimensions {tuple(before.shape[1:])} taken from {source}: {tuple(after.shape[1:])}", 1, 1)
    return regular, data


def _fitting(asked: tuple[int, ...], model: Model) -> tuple[int, ...]:
    """Returns the shape that was asked for, if the model's first input can have it."""
    own = tuple(model.inputs[0].shape[1:])
    if len(asked) != len(own) or any(size not in (None, one) for size, one in zip(own, asked)):
        raise ModelError(f"input_shape {asked} for a model that takes {own}", "the sizes that the model fixes, None may be any")
    return asked


def load_both(
    model: Union[Model, PathLike], data: Any, options: DataOptions, progress: Progress = silent
) -> tuple[Model, Data, AnyTask]:
    """Returns model, data and what the model does with them; said before any work where they do not fit."""
    found = as_data(data, *options.scaling, options.image_size)
    loaded, found = load_fitted(model, options, found, progress)
    task = infer_task(loaded, found, options.task, options.metric, options.output_weights)
    progress("load", 1, 1)
    return loaded, with_task(found, task), task


def check_judged(task: object, data: Data, seed: int) -> None:
    """Refuses data that gives the metric no value: areas under a curve need both classes, in validation data, too.

    Functions of the user's own are tried on outputs by chance.

    Raises:
        DataError: Naming the part.
    """
    _, held_back = data.split(seed=seed)
    parts = [("validation data", held_back), ("training data" if data.test is None else "test data", data.judging)]
    for name, samples in parts:
        for one, y in zip(getattr(task, "tasks", (task,)), [] if samples.y is None else arrays_of(samples.y)):
            if one.own is not None:
                one.score(_by_chance(one, y), y)
            try:
                if one.metric_name == "auc":
                    one.score(np.zeros((len(y), one.outputs)), y)
            except DataError as error:
                found = f"{data.name}: {name} ({len(y)} {'sample' if len(y) == 1 else 'samples'}): {error.found}"
                fix = "Give x_val and y_val; " if name == "validation data" and data.validation is None else ""
                raise DataError(found, error.expected, f"{fix}{{metric=accuracy}}") from None


def _by_chance(task: Task, y: np.ndarray) -> np.ndarray:
    """Returns outputs of the shape that targets `y` belong to."""
    shape = y.shape
    if task.family == "classes" and (len(shape) == 1 or shape[-1] != task.outputs):
        shape = (*(shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape), task.outputs)
    elif task.kind == "binary":
        shape = (len(y), 1)
    return np.random.default_rng(0).uniform(0.1, 0.9, shape).astype(np.float32)


def check_names(model: Model, recipe: Recipe) -> None:
    """Refuses name patterns of a recipe that match nothing in the model.

    Raises:
        PlanError: Naming the pattern.
    """
    layers = [name for group in channel_groups(model).values() for name in group.producers] if recipe.protect else []
    others = other_matrices(model) if recipe.pin else ()
    recipe.plan_options().check((kernel.key for kernel in weighted_kernels(model)), layers, others)


def travelling(model: PathLike, data: PathLike, options: DataOptions) -> dict[str, PathLike]:
    """Returns name -> file of what another machine needs to load both (see `moved`)."""
    source, is_code, _ = (options.architecture or "").partition(".py:")
    files: dict[str, Any] = {"model": model, "data": data, "custom_objects": options.custom_objects}
    files["architecture"] = f"{source}.py" if is_code else source
    return {name: path for name, path in files.items() if path}


def moved(options: DataOptions, places: Mapping[str, str]) -> DataOptions:
    """Returns the options where the files that they name lie at other places."""
    function = (options.architecture or "").partition(".py:")[2]
    changes: dict[str, Any] = {name: places[name] for name in ("custom_objects", "architecture") if name in places}
    if function:
        changes["architecture"] += f":{function}"
    return replace(options, **changes)
