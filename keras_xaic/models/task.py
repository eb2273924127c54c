"""What a model does: what its last layer and its loss say, for `keras_xaic.tasks` to decide."""

from __future__ import annotations

from typing import Optional

from keras_xaic._keras import Model, keras
from keras_xaic.data import Data, check_inputs
from keras_xaic.errors import ModelError
from keras_xaic.metrics import Task
from keras_xaic.models.losses import carried_loss
from keras_xaic.models.operations import Operations
from keras_xaic.tasks import Head, infer

__all__ = ["Task", "head_of", "infer_task"]


def infer_task(
    model: Model, data: Data, task: Optional[str] = None, metric: Optional[str] = None, *, strict: bool = True
) -> Task:
    """Returns what `model` does, from its head, its loss and the targets, after checking that the data fits.

    Samples that carry their task already (see `keras_xaic.tasks.with_task`) are taken at their word.

    Args:
        model: The model.
        data: What it is trained and judged on.
        task: Kind of the task; None infers it.
        metric: Name of the metric; None: the task's usual one.
        strict: As for `keras_xaic.tasks.infer`.

    Raises:
        ModelError: If the model has several inputs or outputs.
        DataError: If the data does not fit the model, or can be read in two ways.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"model {model.name!r} has {len(model.inputs)} inputs and {len(model.outputs)} outputs",
            "one input and one output for compression",
            "Compress the parts as models of their own",
        )
    check_inputs(data, tuple(model.inputs[0].shape))
    if data.train.task is not None and task is None and metric is None:
        return data.train.task
    return infer(head_of(model), data, task, metric, strict)


def head_of(model: Model) -> Head:
    """Returns what is known of the output of a model with one input and one output."""
    shapes = [tuple(tensor.shape)[1:] for tensor in (model.outputs[0], model.inputs[0])]
    return Head(shapes[0], _activation(model), carried_loss(model), shapes[1])


def _activation(model: Model) -> str:
    operations = Operations(model)
    last = operations.producer.get(operations.outputs[0])
    while last is not None and isinstance(last.layer, (keras.layers.Reshape, keras.layers.Flatten)):
        last = operations.producer.get(last.inputs[0])
    if last is None:
        return ""
    if isinstance(last.layer, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(last.layer, "activation", None), "__name__", "linear")
