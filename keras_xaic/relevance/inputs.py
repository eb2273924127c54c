"""What users give as samples, in one form: arrays per input, target values per output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic.data import Parts, Samples, arrays_of, as_array, check_numbers, check_values
from keras_xaic.data.parts import as_parts, in_order
from keras_xaic.errors import DataError, choices
from keras_xaic.models.folding import as_float32
from keras_xaic.models.ports import ports_of
from keras_xaic.models.tables import check_rows
from keras_xaic.output_tasks import AnyTask

if TYPE_CHECKING:
    from keras_xaic._keras import Model


@dataclass(frozen=True)
class Inputs:
    """Samples for a model.

    Attributes:
        parts: One `Samples` per input of the model.
        y: Per output what belongs to it, or None where there is nothing.
        dtypes: What the inputs of the canonical model expect.
        task: What the samples say that the model does with them; None where they do not say it.
    """

    parts: tuple[Samples, ...]
    y: Optional[tuple[Any, ...]]
    dtypes: tuple[str, ...]
    task: Optional[AnyTask] = None

    def __len__(self) -> int:
        return len(self.parts[0])

    def batch(self, index: np.ndarray, size: int) -> list[np.ndarray]:
        """Returns the inputs at `index`, padded with repetitions to `size` samples."""
        padded = np.concatenate([index, np.full(size - len(index), index[-1])]).astype(np.int64)
        return [part.inputs(padded).astype(dtype) for part, dtype in zip(self.parts, self.dtypes)]

    @property
    def stored(self) -> list[np.ndarray]:
        """The arrays as they are stored, without copies."""
        return [part.x for part in self.parts]


def as_inputs(model: Model, x: Any, y: Any = None) -> Inputs:
    """Brings samples into one form.

    Args:
        model: The Keras model.
        x: `Samples`, an array, or for several inputs a list of arrays in the model's order, or a dictionary by name.
        y: Labels or target values; for several outputs as for inputs. Those of `Samples` are used where it is None.

    Raises:
        DataError: If the samples do not fit the model's inputs.
    """
    expected, ports = list(model.inputs), ports_of(model)
    task = x.task if isinstance(x, Samples) else None
    y = x.y if y is None and isinstance(x, Samples) else y
    if len(expected) == 1 and _is_nested(x):  # samples as lists; of several inputs as of one, a list of what each gets
        whole = as_array(x, "x")
        x = whole if whole.ndim == len(expected[0].shape) else x
    many = _in_order(x, task is not None, ports.inputs, ports.layers[0])
    if isinstance(y, (Mapping, Parts)):
        y = (
            arrays_of(y)
            if task is not None
            else arrays_of(in_order(as_parts(y), ports.outputs, ports.layers[1], "y", "output"))
        )
        y = y[0] if len(y) == 1 else y
    if len(many) != len(expected):
        raise DataError(f"x has {len(many)} inputs", f"{len(expected)} as the model: {', '.join(model.input_names)}")
    parts = [part if isinstance(part, Samples) else Samples(as_array(part, "x")) for part in many]
    for part, tensor, name in zip(parts, expected, model.input_names):
        shape = tuple(tensor.shape[1:])
        check_numbers(part, f"x for input {name!r}")
        if part.x.ndim != len(shape) + 1 or any(e is not None and s != e for s, e in zip(part.x.shape[1:], shape)):
            raise DataError(f"x for input {name!r} has shape {part.x.shape}", f"(N, {', '.join(map(str, shape))})")
        if len(part) != len(parts[0]):
            raise DataError(f"x for input {name!r} has {len(part)} samples", f"{len(parts[0])} as the first input")
    if task is None and parts[0].task is None:  # else they were looked at
        check_rows(model, {"x": parts})
    targets = _targets(y, parts, len(ports.outputs))
    task = parts[0].task if task is None else task
    return Inputs(tuple(parts), targets, tuple(as_float32(tensor.dtype.name) for tensor in expected), task)


def _is_nested(x: object) -> bool:
    """Whether samples are lists of numbers, of lists ..., without any array."""
    return isinstance(x, (list, tuple)) and not any(isinstance(one, Samples) or hasattr(one, "shape") for one in x)


def _in_order(x: Any, known: bool, names: Sequence[str], keys: Sequence[str]) -> list[Any]:
    """Returns what belongs to each input; `known` says that it is in the model's order already."""
    stored = x.x if isinstance(x, Samples) else as_parts(x) if isinstance(x, Mapping) else x
    if not isinstance(stored, Parts):
        return list(x) if isinstance(x, (list, tuple)) else [x]
    arrays = stored.arrays if known else arrays_of(in_order(stored, names, keys, "x", "input"))
    return [replace(x, x=one, y=None, task=None) for one in arrays] if isinstance(x, Samples) else list(arrays)


def find_reference(inputs: Inputs, reference: object) -> list[np.ndarray]:
    """Returns what DeepLIFT compares with, one sample per input, (1, ...).

    Args:
        inputs: The samples.
        reference: None or ``"mean"``, ``"zeros"``, an array of one sample's shape, or a list of arrays.

    Raises:
        DataError: If it does not have the shape of one sample.
    """
    if reference is None or (isinstance(reference, str) and reference == "mean"):
        return [_mean(part) for part in inputs.parts]
    if isinstance(reference, str):
        if reference != "zeros":
            raise DataError(f"reference is {reference!r}", f"an array, or {choices(reference, ('mean', 'zeros'))}")
        return [np.zeros((1, *part.x.shape[1:]), np.float32) for part in inputs.parts]
    many = list(reference) if isinstance(reference, (list, tuple)) else [reference]
    given = [as_array(one, "reference") for one in many]
    for one in given:
        check_values(one, "reference")
    arrays = [one.astype(np.float32) for one in given]
    shapes = [part.x.shape[1:] for part in inputs.parts]
    arrays = [one[None] if one.shape == shape else one for one, shape in zip(arrays, shapes)]
    if len(many) != len(shapes) or any(one.shape != (1, *shape) for one, shape in zip(arrays, shapes)):
        raise DataError(f"reference has the shapes {[one.shape for one in given]}", f"one sample: {shapes}")
    return arrays


def _targets(y: Any, parts: Sequence[Samples], outputs: int) -> Optional[tuple[Any, ...]]:
    if y is None:
        given = parts[0].y
        many: tuple[Any, ...] = () if given is None else (given,) * outputs
    else:
        many = tuple(y) if isinstance(y, (list, tuple)) and outputs > 1 else (y,) * outputs
    if not many:
        return None
    if len(many) != outputs:
        raise DataError(f"y has {len(many)} parts", f"{outputs}, one per output of the model")
    arrays = tuple(None if one is None else as_array(one, "y") for one in many)
    for one in arrays:
        if one is not None and (one.ndim == 0 or len(one) != len(parts[0])):
            raise DataError(f"y has {one.size} entries, x has {len(parts[0])} samples", "one per sample")
        if one is not None:
            check_values(one, "y")
    return arrays


def _mean(part: Samples) -> np.ndarray:
    total = np.zeros(part.x.shape[1:], np.float64)
    for batch, _ in part.batches(256):
        total += np.asarray(batch).sum(axis=0, dtype=np.float64)
    return (total / len(part))[None].astype(np.float32)
