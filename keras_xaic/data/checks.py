"""Whether inputs and targets are numbers that a model can take; each message names the key."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any, Optional, Union

import numpy as np

from keras_xaic.data.samples import Data, Samples
from keras_xaic.errors import DataError

WHOLE = 2**24
"""Largest whole number up to which float32 holds all of them."""


def check_inputs(data: Data, input_shape: Sequence[Optional[int]]) -> None:
    """Checks that inputs fit a model, before any work.

    Args:
        data: The data.
        input_shape: (batch, ...) that the model takes; None where free.

    Raises:
        DataError: Naming the key and what differs.
    """
    for part, samples in (("train", data.train), ("test", data.test)):
        if samples is None:
            continue
        if not _fits(samples.x.shape[1:], input_shape[1:]):
            raise DataError(
                f"{data.name}: x_{part} has samples of shape {samples.x.shape[1:]}",
                f"{_show(input_shape[1:])}, the model's input shape",
            )


def check_samples(samples: Samples, part: str, where: Union[str, pathlib.Path]) -> None:
    """Checks inputs and targets; labels of shape (N, 1), as Keras' own datasets store them, become (N,).

    Args:
        samples: What is checked.
        part: ``"train"``, ``"test"`` or ``""``: how their keys end.
        where: The file they come from, for messages.

    Raises:
        DataError: Naming the key.
    """
    x, y, part = samples.x, samples.y, f"_{part}" if part else ""
    check_numbers(samples, f"{where}: x{part}")
    if y is None:
        return
    if y.dtype.kind not in "biuf":
        raise DataError(f"{where}: y{part} has dtype {y.dtype}", "integer labels, one-hot labels or real targets")
    if y.ndim == 0 or len(y) != len(x):
        raise DataError(
            f"{where}: y{part} has {0 if y.ndim == 0 else len(y)} entries, x{part} has {len(x)}", "one target per sample"
        )
    check_values(y, f"{where}: y{part}")
    if y.ndim == 2 and y.shape[1] == 1 and np.issubdtype(y.dtype, np.integer):
        object.__setattr__(samples, "y", y[:, 0])


def check_numbers(samples: Samples, name: str) -> None:
    """Refuses inputs that are not real numbers, empty, or beyond float32 as the model sees them.

    Raises:
        DataError: Naming what was found.
    """
    x = samples.x
    if x.dtype.kind not in "biuf":
        raise DataError(f"{name} has dtype {x.dtype}", "real numbers: bool, integers or floats")
    if x.ndim == 0 or x.size == 0:
        raise DataError(f"{name} is empty (shape {x.shape})", "at least one sample")
    if not (np.isfinite(samples.scale) and np.isfinite(samples.offset) and samples.scale != 0):
        raise DataError(
            f"{name}: scale is {samples.scale} and offset {samples.offset}", "finite numbers, and a scale other than 0"
        )
    check_values(x, name, samples.scale, samples.offset, whole=WHOLE)


def as_array(value: Any, name: str) -> np.ndarray:
    """Returns what a user gave as an array of real numbers.

    Raises:
        DataError: If it is none.
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        raise DataError(f"{name} is a {type(value).__name__} with rows of several shapes", "an array") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} has dtype {array.dtype}", "real numbers: bool, integers or floats")
    return array


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
