"""What users give as samples, in one form: arrays per input, target values per output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic.data import WHOLE, Samples, check_values
from keras_xaic.errors import DataError

if TYPE_CHECKING:
    from keras_xaic._keras import Model


@dataclass(frozen=True)
class Inputs:
    """Samples for a model.

    Attributes:
        parts: One `Samples` per input of the model.
        y: Per output what belongs to it, or None where there is nothing.
        dtypes: What the inputs expect.
    """

    parts: tuple[Samples, ...]
    y: Optional[tuple[Any, ...]]
    dtypes: tuple[str, ...]

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
        x: `Samples`, an array, or a list or tuple of arrays for several inputs.
        y: Labels or target values; a list or tuple for several outputs. Those of `Samples` are used where it is None.

    Raises:
        DataError: If the samples do not fit the model's inputs.
    """
    expected, outputs = list(model.inputs), len(model.outputs)
    many = list(x) if isinstance(x, (list, tuple)) else [x]
    if len(many) != len(expected):
        raise DataError(f"x has {len(many)} inputs", f"{len(expected)} as the model: {', '.join(model.input_names)}")
    parts = [part if isinstance(part, Samples) else Samples(np.asarray(part)) for part in many]
    for part, tensor, name in zip(parts, expected, model.input_names):
        shape = tuple(tensor.shape[1:])
        if part.x.dtype.kind not in "biuf":
            raise DataError(f"x for input {name!r} has dtype {part.x.dtype}", "real numbers: bool, integers or floats")
        if part.x.ndim != len(shape) + 1 or any(e is not None and s != e for s, e in zip(part.x.shape[1:], shape)):
            raise DataError(f"x for input {name!r} has shape {part.x.shape}", f"(N, {', '.join(map(str, shape))})")
        if len(part) == 0:
            raise DataError(f"x for input {name!r} has no samples", "at least one")
        if len(part) != len(parts[0]):
            raise DataError(f"x for input {name!r} has {len(part)} samples", f"{len(parts[0])} as the first input")
        check_values(part.x, f"x for input {name!r}", part.scale, part.offset, whole=WHOLE)
    return Inputs(tuple(parts), _targets(y, parts, outputs), tuple(tensor.dtype.name for tensor in expected))


def find_reference(inputs: Inputs, reference: Any) -> list[np.ndarray]:
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
            raise DataError(f"reference is {reference!r}", '"mean", "zeros" or arrays')
        return [np.zeros((1, *part.x.shape[1:]), np.float32) for part in inputs.parts]
    many = list(reference) if isinstance(reference, (list, tuple)) else [reference]
    arrays = [np.asarray(one, np.float32) for one in many]
    shapes = [part.x.shape[1:] for part in inputs.parts]
    arrays = [one[None] if one.shape == shape else one for one, shape in zip(arrays, shapes)]
    if len(many) != len(shapes) or any(one.shape != (1, *shape) for one, shape in zip(arrays, shapes)):
        raise DataError(f"reference has the shapes {[np.shape(one) for one in many]}", f"one sample: {shapes}")
    return arrays


def _targets(y: Any, parts: Sequence[Samples], outputs: int) -> Optional[tuple[Any, ...]]:
    if y is None:
        given = parts[0].y
        return None if given is None else (given,) * outputs
    many = tuple(y) if isinstance(y, (list, tuple)) and outputs > 1 else (y,) * outputs
    if len(many) != outputs:
        raise DataError(f"y has {len(many)} parts", f"{outputs}, one per output of the model")
    for one in many:
        if one is None:
            continue
        if len(one) != len(parts[0]):
            raise DataError(f"y has {len(one)} entries, x has {len(parts[0])} samples", "one per sample")
        if np.asarray(one).dtype.kind not in "biuf":
            raise DataError(f"y has dtype {np.asarray(one).dtype}", "labels or real targets")
        check_values(np.asarray(one), "y")
    return many


def _mean(part: Samples) -> np.ndarray:
    total = np.zeros(part.x.shape[1:], np.float64)
    for batch, _ in part.batches(256):
        total += batch.sum(axis=0, dtype=np.float64)
    return (total / len(part))[None].astype(np.float32)
