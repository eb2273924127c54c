"""Data that goes in: arrays, .npz files, image folders and `tf.data` datasets, checked once and here."""

from __future__ import annotations

import pathlib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional, Union

import numpy as np

from keras_xaic.errors import DataError
from keras_xaic.files import PathLike

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp"}


@dataclass(frozen=True)
class Samples:
    """Inputs, with or without targets, kept as stored and turned into what the model expects batch by batch.

    Attributes:
        x: (N, ...) inputs in any numeric dtype.
        y: (N,) integer labels, (N, classes) one-hot labels, (N, ...) regression targets, or None.
        scale: The model sees ``x * scale + offset`` as float32.
        offset: See `scale`.
    """

    x: np.ndarray
    y: Optional[np.ndarray] = None
    scale: float = 1.0
    offset: float = 0.0

    def __len__(self) -> int:
        return len(self.x)

    def inputs(self, index: Any = slice(None)) -> np.ndarray:
        """Returns the model's inputs at `index`, float32, (n, ...)."""
        x = np.asarray(self.x[index], dtype=np.float32)
        return x if self.scale == 1.0 and self.offset == 0.0 else x * np.float32(self.scale) + np.float32(self.offset)

    @property
    def labels(self) -> Optional[np.ndarray]:
        """Class numbers, int64 (N,), or None where the targets are not classes."""
        if self.y is None:
            return None
        if self.y.ndim == 1 and np.issubdtype(self.y.dtype, np.integer):
            return self.y.astype(np.int64)
        if self.y.ndim == 2 and self.y.shape[1] > 1 and _is_one_hot(self.y):
            return self.y.argmax(axis=1)
        return None

    def take(self, index: Any) -> Samples:
        """Returns the samples at `index`."""
        return replace(self, x=self.x[index], y=None if self.y is None else self.y[index])

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, Optional[np.ndarray]]]:
        """Yields ``(inputs, targets)`` in order, `size` samples at a time."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield self.inputs(part), None if self.y is None else self.y[part]


@dataclass(frozen=True)
class Data:
    """Training and test samples.

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
        """Returns ``(training, held back)``: the held-back part of the training data is what choices are made on."""
        order = np.random.default_rng(seed + 1).permutation(len(self.train))
        held = max(1, min(most, round(len(self.train) * fraction)))
        return self.train.take(np.sort(order[held:])), self.train.take(np.sort(order[:held]))


def load_data(path: PathLike, scale: float = 1.0, offset: float = 0.0) -> Data:
    """Loads a data set.

    Args:
        path: An .npz with ``x_train``, ``y_train``, ``x_test``, ``y_test`` (the ``y_*`` and the test part may be absent),
            or a directory ``train/CLASS/*.png``, ``test/CLASS/*.png`` (or just ``CLASS/*.png``, used for training).
        scale: The model sees ``x * scale + offset``.
        offset: See `scale`.

    Raises:
        DataError: If there is nothing usable at `path`.
    """
    where = pathlib.Path(path)
    if where.is_dir():
        return _load_directory(where, scale, offset)
    if not where.exists():
        raise DataError(f"data file {where} does not exist", "an .npz file or a directory of images per class")
    try:
        with np.load(where, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files} if hasattr(archive, "files") else None
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(
            f"{where} cannot be read as .npz ({_first_line(error)})", "an .npz of plain arrays, written by numpy.savez"
        ) from None
    if arrays is None:
        raise DataError(f"{where} holds a single array", "an .npz with the keys x_train, y_train, x_test, y_test")
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

    Raises:
        DataError: If `data` is none of these or holds unusable arrays.
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, Samples):
        return Data(data)
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


def check_data(
    data: Data, input_shape: Sequence[Optional[int]], output_shape: Sequence[Optional[int]], classifier: bool
) -> None:
    """Checks that data fits a model, before any work.

    Args:
        data: The data.
        input_shape: (batch, ...) that the model takes; None where free.
        output_shape: (batch, ...) that the model gives.
        classifier: Whether integer targets are class numbers of the last output axis.

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
        labels = samples.labels
        if not classifier or samples.y is None:
            continue
        classes = output_shape[-1]
        if labels is None and not _fits(samples.y.shape[1:], output_shape[1:]):
            raise DataError(
                f"{data.name}: y_{part} has shape {samples.y.shape} and dtype {samples.y.dtype}",
                f"integer labels (N,), one-hot labels (N, {classes}) or targets (N, {', '.join(map(str, output_shape[1:]))})",
            )
        if labels is not None and classes is not None and len(labels) and (labels.min() < 0 or labels.max() >= classes):
            wrong = int(np.argmax((labels < 0) | (labels >= classes)))
            raise DataError(
                f"{data.name}: y_{part}[{wrong}] is class {labels[wrong]}",
                f"classes 0 to {classes - 1}: the model has {classes} outputs",
            )


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
    from PIL import Image, UnidentifiedImageError

    unknown = sorted({p.name for p in root.iterdir() if p.is_dir()} - set(classes))
    if unknown:
        raise DataError(
            f"{root} has the class directory {unknown[0]!r}", f"the classes of the training images: {', '.join(classes)}"
        )
    images, labels, size = [], [], None
    for label, name in enumerate(classes):
        files = sorted(p for p in (root / name).glob("*") if p.suffix.lower() in IMAGE_ENDINGS)
        for file in files:
            try:
                pixels = np.asarray(Image.open(file))
            except (UnidentifiedImageError, OSError) as error:
                raise DataError(f"{file} is not a readable image ({_first_line(error)})") from None
            pixels = pixels[..., None] if pixels.ndim == 2 else pixels
            size = size or pixels.shape
            if pixels.shape != size:
                raise DataError(
                    f"{file} has the shape {pixels.shape}", f"{size}, as {root / classes[0]}", "Resize the images first"
                )
            images.append(pixels)
            labels.append(label)
    if not images:
        raise DataError(f"{root} holds no images", f"files ending in {', '.join(sorted(IMAGE_ENDINGS))}")
    return Samples(np.stack(images), np.asarray(labels, np.int64), scale, offset)


def _check_samples(samples: Samples, part: str, where: Union[str, pathlib.Path]) -> None:
    x, y = samples.x, samples.y
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool):
        raise DataError(f"{where}: x_{part} has dtype {x.dtype}", "numbers")
    if x.ndim == 0 or x.size == 0:
        raise DataError(f"{where}: x_{part} is empty (shape {x.shape})", "at least one sample")
    if not _all_finite(x):
        raise DataError(f"{where}: x_{part} contains NaN or infinity", "finite values", "Clean the data first")
    if y is None:
        return
    if not (np.issubdtype(y.dtype, np.number) or y.dtype == bool):
        raise DataError(f"{where}: y_{part} has dtype {y.dtype}", "integer labels, one-hot labels or numeric targets")
    if y.ndim == 0 or len(y) != len(x):
        raise DataError(
            f"{where}: y_{part} has {0 if y.ndim == 0 else len(y)} entries, x_{part} has {len(x)}", "one target per sample"
        )
    if not _all_finite(y):
        raise DataError(f"{where}: y_{part} contains NaN or infinity", "finite values", "Clean the data first")
    if y.ndim == 2 and y.shape[1] == 1 and np.issubdtype(y.dtype, np.integer):
        object.__setattr__(samples, "y", y[:, 0])  # Keras' own datasets store labels as (N, 1)


def _all_finite(array: np.ndarray) -> bool:
    if not np.issubdtype(array.dtype, np.inexact):
        return True
    step = max(1, 10_000_000 // max(1, array[:1].size))  # no second array of the data's size
    return all(bool(np.isfinite(array[i : i + step]).all()) for i in range(0, len(array), step))


def _is_one_hot(y: np.ndarray) -> bool:
    return bool(np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=1) == 1))


def _fits(shape: Sequence[int], expected: Sequence[Optional[int]]) -> bool:
    return len(shape) == len(expected) and all(e is None or s == e for s, e in zip(shape, expected))


def _show(shape: Sequence[Optional[int]]) -> str:
    return "(" + ", ".join("any" if d is None else str(d) for d in shape) + ("," if len(shape) == 1 else "") + ")"


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
