"""What users have becomes `Data`: arrays, dicts, .npz files, image folders and `tf.data` datasets."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_xaic.arguments import a_path, checked
from keras_xaic.data.checks import check_samples
from keras_xaic.data.images import load_directory
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
        path: An .npz with ``x_train``, ``y_train``, ``x_test``, ``y_test`` (the ``y_*`` and the test part may be absent),
            or a directory ``train/CLASS/*.png``, ``test/CLASS/*.png`` (or just ``CLASS/*.png``, used for training).
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
    if "x_train" not in arrays:
        keys = ", ".join(sorted(arrays)) or "none"
        raise DataError(f"{where} has no key x_train (its keys: {keys})", "the keys x_train, y_train, x_test, y_test")
    train = Samples(arrays["x_train"], arrays.get("y_train"), scale, offset)
    test = Samples(arrays["x_test"], arrays.get("y_test"), scale, offset) if "x_test" in arrays else None
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
        data: What there is: inputs (N, ...) of any numeric dtype, and labels or targets, if any, as in `Samples`.
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
        if "x_train" not in data:
            raise DataError(
                f"data has no key x_train (its keys: {', '.join(map(str, data)) or 'none'})", "x_train, y_train, x_test, y_test"
            )
        parts: list[Any] = [(data["x_train"], data.get("y_train"))]
        parts += [(data["x_test"], data.get("y_test"))] if "x_test" in data else []
    elif (
        isinstance(data, (tuple, list))
        and len(data) == 2
        and all(isinstance(p, (tuple, list)) or hasattr(p, "element_spec") for p in data)
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
        return Samples(np.asarray(x), None if y is None else np.asarray(y), scale, offset)
    except ValueError as error:
        raise DataError(f"data is not an array ({first_line(error)})", "arrays with one first axis of samples") from None


def _from_tf_data(dataset: Any, scale: float, offset: float) -> Samples:
    spec = dataset.element_spec
    parts = spec if isinstance(spec, (tuple, list)) else (spec,)
    if len(parts) > 2 or not all(hasattr(part, "shape") for part in parts):
        raise DataError(f"the tf.data dataset gives {spec}", "inputs, or (inputs, targets)")
    if int(dataset.cardinality()) == -1:
        raise DataError("the tf.data dataset never ends", "one pass over the samples", "Leave repeat() out, or use take(n)")
    elements = [element if isinstance(element, (tuple, list)) else (element,) for element in dataset]
    if not elements:
        raise DataError("the tf.data dataset is empty", "at least one sample")
    arrays = [[np.asarray(value) for value in values] for values in zip(*elements)]
    join = np.concatenate if _is_batched(parts, arrays) else np.stack
    return Samples(join(arrays[0]), join(arrays[1]) if len(arrays) > 1 else None, scale, offset)


def _is_batched(parts: Sequence[Any], arrays: Sequence[Sequence[np.ndarray]]) -> bool:
    """Whether elements of a dataset are batches: their first axis is free, or inputs and targets agree in it."""
    if parts[0].shape.rank is None or parts[0].shape.rank == 0 or parts[0].shape[0] is None:
        return parts[0].shape.rank != 0
    targets = arrays[1] if len(arrays) > 1 else []
    return len(targets) > 0 and all(y.ndim > 0 and len(x) == len(y) for x, y in zip(arrays[0], targets))
