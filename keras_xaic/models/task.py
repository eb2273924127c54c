"""What a model does: what its outputs and its loss say, for `keras_xaic.tasks` to decide, and data in the model's order."""

from __future__ import annotations

from keras_xaic._keras import Model, keras
from keras_xaic.data import Data, arrays_of, check_inputs, with_channels, without_lone_class
from keras_xaic.errors import DataError
from keras_xaic.metrics import Task
from keras_xaic.models.losses import carried_losses
from keras_xaic.models.operations import Operations
from keras_xaic.models.ports import ports_of
from keras_xaic.models.tables import check_rows
from keras_xaic.output_tasks import AnyTask, PerOutput, infer_all
from keras_xaic.tasks import Head

__all__ = ["Task", "fitted", "heads_of", "infer_task"]


def fitted(model: Model, data: Data) -> Data:
    """Returns data in the order of the model's inputs and outputs (see `Data.ordered`), and as many channels of images.

    A lone class is no label.
    """
    ports = ports_of(model)
    data = with_channels(without_lone_class(data), [tuple(tensor.shape) for tensor in model.inputs])
    return data.ordered(ports.inputs, ports.outputs, ports.layers)


def infer_task(
    model: Model,
    data: Data,
    task: PerOutput = None,
    metric: PerOutput = None,
    weights: PerOutput = None,
    *,
    strict: bool = True,
) -> AnyTask:
    """Returns what `model` does, from its heads, its loss and the targets, after checking that the data fits.

    Samples that carry their task already (see `keras_xaic.tasks.with_task`) are taken at their word.

    Args:
        model: The model.
        data: What it is trained and judged on, in the model's order (see `fitted`).
        task: Kind of the task, for all outputs or by name; None infers it.
        metric: Name of the metric, for all outputs or by name; None: the task's usual one.
        weights: How much each of several outputs counts (see `keras_xaic.output_tasks.output_weights`).
        strict: As for `keras_xaic.tasks.infer`.

    Raises:
        DataError: If the data does not fit the model, or can be read in two ways.
    """
    check_inputs(data, [tuple(tensor.shape) for tensor in model.inputs])
    known = data.train.task
    if known is not None and task is None and metric is None and weights is None:
        return known
    check_rows(model, {f"{data.name}: x_{part}": [samples] for part, samples in data.parts()})
    for _, part in data.parts():
        if part.y is not None and len(arrays_of(part.y)) != len(model.outputs):
            raise DataError(f"{data.name}: there are targets for {len(arrays_of(part.y))} outputs", f"{len(model.outputs)}")
    return infer_all(heads_of(model), data, task, metric, weights, strict)


def heads_of(model: Model) -> list[Head]:
    """Returns what is known of each output of a model."""
    operations, names = Operations(model), ports_of(model).outputs
    shapes = [tuple(tensor.shape)[1:] for tensor in model.inputs]
    several, found = len(names) > 1, []
    for key, name, tensor, loss in zip(operations.outputs, names, model.outputs, carried_losses(model, names)):
        shape = tuple(tensor.shape)[1:]
        inputs = shape if shape in shapes else shapes[0]
        found.append(Head(shape, _activation(operations, key), loss, inputs, name if several else "output"))
    return found


def _activation(operations: Operations, key: str) -> str:
    last = operations.producer.get(key)
    while last is not None and isinstance(last.layer, (keras.layers.Reshape, keras.layers.Flatten)):
        last = operations.producer.get(last.inputs[0])
    if last is None:
        return ""
    if isinstance(last.layer, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(last.layer, "activation", None), "__name__", "linear")
