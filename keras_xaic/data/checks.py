"""Whether inputs and targets are numbers that a model can take; each message names the key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Optional

import numpy as np

from keras_xaic.data.parts import Parts, arrays_of, whole_array
from keras_xaic.data.samples import Data, Samples
from keras_xaic.errors import DataError

WHOLE = 2**24
"""Largest whole number up to which float32 holds all of them."""
_TEXTS = (
    "Texts become numbers in front of the model: give the model behind the layer that reads them, and what it gives as data"
)


def check_inputs(data: Data, input_shapes: Sequence[Sequence[Optional[int]]]) -> None:
    """Checks that inputs fit a model, before any work.

    Args:
        data: The data, in the model's order (see `keras_xaic.data.parts`).
        input_shapes: Per input (batch, ...) that the model takes; None where free.

    Raises:
        DataError: Naming the key and what differs.
    """
    for part, samples in data.parts():
        arrays = arrays_of(samples.x)
        if len(arrays) != len(input_shapes):
            raise DataError(f"{data.name}: x_{part} has {len(arrays)} inputs", f"{len(input_shapes)}, the model's inputs")
        for number, (x, shape) in enumerate(zip(arrays, input_shapes)):
            if not _fits(x.shape[1:], shape[1:]):
                raise DataError(
                    f"{data.name}: {_key(samples.x, f'x_{part}', number)} has samples of shape {x.shape[1:]}",
                    f"{_show(shape[1:])}, the model's input shape",
                    "Save the images in shades of gray" if data.images and x.shape[-1:] == (3,) and shape[-1] == 1 else "",
                )


def _key(value: object, key: str, number: int) -> str:
    """Returns the name of one of several arrays, ``x_train_image``."""
    return f"{key}_{value.named(number)}" if isinstance(value, Parts) else key


def checked_samples(samples: Samples, part: str, where: str) -> Samples:
    """Returns samples whose inputs and targets are checked; labels of shape (N, 1), as in Keras' own datasets, become (N,).

    Args:
        samples: What is checked.
        part: ``"train"``, ``"test"`` or ``"val"``: how their keys end.
        where: Where they come from, for messages.

    Raises:
        DataError: Naming the key.
    """
    check_numbers(samples, f"{where}: x_{part}")
    weight = samples.weight
    if weight is not None:
        if isinstance(weight, Parts):
            found = f"{where}: the weights of x_{part} are several: {weight.described()}"
            raise DataError(found, "one number per sample")
        if weight.dtype.kind not in "biuf" or weight.shape != (len(samples),):
            found = f"{where}: the weights of x_{part} have shape {weight.shape} and dtype {weight.dtype}"
            raise DataError(found, "one number per sample")
        check_values(weight, f"{where}: the weights of x_{part}")
        if float(np.min(weight)) < 0 or float(np.max(weight)) <= 0:
            raise DataError(f"{where}: the weights of x_{part} go from {np.min(weight):g} to {np.max(weight):g}", "0 or more")
    if samples.y is None:
        return samples
    checked = []
    for number, y in enumerate(arrays_of(samples.y)):
        key = _key(samples.y, f"y_{part}", number)
        if y.dtype.kind not in "biuf":
            texts = any(isinstance(one, (str, bytes)) for one in y.flat)  # else they would have become classes
            fix = "Give every sample a label, or leave out those that have none" if texts else _way_out(y)
            raise DataError(f"{where}: {key} has dtype {y.dtype}", "integer labels, one-hot labels or real targets", fix)
        if y.ndim == 0 or len(y) != len(samples):
            raise DataError(
                f"{where}: {key} has {0 if y.ndim == 0 else len(y)} entries, x_{part} has {len(samples)}",
                "one target per sample",
            )
        check_values(y, f"{where}: {key}")
        whole = y.ndim == 2 and y.shape[1] == 1 and np.issubdtype(y.dtype, np.integer)
        checked.append(y[:, 0] if whole else y)
    return replace(samples, y=Parts(checked, samples.y.names) if isinstance(samples.y, Parts) else checked[0])


def check_numbers(samples: Samples, name: str) -> None:
    """Refuses inputs that are not real numbers, empty, or beyond float32 as the model sees them.

    Raises:
        DataError: Naming what was found.
    """
    scaling = (samples.scale, samples.offset)
    if not (np.isfinite(scaling).all() and samples.scale != 0):
        raise DataError(
            f"{name}: scale is {samples.scale} and offset {samples.offset}", "finite numbers, and a scale other than 0"
        )
    if isinstance(samples.x, Parts) and scaling != (1.0, 0.0):
        raise DataError(
            f"{name}: scale is {samples.scale:g} and offset {samples.offset:g} for {len(samples.x.arrays)} inputs",
            "each input as the model sees it",
            "Scale those that need it before",
        )
    for number, x in enumerate(arrays_of(samples.x)):
        key = _key(samples.x, name, number)
        if x.dtype.kind not in "biuf":
            raise DataError(f"{key} has dtype {x.dtype}", "real numbers: bool, integers or floats", _way_out(x))
        if x.ndim == 0 or x.size == 0:
            raise DataError(f"{key} is empty (shape {x.shape})", "at least one sample")
        if len(x) != len(samples):
            raise DataError(
                f"{key} has {len(x)} samples, {_key(samples.x, name, 0)} has {len(samples)}", "the same number in every input"
            )
        check_values(x, key, *scaling, whole=WHOLE)


def _way_out(values: np.ndarray) -> str:
    """Returns what to do with values that are no numbers yet, or never will be."""
    if not values.size:
        return ""
    if isinstance(values.flat[0], (str, bytes)):
        return _TEXTS
    if values.dtype.kind in "Mm":
        return "Make them numbers: seconds since a first moment, for example"
    if values.dtype.names:
        return "Make a column of each field: numpy.lib.recfunctions.structured_to_unstructured(x)"
    if values.dtype != object:
        return ""
    if any(one is None for one in values.flat):
        return "Fill what is missing (None), or leave those samples out"
    if any(np.ndim(one) for one in values.flat):
        return "Make one array of all of them: numpy.stack(list(x))"
    whole = np.asarray(values.tolist()).dtype.kind in "biu"
    return "Make them numbers: .astype(int)" if whole else 'Make them numbers: .astype("float32")'


def as_array(value: object, name: str) -> np.ndarray:
    """Returns what a user gave as an array of real numbers.

    Raises:
        DataError: If it is none.
    """
    try:
        array = whole_array(value)
    except (ValueError, TypeError, NotImplementedError):  # the last: symbolic tensors
        raise DataError(f"{name} is a {type(value).__name__} with rows of several shapes", "an array") from None
    if array.dtype.kind not in "biuf":
        fix = "Give class numbers" if name.startswith("y") and array.dtype.kind in "US" else _way_out(array)
        raise DataError(f"{name} has dtype {array.dtype}", "real numbers: bool, integers or floats", fix)
    return array


def real_numbers(name: str, value: object) -> np.ndarray:
    """The check of arguments that are arrays of real numbers (see `keras_xaic.arguments.checked`).

    Those of fewer than four bytes become float32, in which sums do not overflow.
    """
    array = as_array(value, name)
    return array.astype(np.float32) if array.dtype.kind == "f" and array.dtype.itemsize < 4 else array


def check_values(array: np.ndarray, name: str, scale: float = 1.0, offset: float = 0.0, whole: Optional[int] = None) -> None:
    """Refuses what float32, in which models compute, cannot hold.

    Args:
        array: Real numbers.
        name: Of the array, for messages.
        scale: What they are multiplied with.
        offset: What is added then.
        whole: The largest whole number that integers may hold; None for no limit.

    Raises:
        DataError: If there are other values.
    """
    if array.dtype.kind == "b" or array.size == 0 or array.dtype.itemsize == 1:
        return
    array, most = np.atleast_1d(array) if array.ndim == 0 else array, float(np.finfo(np.float32).max)
    step = max(1, 10_000_000 // max(1, array[:1].size))  # no second array of the data's size
    for start in range(0, len(array), step):
        part = array[start : start + step]
        low, high = float(part.min()), float(part.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError(f"{name} contains NaN or infinity", "finite values", "Clean the data first")
        largest = max(abs(low), abs(high))
        if largest * max(1.0, abs(scale)) + abs(offset) > most:
            raise DataError(
                f"{name} holds {largest:.4g}", f"at most {most:.2g}, the largest value of float32", "Scale the data"
            )
        if whole is not None and array.dtype.kind in "iu" and largest > whole:
            raise DataError(
                f"{name} holds the whole number {int(largest)}",
                f"at most {whole}: float32, in which models compute, does not hold all larger ones",
                "Scale the data, or give it as float32",
            )


def _fits(shape: Sequence[int], expected: Sequence[Optional[int]]) -> bool:
    return len(shape) == len(expected) and all(e is None or s == e for s, e in zip(shape, expected))


def _show(shape: Sequence[Optional[int]]) -> str:
    return "(" + ", ".join("any" if d is None else str(d) for d in shape) + ("," if len(shape) == 1 else "") + ")"
