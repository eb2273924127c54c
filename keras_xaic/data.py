"""Data that goes in: arrays, .npz files, image folders and `tf.data` datasets, checked once and here."""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional, Union

import numpy as np

from keras_xaic.errors import DataError
from keras_xaic.files import PathLike
from keras_xaic.metrics import Task
from keras_xaic.npz import LARGE, Npz, map_values, nameless_file, release

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp"}
MOST_PIXELS = 40_000_000
"""Of one image."""
WHOLE = 2**24
"""Largest whole number up to which float32 holds all of them."""


class Rows(np.lib.mixins.NDArrayOperatorsMixin):
    """Some rows of a large array, in some order, without a copy of them; used like the array of these rows.

    Args:
        base: The array.
        index: Numbers of the rows, (N,).
    """

    def __init__(self, base: np.ndarray, index: np.ndarray) -> None:
        self.base, self.index = base, index
        self.dtype, self.ndim, self.shape = base.dtype, base.ndim, (len(index), *base.shape[1:])
        self.size = len(index) * base[:1].size
        self.nbytes = self.size * base.dtype.itemsize

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            rows, others = self.index[key[0]], key[1:]
            return self.base[(rows, *others)] if np.ndim(rows) == 0 else self.base[rows][(slice(None), *others)]
        return self.base[self.index[key]]

    def __array__(self, dtype: Any = None) -> np.ndarray:
        return np.asarray(self.base[self.index], dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return getattr(ufunc, method)(*(np.asarray(one) if isinstance(one, Rows) else one for one in inputs), **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)


def _take(x: Any, index: Any) -> Any:
    """Returns rows of `x`: an array, or where a copy would be large, `Rows`."""
    if isinstance(x, np.ndarray) and isinstance(index, slice):
        return x[index]
    numbers = np.arange(len(x))[index]
    if numbers.ndim != 1 or len(numbers) * x[:1].nbytes <= LARGE:
        return x[index]
    return Rows(x.base, x.index[index]) if isinstance(x, Rows) else Rows(x, numbers)


@dataclass(frozen=True)
class Samples:
    """Inputs, with or without targets, kept as stored and turned into what the model expects batch by batch.

    >>> images = Samples(np.full((10, 8, 8, 1), 255, np.uint8), np.arange(10), scale=1 / 255)
    >>> len(images), images.inputs(slice(2)).shape, float(images.inputs().max())
    (10, (2, 8, 8, 1), 1.0)

    Attributes:
        x: (N, ...) inputs in any numeric dtype.
        y: (N,) integer labels, (N, classes) one-hot labels, (N, ...) regression targets, or None.
        scale: The model sees ``x * scale + offset`` as float32.
        offset: See `scale`.
        task: What the model does with them, once that is decided (see `keras_xaic.tasks`).
    """

    x: np.ndarray
    y: Optional[np.ndarray] = None
    scale: float = 1.0
    offset: float = 0.0
    task: Optional[Task] = None

    def __len__(self) -> int:
        return len(self.x)

    def inputs(self, index: Any = slice(None)) -> np.ndarray:
        """Returns the model's inputs at `index`, float32, (n, ...)."""
        x = np.asarray(self.x[index], dtype=np.float32)
        release(self.x)
        return x if self.scale == 1.0 and self.offset == 0.0 else x * np.float32(self.scale) + np.float32(self.offset)

    @property
    def labels(self) -> Optional[np.ndarray]:
        """Class numbers, int64 (N,), or None where the targets are not classes."""
        if self.y is None:
            return None
        if self.task is not None:
            return self.task.truth(self.y, (len(self), self.task.outputs)) if self.task.classifies else None
        if self.y.ndim == 1 and np.issubdtype(self.y.dtype, np.integer):
            return self.y.astype(np.int64)
        if self.y.ndim == 2 and self.y.shape[1] > 1 and _is_one_hot(self.y):
            return self.y.argmax(axis=1)
        return None

    def take(self, index: Any) -> Samples:
        """Returns the samples at `index`; large inputs are not copied but become `Rows`."""
        return replace(self, x=_take(self.x, index), y=None if self.y is None else self.y[index])

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, Optional[np.ndarray]]]:
        """Yields ``(inputs, targets)`` in order, `size` samples at a time."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield self.inputs(part), None if self.y is None else self.y[part]


@dataclass(frozen=True)
class Data:
    """Training and test samples.

    >>> data = Data(Samples(np.zeros((100, 4), np.float32), np.arange(100) % 3))
    >>> len(data.calibration(16)), [len(part) for part in data.split(0.2)]
    (16, [80, 20])

    Attributes:
        train: What everything is chosen and trained on.
        test: What judges and never chooses; None where there is none.
        name: Where it came from, for messages and the report.
    """

    train: Samples
    test: Optional[Samples] = None
    name: str = "data"

    def calibration(self, count: int = 256, seed: int = 0) -> Samples:
        """Returns the first `count` training samples after a seeded shuffle."""
        order = np.random.default_rng(seed).permutation(len(self.train))
        return self.train.take(np.sort(order[:count]) if count >= len(self.train) else order[:count])

    def split(self, fraction: float = 0.1, seed: int = 0, most: int = 5000) -> tuple[Samples, Samples]:
        """Returns ``(training, validation)``: two parts of the training data; choices are made on the second."""
        order = np.random.default_rng(seed + 1).permutation(len(self.train))
        held = max(1, min(most, round(len(self.train) * fraction)))
        return self.train.take(np.sort(order[held:])), self.train.take(np.sort(order[:held]))


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
        return _load_directory(where, scale, offset)
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
            _check_samples(samples, part, where)
    return Data(train, test, where.name)


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
        _check_samples(one, name, "data")
        samples.append(one)
    return Data(samples[0], samples[1] if len(samples) > 1 else None)


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
    _check_samples(samples, part, where)
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
        raise DataError(f"data is not an array ({_first_line(error)})", "arrays with one first axis of samples") from None


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


def _load_directory(where: pathlib.Path, scale: float, offset: float) -> Data:
    train_root = where / "train" if (where / "train").is_dir() else where
    test_root = where / "test" if train_root != where and (where / "test").is_dir() else None
    classes = sorted(p.name for p in train_root.iterdir() if p.is_dir())
    if not classes:
        raise DataError(f"{train_root} has no class directories", "train/CLASS/*.png and test/CLASS/*.png, or an .npz file")
    train = _load_images(train_root, classes, scale, offset)
    test = _load_images(test_root, classes, scale, offset) if test_root else None
    return Data(train, test, where.name)


def _load_images(root: pathlib.Path, classes: list[str], scale: float, offset: float) -> Samples:
    unknown = sorted({p.name for p in root.iterdir() if p.is_dir()} - set(classes))
    if unknown:
        raise DataError(
            f"{root} has the class directory {unknown[0]!r}", f"the classes of the training images: {', '.join(classes)}"
        )
    files = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((root / name).glob("*"))
        if file.suffix.lower() in IMAGE_ENDINGS
    ]
    if not files:
        raise DataError(f"{root} holds no images", f"files ending in {', '.join(sorted(IMAGE_ENDINGS))}")
    first = _read_image(files[0][0])
    images = _room((len(files), *first.shape), first.dtype, str(root))
    for number, (file, _) in enumerate(files):
        images[number] = _read_image(file, first, files[0][0])
    return Samples(images, np.asarray([label for _, label in files], np.int64), scale, offset)


def _read_image(file: pathlib.Path, like: Optional[np.ndarray] = None, other: Optional[pathlib.Path] = None) -> np.ndarray:
    """Returns an image as (height, width, channels); what it claims to be is checked before it is unpacked."""
    from PIL import Image

    try:
        if not file.is_file():
            raise ValueError("it is not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns of what is refused here
            with Image.open(file, formats=("PNG", "JPEG", "BMP")) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise DataError(f"{file} has {width} x {height} pixels", f"at most {MOST_PIXELS:,}", "Resize the images")
                wanted = None if like is None else (like.shape[1], like.shape[0])
                if wanted is not None and wanted != (width, height):
                    raise DataError(
                        f"{file} has {width} x {height} pixels", f"those of {other}: {wanted}", "Resize the images first"
                    )
                plain = {"P": "RGB", "1": "L"}.get(image.mode)  # numbers of colours, and bits, are no values
                pixels = np.asarray(image.convert(plain) if plain else image)
    except DataError:
        raise
    except Exception as error:  # whatever damaged content leads the decoders to
        raise DataError(f"{file} is not a readable image ({_first_line(error)})") from None
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if like is not None and (pixels.shape, pixels.dtype) != (like.shape, like.dtype):
        found = f"{file} has the shape {pixels.shape} of {pixels.dtype}"
        raise DataError(found, f"{like.shape} of {like.dtype}, as {other}", "Convert it first")
    return pixels


def _room(shape: tuple[int, ...], dtype: np.dtype, what: str) -> np.ndarray:
    """Returns an array to fill: in memory, or, where it is large, in a file without a name."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size <= LARGE:
        return np.empty(shape, dtype)
    with nameless_file(size, what) as room:
        room.truncate(size)
        return map_values(room, dtype, shape)


def _check_samples(samples: Samples, part: str, where: Union[str, pathlib.Path]) -> None:
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
        object.__setattr__(samples, "y", y[:, 0])  # Keras' own datasets store labels as (N, 1)


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
    most = float(np.finfo(np.float32).max)
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


def _is_one_hot(y: np.ndarray) -> bool:
    return bool(np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=1) == 1))


def _fits(shape: Sequence[int], expected: Sequence[Optional[int]]) -> bool:
    return len(shape) == len(expected) and all(e is None or s == e for s, e in zip(shape, expected))


def _show(shape: Sequence[Optional[int]]) -> str:
    return "(" + ", ".join("any" if d is None else str(d) for d in shape) + ("," if len(shape) == 1 else "") + ")"


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
