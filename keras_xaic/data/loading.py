"""What users have becomes `Data`: arrays, dicts, .npz files, image folders and `tf.data` datasets."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional

import numpy as np

from keras_xaic.arguments import a_path, checked
from keras_xaic.data.checks import check_samples
from keras_xaic.data.images import load_directory
from keras_xaic.data.parts import Parts, arrays_of, as_parts
from keras_xaic.data.samples import Data, Samples
from keras_xaic.errors import DataError, first_line
from keras_xaic.files import PathLike
from keras_xaic.npz import Npz


@checked(path=a_path)
def load_data(path: PathLike, scale: float = 1.0, offset: float = 0.0) -> Data:
    """Loads a data set.

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "tiny.npz"
    >>> np.savez(path, x_train=np.zeros((6, 4), np.float32), y_train=np.arange(6) % 3)
    >>> load_data(path).train.x.shape
    (6, 4)

    Args:
        path: An .npz with ``x_train``, ``y_train``, ``x_test``, ``y_test`` (the ``y_*`` and the test part may be absent; of
            several inputs or outputs one key per part, ``x_train_NAME``, ``y_train_NAME``, ...), or a directory
            ``train/CLASS/*.png``, ``test/CLASS/*.png`` (or just ``CLASS/*.png``, used for training).
        scale: The model sees ``x * scale + offset``.
        offset: See `scale`.

    Returns:
        The samples, in the dtype in which they are stored; `test` is None where there is no test part.

    Raises:
        DataError: If there is nothing usable at `path`.
    """
    where = pathlib.Path(path)
    if where.is_dir():
        return load_directory(where, scale, offset)
    if not where.exists():
        raise DataError(f"data file {where} does not exist", "an .npz file or a directory of images per class")
    arrays = Npz(where, "an .npz with the keys x_train, y_train, x_test, y_test, written by numpy.savez")
    train, test = _of_keys(arrays, str(where), scale, offset)
    for part, samples in (("train", train), ("test", test)):
        if samples is not None:
            check_samples(samples, part, where)
    return Data(train, test, where.name)


@checked()
def as_data(data: Any, scale: float = 1.0, offset: float = 0.0) -> Data:
    """Accepts what users have: `Data`, a path, ``(x, y)``, ``((x_train, y_train), (x_test, y_test))`` or `tf.data` datasets.

    >>> x, y = np.zeros((6, 4), np.float32), np.arange(6) % 3
    >>> made = as_data(((x, y), (x[:2], y[:2])))
    >>> len(made.train), len(made.test)
    (6, 2)

    Args:
        data: What there is: inputs (N, ...) of any numeric dtype, and labels or targets, if any, as in `Samples`. Of several
            inputs or outputs dictionaries by name, or lists in the model's order, as Keras takes them.
        scale: The model sees ``x * scale + offset``. `Data` and `Samples` may say that themselves; then both have to agree.
        offset: See `scale`.

    Returns:
        The same samples, checked; arrays are not copied.

    Raises:
        DataError: If `data` is none of these or holds unusable arrays.
    """
    if isinstance(data, Samples):
        data = Data(data)
    if isinstance(data, Data):
        train = _scaled(data.train, "train", data.name, scale, offset)
        return replace(data, train=train, test=data.test and _scaled(data.test, "test", data.name, scale, offset))
    if isinstance(data, (str, pathlib.Path)):
        return load_data(data, scale, offset)
    if isinstance(data, dict):
        parts: list[Any] = [one for one in _of_keys(data, "data", scale, offset) if one is not None]
    elif (
        isinstance(data, (tuple, list))
        and len(data) == 2
        and all(isinstance(p, (tuple, list)) or hasattr(p, "element_spec") for p in data)
        and not _are_parts(data)
    ):
        parts = list(data)
    else:
        parts = [data]
    samples = []
    for name, part in zip(("train", "test"), parts):
        one = _as_samples(part, scale, offset)
        check_samples(one, name, "data")
        samples.append(one)
    return Data(samples[0], samples[1] if len(samples) > 1 else None)


def _scaled(samples: Samples, part: str, where: str, scale: float, offset: float) -> Samples:
    """Returns samples that say how the model sees them: as they do themselves, or as given from outside."""
    own, given = (samples.scale, samples.offset), (scale, offset)
    if own == (1.0, 0.0) or given == own:
        samples = replace(samples, scale=scale, offset=offset)
    elif given != (1.0, 0.0):
        raise DataError(
            f"{where}: {part} is scaled by x * {own[0]:g} + {own[1]:g}, but x * {scale:g} + {offset:g} is asked for",
            "one of both",
        )
    check_samples(samples, part, where)
    return samples


def _as_samples(part: Any, scale: float, offset: float) -> Samples:
    if isinstance(part, Samples):
        return part
    if hasattr(part, "element_spec"):
        return _from_tf_data(part, scale, offset)
    x, y = part if isinstance(part, (tuple, list)) and len(part) == 2 else (part, None)
    try:
        x, y = _array(x), _maybe(y)
        if isinstance(x, Parts) and not x.names and isinstance(y, np.ndarray) and len(x.arrays) == len(y) != len(x):
            x = np.stack(x.arrays)  # a list of samples
        if isinstance(y, Parts) and not y.names and len(y.arrays) == len(x) != len(y):
            y = np.stack(y.arrays)
        return Samples(x, y, scale, offset)
    except ValueError as error:
        raise DataError(f"data is not an array ({first_line(error)})", "arrays with one first axis of samples") from None


def _of_keys(arrays: Mapping[str, Any], where: str, scale: float, offset: float) -> tuple[Samples, Optional[Samples]]:
    """Returns the training and test samples that lie under ``x_train``, or ``x_train_NAME`` for parts."""
    keys = ", ".join(sorted(map(str, arrays))) or "none"

    def found(key: str) -> Any:
        if key in arrays:
            return arrays[key]
        parts = {str(name)[len(key) + 1 :]: name for name in arrays if str(name).startswith(f"{key}_")}
        return as_parts({name: arrays[stored] for name, stored in parts.items()}) if parts else None

    x = {part: found(f"x_{part}") for part in ("train", "test")}
    if x["train"] is None:
        raise DataError(
            f"{where} has no key x_train (its keys: {keys})",
            "the keys x_train, y_train, x_test, y_test; for several inputs or outputs x_train_NAME, y_train_NAME ...",
        )
    train, test = (
        None if x[part] is None else Samples(_array(x[part]), _maybe(found(f"y_{part}")), scale, offset)
        for part in ("train", "test")
    )
    assert train is not None
    return train, test


def _maybe(value: Any) -> Any:
    return None if value is None else _array(value)


def _array(value: Any) -> Any:
    """Returns an array, or `Parts` where a mapping or a list of arrays is given."""
    value = as_parts(value)
    return value if isinstance(value, Parts) else np.asarray(value)


def _are_parts(data: Sequence[Any]) -> bool:
    """Whether two lists are inputs and outputs of one model, not training and test samples: all arrays have as many rows."""
    arrays = [one for part in data if isinstance(part, list) for one in part]
    rows = {len(one) for one in arrays if np.ndim(one) > 0}
    return len(rows) == 1 and all(isinstance(part, list) for part in data) and all(np.ndim(one) > 0 for one in arrays)


def _from_tf_data(dataset: Any, scale: float, offset: float) -> Samples:
    spec = dataset.element_spec
    parts = [_flat(part) for part in spec] if isinstance(spec, (tuple, list)) else [_flat(spec)]
    specs = [one for part in parts for one in arrays_of(part)]
    if len(parts) > 2 or not all(hasattr(one, "shape") for one in specs):
        raise DataError(f"the tf.data dataset gives {spec}", "inputs, or (inputs, targets)")
    if int(dataset.cardinality()) == -1:
        raise DataError("the tf.data dataset never ends", "one pass over the samples", "Leave repeat() out, or use take(n)")
    elements = [element if isinstance(element, (tuple, list)) else (element,) for element in dataset]
    if not elements:
        raise DataError("the tf.data dataset is empty", "at least one sample")
    columns = [[arrays_of(_flat(value)) for value in values] for values in zip(*elements)]
    flat = [[np.asarray(one) for one in column] for values in columns for column in zip(*values)]
    join = np.concatenate if _is_batched(specs, flat) else np.stack
    arrays = iter([join(column) for column in flat])
    made = [part.map(lambda _: next(arrays)) if isinstance(part, Parts) else next(arrays) for part in parts]
    return Samples(made[0], made[1] if len(made) > 1 else None, scale, offset)


def _flat(value: Any) -> Any:
    """Returns one tensor (or its specification) as it is, a dictionary or tuple of them as `Parts`."""
    if isinstance(value, Mapping):
        return Parts(list(value.values()), [str(name) for name in value])
    return Parts(value) if isinstance(value, (tuple, list)) else value


def _is_batched(specs: Sequence[Any], arrays: Sequence[Sequence[np.ndarray]]) -> bool:
    """Whether elements of a dataset are batches: their first axis is free, or all tensors agree in it."""
    if specs[0].shape.rank is None or specs[0].shape.rank == 0 or specs[0].shape[0] is None:
        return bool(specs[0].shape.rank != 0)
    return len(arrays) > 1 and all(y.ndim > 0 and len(x) == len(y) for column in arrays[1:] for x, y in zip(arrays[0], column))
