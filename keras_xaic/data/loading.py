"""What users have becomes `Data`: arrays, dicts, .npz files, image folders and `tf.data` datasets."""

from __future__ import annotations

import os
import pathlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_xaic.arguments import a_path, checked, two_sizes
from keras_xaic.data.checks import checked_samples
from keras_xaic.data.classes import with_numbers
from keras_xaic.data.forms import as_samples
from keras_xaic.data.images import load_directory
from keras_xaic.data.parts import as_parts
from keras_xaic.data.samples import Data, Samples
from keras_xaic.errors import DataError, XaicWarning
from keras_xaic.files import PathLike, not_there
from keras_xaic.npz import Npz

MOST_KEYS = 20
"""That messages name."""
_MEANT = re.compile("(x|y|weights?|sample_?weights?)([_-].*)?$", re.IGNORECASE)
"""Keys that are meant for inputs, targets or weights."""


@checked(path=a_path, image_size=two_sizes)
def load_data(path: PathLike, scale: float = 1.0, offset: float = 0.0, image_size: Any = None) -> Data:
    """Loads a data set.

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "tiny.npz"
    >>> np.savez(path, x_train=np.zeros((6, 4), np.float32), y_train=np.arange(6) % 3)
    >>> load_data(path).train.x.shape
    (6, 4)

    Args:
        path: An .npz with ``x_train``, ``y_train``, ``x_val``, ``y_val``, ``x_test``, ``y_test`` (all but ``x_train`` may be
            absent; of several inputs or outputs one key per part, ``x_train_NAME``, ``y_train_NAME``, ...), or a directory
            ``train/CLASS/*.png``, ``test/CLASS/*.png`` (or just ``CLASS/*.png``, used for training).
        scale: The model sees ``x * scale + offset``.
        offset: See `scale`.
        image_size: Height and width that images of directories are resized to, ``(96, 96)`` or ``"96x96"``; None: all must have
            the same.

    Returns:
        The samples, in the dtype in which they are stored; `test` is None where there is no test part.

    Raises:
        DataError: If there is nothing usable at `path`.
    """
    where = pathlib.Path(path)
    if where.is_dir():
        return load_directory(where, scale, offset, image_size)
    if not where.exists():
        raise DataError(f"data file {not_there(where)}", "an .npz file or a directory of images per class")
    expected = "an .npz with the keys x_train, y_train, x_test, y_test, written by numpy.savez"
    arrays = Npz(where, expected)
    if "model.weights.h5" in list(arrays):  # a zip archive, too
        raise DataError(f"data file {where} is a Keras model", expected)
    return checked_data(replace(_of_keys(arrays, str(where), scale, offset), name=where.name))


def checked_data(data: Data) -> Data:
    """Returns the data with numbers for labels, once inputs and targets are what a model can take.

    Raises:
        DataError: Naming the key.
    """
    return with_numbers(data).changed(lambda part, samples: checked_samples(samples, part, data.name))


@checked(image_size=two_sizes)
def as_data(data: Any, scale: float = 1.0, offset: float = 0.0, image_size: Any = None) -> Data:
    """Accepts what Keras users have: arrays, lists and pandas, `tf.data` datasets, `keras.utils.Sequence`, paths, `Data`.

    One of these alone is training data: ``x``, ``(x, y)`` or ``(x, y, weights)``, or a dataset that gives such tuples. Two of
    them in a pair are training and test data, ``((x_train, y_train), (x_test, y_test))``. A dictionary has the keys
    ``x_train``, ``y_train``, ``x_val``, ``y_val``, ``x_test``, ``y_test``. Labels may be texts; their names are kept.

    >>> x, y = np.zeros((6, 4), np.float32), np.arange(6) % 3
    >>> made = as_data(((x, y), (x[:2], y[:2])))
    >>> len(made.train), len(made.test)
    (6, 2)

    Args:
        data: What there is: inputs (N, ...) of any numeric dtype, and labels or targets, if any, as in `Samples`. Of several
            inputs or outputs dictionaries by name, or lists in the model's order, as Keras takes them.
        scale: The model sees ``x * scale + offset``. `Data` and `Samples` may say that themselves; then both have to agree.
        offset: See `scale`.
        image_size: Height and width that images of directories are resized to; None: all must have the same.

    Returns:
        The same samples, checked; arrays are not copied.

    Raises:
        DataError: If `data` is none of these or holds unusable arrays.
    """
    if isinstance(data, Samples):
        data = Data(data)
    if isinstance(data, Data):
        return checked_data(data.changed(lambda name, part: _scaled(part, name, data.name, scale, offset)))
    if isinstance(data, (str, os.PathLike)):
        return load_data(data, scale, offset, image_size)
    if isinstance(data, Mapping):
        return checked_data(_of_keys(data, "data", scale, offset))
    parts = {"train": data}
    if isinstance(data, (tuple, list)) and len(data) == 2 and all(_is_part(one) for one in data) and not _are_parts(data):
        parts = dict(zip(("train", "test"), data))
    found: dict[str, Any] = {name: as_samples(part, scale, offset) for name, part in parts.items()}
    return checked_data(Data(**found))


def _is_part(one: object) -> bool:
    """Whether it can be training or test data, not inputs or labels alone."""
    if isinstance(one, list):
        return len(one) == 2 and all(np.ndim(inner) > 0 for inner in one if inner is not None)
    return isinstance(one, (tuple, Samples)) or hasattr(one, "element_spec") or hasattr(one, "on_epoch_end")


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
    return samples


def _of_keys(arrays: Mapping[str, Any], where: str, scale: float, offset: float) -> Data:
    """Returns what lies under ``x_train``, ``x_val`` and ``x_test``, or ``x_train_NAME`` for parts."""
    names = sorted(map(str, arrays))
    keys = ", ".join(names[:MOST_KEYS]) + (f" and {len(names) - MOST_KEYS} more" if len(names) > MOST_KEYS else "") or "none"
    read: set[Any] = set()

    def found(key: str) -> Any:
        if key in arrays:
            read.add(key)
            return arrays[key]
        parts = {str(name)[len(key) + 1 :]: name for name in arrays if str(name).startswith(f"{key}_")}
        read.update(parts.values())
        return as_parts({name: arrays[stored] for name, stored in parts.items()}) if parts else None

    x = {part: found(f"x_{part}") for part in ("train", "test", "val")}
    if x["train"] is None:
        raise DataError(
            f"{where} has no key x_train (its keys: {keys})",
            "the keys x_train, y_train, x_test, y_test; for several inputs or outputs x_train_NAME, y_train_NAME",
        )
    train, test, validation = (
        None if given is None else Samples(given, found(f"y_{part}"), scale, offset, weight=found(f"weight_{part}"))
        for part, given in x.items()
    )
    assert train is not None
    unread = [name for name in names if name not in read and _MEANT.match(name)]
    if unread:
        said = f"{where}: {', '.join(unread[:MOST_KEYS])} {'is' if len(unread) == 1 else 'are'} not read. "
        said += "Keys are x_train, y_train and weight_train, and with an x of their own the same with _val and _test."
        warnings.warn(said, XaicWarning, stacklevel=3)
    return Data(train, test, where, validation)


def _are_parts(data: Sequence[Any]) -> bool:
    """Whether two lists are inputs and outputs of one model, not training and test samples: all arrays have as many rows."""
    arrays = [one for part in data if isinstance(part, list) for one in part]
    rows = {len(one) for one in arrays if np.ndim(one) > 0}
    return len(rows) == 1 and all(isinstance(part, list) for part in data) and all(np.ndim(one) > 0 for one in arrays)
