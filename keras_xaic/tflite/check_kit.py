"""The part of a bundle that travels to the device: samples, what Keras makes of them, and a script that compares."""

from __future__ import annotations

import inspect
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic._keras import tf
from keras_xaic.data import Samples, arrays_of
from keras_xaic.device_files import write_check_scripts
from keras_xaic.files import save_arrays, write_atomic
from keras_xaic.metrics import Task
from keras_xaic.models.ports import ports_of
from keras_xaic.models.task import heads_of

if TYPE_CHECKING:
    from keras_xaic._keras import Model

SAMPLES = 32
"""Number of samples that travel."""


def write_check(directory: pathlib.Path, model: Model, arrays: Sequence[np.ndarray], samples: Optional[Samples] = None) -> None:
    """Writes ``inputs.npz`` (x0, x1, ...), ``expected.npz`` (keras0, keras1, ...; targets), ``task.json`` and the scripts.

    ``task.json`` says what the model does, how it is judged and how it sees its inputs. Where there are several inputs or
    outputs, it says what they are called, and targets are called targets0, targets1, ... in the order of the outputs. What the
    written file gives on an interpreter (y0, y1, ...) is added to ``expected.npz`` by who runs it.

    Args:
        directory: Where to; made if it does not exist.
        model: The compressed Keras model.
        arrays: One (N, ...) array of samples per input of the model.
        samples: Where `arrays` came from, with targets and task, if that is known.
    """
    directory.mkdir(parents=True, exist_ok=True)
    inputs = [np.asarray(array[:SAMPLES], np.float32) for array in arrays]
    tensors = [tf.constant(one) for one in inputs]
    outputs = tf.nest.flatten(model(tensors if len(tensors) > 1 else tensors[0], training=False))
    expected = {f"keras{i}": tensor.numpy() for i, tensor in enumerate(outputs)}
    if samples is not None and samples.y is not None:
        targets = [np.asarray(one[:SAMPLES]) for one in arrays_of(samples.y)]
        expected.update({"targets" if len(targets) == 1 else f"targets{i}": one for i, one in enumerate(targets)})
    save_arrays(directory / "inputs.npz", {f"x{i}": array for i, array in enumerate(inputs)})
    save_arrays(directory / "expected.npz", expected)
    write_atomic(directory / "task.json", json.dumps(_task_facts(model, samples), indent=1) + "\n")
    write_atomic(directory / "xaic_metrics.py", pathlib.Path(inspect.getfile(Task)).read_bytes())
    write_check_scripts(directory)


def _task_facts(model: Model, samples: Optional[Samples]) -> dict[str, Any]:
    ports, heads = ports_of(model), heads_of(model)
    facts: dict[str, Any] = {"head": heads[0].facts()}
    if len(ports.inputs) > 1 or len(ports.outputs) > 1:
        facts = {"input_names": ports.inputs, "output_names": ports.outputs, "heads": [head.facts() for head in heads]}
    if samples is not None:
        facts["inputs"] = {"scale": samples.scale, "offset": samples.offset}
        facts.update({} if samples.task is None else samples.task.facts())
    return facts
