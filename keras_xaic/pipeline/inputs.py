"""Models as users hand them over: in memory or as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Union

from keras_xaic.data import Data, as_data
from keras_xaic.models import Task, infer_task
from keras_xaic.models.given import as_model
from keras_xaic.models.regular import regularize
from keras_xaic.progress import Progress, silent
from keras_xaic.settings import DataOptions
from keras_xaic.tasks import with_task

if TYPE_CHECKING:
    from keras_xaic._keras import Model
    from keras_xaic.files import PathLike


def load(model: Union[Model, PathLike], allow_unsafe: bool, data: Optional[Data] = None, progress: Progress = silent) -> Model:
    """Returns `model`, loaded if it is a path, made regular (see `regularize`); free dimensions take those of `data`."""
    model = as_model(model, allow_unsafe)
    regular = regularize(model, () if data is None else [tuple(data.train.x.shape[1:])])
    if regular.input_shape != model.input_shape:
        progress(f"free dimensions {model.input_shape[1:]} taken from the data: {regular.input_shape[1:]}", 1, 1)
    return regular


def load_both(
    model: Union[Model, PathLike], data: Any, options: DataOptions, progress: Progress = silent
) -> tuple[Model, Data, Task]:
    """Returns model, data and what the model does with them; said before any work where they do not fit."""
    found = as_data(data, *options.scaling)
    loaded = load(model, options.allow_unsafe, found, progress)
    task = infer_task(loaded, found, options.task, options.metric)
    progress("load", 1, 1)
    return loaded, with_task(found, task), task
