"""Samples as Keras users have them: arrays, lists, pandas, `tf.data` datasets, Keras sequences; with or without weights."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Optional

import numpy as np

from keras_xaic.data.parts import Parts, array_of, arrays_of
from keras_xaic.data.samples import Samples
from keras_xaic.errors import DataError, XaicError, XaicWarning, first_line
from keras_xaic.files import machine_error

MOST_ELEMENTS, MOST_BYTES = 200_000, 1 << 30
"""What is read of a dataset that does not say how long it is."""
PATIENCE = 3.0
"""Seconds of reading one after which that is said."""
_LENGTH = "one that says how many elements it has"
_TAKE = "Give dataset.take(n), or apply tf.data.experimental.assert_cardinality(n)"


def as_samples(part: Any, scale: float, offset: float) -> Samples:
    """Returns samples of whatever form.

    Raises:
        DataError: If it has none of the forms, or never ends.
    """
    if isinstance(part, Samples):
        return part
    if hasattr(part, "__next__") and not _is_sequence(part):
        found = f"data is a {type(part).__name__}, which does not say where it ends"
        raise DataError(found, "arrays, a tf.data dataset or a keras.utils.Sequence", "Collect what it gives first")
    if hasattr(part, "element_spec"):
        x, y, weight = _of_dataset(part)
    elif _is_sequence(part):
        elements = _told(part, _batches(part))
        x, y, weight = _joined(elements, batched=True)
    else:
        x, y, weight = _of_arrays(part)
    return Samples(x, y, scale, offset, weight=weight)


def _is_sequence(part: object) -> bool:
    """Whether it is a `keras.utils.Sequence`, such as `ImageDataGenerator.flow` returns."""
    return hasattr(part, "on_epoch_end") and hasattr(part, "__getitem__") and hasattr(part, "__len__")


def _batches(part: Any) -> Iterator[Any]:
    """Yields the batches of a sequence; an error of its own length is one of its elements, too (see `_told`)."""
    for number in range(len(part)):
        yield part[number]


def _of_arrays(part: Any) -> tuple[Any, Any, Any]:
    several = isinstance(part, tuple) and len(part) in (2, 3) and not (len(part) == 3 and _rank(part[0]) == 0)
    several = several or (isinstance(part, list) and len(part) == 2 and not np.isscalar(part[0]))
    x, y, weight = (
        None if one is None else array_of(one) for one in ((*part, None, None)[:3] if several else (part, None, None))
    )
    if x is None:
        raise DataError("data is None", "arrays with one first axis of samples")
    if isinstance(x, Parts) and not x.names and isinstance(y, np.ndarray) and len(x.arrays) == len(y) != len(x):
        x = np.stack(x.arrays)  # a list of samples
    if isinstance(y, Parts) and not y.names and len(y.arrays) == len(x) != len(y):
        y = np.stack(y.arrays)
    return x, y, weight


def _rank(value: Any) -> int:
    return 1 if isinstance(value, (Mapping, Parts, list, tuple)) or (hasattr(value, "__len__") and np.ndim(value)) else 0


def _of_dataset(dataset: Any) -> tuple[Any, Any, Any]:
    spec = dataset.element_spec
    parts = [_flat(part) for part in spec] if isinstance(spec, (tuple, list)) else [_flat(spec)]
    specs = [one for part in parts for one in arrays_of(part)]
    kinds = [type(one).__name__ for one in specs]
    if len(parts) > 3 or not all(hasattr(one, "shape") for one in specs):
        raise DataError(f"the tf.data dataset gives {spec}", "inputs, (inputs, targets) or (inputs, targets, weights)")
    for kind in ("Ragged", "Sparse"):
        if any(kind in one for one in kinds):
            raise DataError(
                f"the tf.data dataset gives {kind.lower()} tensors", "dense ones", "Use to_tensor(), or padded_batch()"
            )
    size = int(dataset.cardinality())
    if size == -1 or (size == -2 and _repeats_for_ever(dataset)):
        raise DataError("the tf.data dataset never ends", "one pass over the samples", "Leave repeat() out, or use take(n)")
    return _joined(_told(dataset, dataset), batched=_is_batched(dataset, specs[0]), bounded=size == -2)


def _told(source: Any, elements: Iterable[Any]) -> Iterator[Any]:
    """Yields the elements; an error of the user's own code that makes them is one line.

    Raises:
        DataError: Naming the element.
    """
    number, iterator = 0, iter(elements)
    while True:
        try:
            element = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            if isinstance(error, XaicError) or machine_error(error) is not None:
                raise
            kind = "tf.data dataset" if hasattr(source, "element_spec") else type(source).__name__
            found = f"the {kind} failed at element {number} ({type(error).__name__}: {first_line(error)})"
            raise DataError(found, "one pass over the samples", "Mend what makes them") from error
        yield element
        number += 1


def _flat(value: object) -> Any:
    """Returns one tensor (or its specification) as it is, a dictionary or tuple of them as `Parts`."""
    if isinstance(value, Mapping):
        return Parts(list(value.values()), [str(name) for name in value])
    return Parts(value) if isinstance(value, (tuple, list)) else value


def _joined(elements: Iterable[Any], batched: Optional[bool], bounded: bool = False) -> tuple[Any, Any, Any]:
    """Returns inputs, targets and weights of all elements; `bounded` reads no more than is sensible."""
    rows: list[list[np.ndarray]] = []
    form: list[Any] = []
    size, patience = 0, time.monotonic() + PATIENCE
    for element in elements:
        given = element if isinstance(element, (tuple, list)) else (element,)
        form = [_flat(one) for one in given if one is not None]
        rows.append([np.asarray(one) for part in form for one in arrays_of(part)])
        size += sum(one.nbytes for one in rows[-1])
        if bounded and (size > MOST_BYTES or len(rows) > MOST_ELEMENTS):
            found = f"the tf.data dataset does not say how long it is, and gives more than {len(rows) - 1:,} elements"
            raise DataError(found, _LENGTH, _TAKE)
        if bounded and time.monotonic() > patience:
            patience = math.inf
            said = f"The tf.data dataset does not say how long it is; {len(rows):,} elements were read so far."
            warnings.warn(f"{said} {_TAKE} if it never ends.", XaicWarning, stacklevel=2)
        if len(rows[-1]) != len(rows[0]) or not 1 <= len(form) <= 3:
            raise DataError(f"an element has {len(form)} parts", "inputs, (inputs, targets) or (inputs, targets, weights)")
    if not rows:
        raise DataError("the dataset is empty", "at least one sample")
    if batched is None:
        batched = _look_like_batches(list(zip(*rows)))
    several = [(len(part.arrays), part.names) if isinstance(part, Parts) else None for part in form]
    del element, given, form  # the last one would keep all others in memory
    try:
        arrays = iter(_emptied(rows, batched))
    except ValueError as error:
        raise DataError(f"samples have several shapes ({first_line(error)})", "samples of one shape") from None
    made = [next(arrays) if one is None else Parts([next(arrays) for _ in range(one[0])], one[1]) for one in several]
    x, y, weight = (*made, None, None)[:3]
    return x, y, weight


def _emptied(rows: list[list[np.ndarray]], batched: bool) -> list[np.ndarray]:
    """Returns one array of each column of batches, or of samples; rows are let go of one by one: nothing is held twice.

    Raises:
        ValueError: If their shapes differ.
    """
    made = []
    for column in zip(*rows):
        shapes = {one.shape[1:] if batched and one.ndim else one.shape for one in column}
        if len(shapes) > 1 or (batched and not column[0].ndim):
            raise ValueError(" beside ".join(map(str, sorted(shapes)[:2])))
        count = sum(map(len, column)) if batched else len(column)
        made.append(np.empty((count, *shapes.pop()), np.result_type(*{one.dtype for one in column})))
    del column
    ends = [len(array) for array in made]
    while rows:  # from the end: the system takes back first what was asked for last
        for number, piece in enumerate(rows.pop()):
            start = ends[number] - (len(piece) if batched else 1)
            made[number][start : ends[number]] = piece
            ends[number] = start
    return made


def _repeats_for_ever(dataset: Any) -> bool:
    """Whether a dataset of unknown length reads one that never ends, through filters, say, and without a take."""
    while hasattr(dataset, "_inputs") and "take" not in type(dataset).__name__.lower():
        before = dataset._inputs()
        if len(before) != 1:
            return False
        dataset = before[0]
        if int(dataset.cardinality()) == -1:
            return True
    return False


def _is_batched(dataset: Any, spec: Any) -> Optional[bool]:
    """Whether elements of a dataset are batches, from how it was made; None where that does not say it."""
    if spec.shape.rank == 0:
        return False
    while True:
        name = type(dataset).__name__.lower()
        if "unbatch" in name or "tensorslice" in name or "range" in name:
            return False
        if "batch" in name:
            return True
        before = dataset._inputs() if hasattr(dataset, "_inputs") else []
        if len(before) != 1 or "flatmap" in name or "interleave" in name:
            return True if spec.shape.rank is not None and spec.shape[0] is None else None
        dataset = before[0]


def _look_like_batches(columns: Any) -> bool:
    """Whether inputs and targets agree in their first axis."""
    if columns[0][0].ndim == 0 or len(columns) == 1:
        return False
    return all(y.ndim > 0 and len(x) == len(y) for column in columns[1:] for x, y in zip(columns[0], column))
