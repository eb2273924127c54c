"""Inputs and targets as they are stored, and what a model sees of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from html import escape
from typing import Any, Callable, Optional

import numpy as np

from keras_xaic.arguments import checked, require, whole
from keras_xaic.data.parts import Array, Parts, array_of, arrays_of, in_order
from keras_xaic.errors import DataError
from keras_xaic.npz import LARGE, release


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

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self.base[self.index], dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: object) -> Any:
        return getattr(ufunc, method)(*(np.asarray(one) if isinstance(one, Rows) else one for one in inputs), **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not callable(getattr(np.ndarray, name, None)):
            raise AttributeError(name)
        return lambda *given, **options: getattr(np.asarray(self), name)(*given, **options)  # asking alone copies nothing


def _is_same(one: Any, other: Any) -> bool:
    """Whether arrays, or several of them, hold the same; other things are compared as they are."""
    if isinstance(one, Parts) and isinstance(other, Parts):
        return (
            one.names == other.names and len(one.arrays) == len(other.arrays) and all(map(_is_same, one.arrays, other.arrays))
        )
    if isinstance(one, (np.ndarray, Rows)) and isinstance(other, (np.ndarray, Rows)):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return one is other or (type(one) is type(other) and bool(one == other))


def _share(name: str, value: object) -> Any:
    return require(name, value, "a share of the samples, more than 0 and less than 1", lambda n: 0 < n < 1)


def _take(x: Any, index: Any) -> Any:
    """Returns rows of `x`: an array, or where a copy would be large, `Rows`; of several arrays, those of each."""
    if isinstance(x, Parts):
        return x.map(lambda one: _take(one, index))
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
        x: (N, ...) inputs in any numeric dtype; `Parts` for several inputs.
        y: (N,) integer labels, (N, classes) one-hot labels, (N, ...) regression targets, or None; `Parts` for several outputs.
        scale: The model sees ``x * scale + offset`` as float32.
        offset: See `scale`.
        task: What the model does with them, a `Task` or, with several outputs, `Tasks`, once that is decided (see
            `keras_xaic.tasks`).
        weight: (N,) how much each sample counts in training, as ``sample_weight`` of Keras; None: all alike.
    """

    x: Any
    y: Any = None
    scale: float = 1.0
    offset: float = 0.0
    task: Any = None
    weight: Optional[np.ndarray] = None

    def __post_init__(self) -> None:
        for name in ("x", "y", "weight"):
            value = getattr(self, name)
            usual = isinstance(value, (np.ndarray, Rows, Parts)) and not np.ma.isMaskedArray(value)
            if value is not None and not usual:
                object.__setattr__(self, name, array_of(value))

    def __len__(self) -> int:
        return len(self.x)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Samples):
            return NotImplemented
        return all(_is_same(getattr(self, one.name), getattr(other, one.name)) for one in fields(self))

    def __repr__(self) -> str:
        parts = [f"{name} {_shape(value)}" for name, value in (("x", self.x), ("y", self.y)) if value is not None]
        return f"<{len(self)} Samples: {', '.join(parts)}>"

    def inputs(self, index: object = slice(None)) -> Any:
        """Returns the model's inputs at `index`, float32, (n, ...); `Parts` for several inputs."""
        if isinstance(self.x, Parts):
            return Parts(self.feeds(index), self.x.names)
        return self._seen(self.x, index)

    def feeds(self, index: object = slice(None)) -> list[np.ndarray]:
        """Returns the same as a list with one array per input of the model."""
        return [self._seen(one, index) for one in arrays_of(self.x)]

    def _seen(self, array: Any, index: object) -> np.ndarray:
        x = np.asarray(array[index], dtype=np.float32)
        release(array)
        return x if self.scale == 1.0 and self.offset == 0.0 else x * np.float32(self.scale) + np.float32(self.offset)

    @property
    def labels(self) -> Optional[np.ndarray]:
        """Class numbers, int64 (N,), or None where the targets are not classes, or belong to several outputs."""
        if self.y is None or isinstance(self.y, Parts):
            return None
        if self.task is not None:
            made = self.task.truth(self.y, (len(self), self.task.outputs)) if self.task.classifies else None
            return None if made is None else np.asarray(made)
        if self.y.ndim == 1 and np.issubdtype(self.y.dtype, np.integer):
            return np.asarray(self.y, np.int64)
        if self.y.ndim == 2 and self.y.shape[1] > 1 and _is_one_hot(self.y):
            return np.asarray(self.y.argmax(axis=1))
        return None

    def take(self, index: Any) -> Samples:
        """Returns the samples at `index`; large inputs are not copied but become `Rows`."""
        y, weight = (None if one is None else one[index] for one in (self.y, self.weight))
        return replace(self, x=_take(self.x, index), y=y, weight=weight)

    def batches(self, size: int) -> Iterator[tuple[Array, Optional[Array]]]:
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
        test: Used for the final evaluation only; None where there is none.
        name: Where it came from, for messages and the report.
        validation: What epochs and rounds are chosen on; None takes a tenth of the training part.
        classes: Names of the classes, where labels were texts or directories.
        images: Whether they are read from files of images, so that shades of gray may be colours, too.
    """

    train: Samples
    test: Optional[Samples] = None
    name: str = "data"
    validation: Optional[Samples] = None
    classes: tuple[str, ...] = ()
    images: bool = False

    def __post_init__(self) -> None:
        for name, part in (("train", self.train), ("test", self.test), ("validation", self.validation)):
            if not isinstance(part, Samples) and (part is not None or name == "train"):
                raise DataError(f"{name} of Data is a {type(part).__name__}", "Samples(x, y)")
        object.__setattr__(self, "classes", () if self.classes is None else tuple(map(str, self.classes)))

    def _repr_html_(self) -> str:
        """What notebooks show: the parts with their shapes and types."""
        shapes = [(name, _shape(part.x), "" if part.y is None else _shape(part.y)) for name, part in self.parts()]
        rows = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in shapes]
        head = f"{self.name}, classes {', '.join(self.classes)}" if self.classes else self.name
        return f"<table><caption>{escape(head)}</caption><tr><th></th><th>x</th><th>y</th></tr>{''.join(rows)}</table>"

    def parts(self) -> Iterator[tuple[str, Samples]]:
        """Yields name and samples of each part that there is; in files, keys end with these names."""
        for name, part in (("train", self.train), ("test", self.test), ("val", self.validation)):
            if part is not None:
                yield name, part

    def changed(self, change: Callable[[str, Samples], Samples]) -> Data:
        """Returns the data whose parts are what `change` returns for each part's name and samples."""
        made = {"validation" if name == "val" else name: change(name, part) for name, part in self.parts()}
        return replace(self, **made)  # type: ignore[arg-type]

    @property
    def judging(self) -> Samples:
        """The samples that judge: the test part, or the training part where there is none."""
        return self.train if self.test is None else self.test

    @checked(count=whole(1), seed=whole(0))
    def calibration(self, count: int = 256, seed: int = 0) -> Samples:
        """Returns the first `count` training samples after a seeded shuffle."""
        return self.train.take(self.calibration_rows(count, seed))

    def calibration_rows(self, count: int = 256, seed: int = 0) -> np.ndarray:
        """Returns which training samples `calibration` gives, (n,)."""
        order = np.random.default_rng(seed).permutation(len(self.train))
        return np.sort(order[:count]) if count >= len(self.train) else order[:count]

    @checked(fraction=_share, most=whole(1), seed=whole(0))
    def split(self, fraction: float = 0.1, seed: int = 0, most: int = 5000) -> tuple[Samples, Samples]:
        """Returns ``(training, validation)``: choices are made on the second, a part of the training data if none is given.

        Raises:
            DataError: If there is one training sample only, and no validation data.
        """
        if self.validation is not None:
            return self.train, self.validation
        if len(self.train) < 2:
            raise DataError(
                f"{self.name}: x_train has 1 sample", "2 or more: some train, others choose the epoch", "Give x_val"
            )
        order = np.random.default_rng(seed + 1).permutation(len(self.train))
        held = max(1, min(most, round(len(self.train) * fraction)))
        return self.train.take(np.sort(order[held:])), self.train.take(np.sort(order[:held]))

    def ordered(self, inputs: Sequence[str], outputs: Sequence[str], also: Sequence[Sequence[str]] = ((), ())) -> Data:
        """Returns the data with its arrays in the order of a model's inputs and outputs; those with a task have it already.

        Args:
            inputs: Names of the model's inputs.
            outputs: Names of its outputs.
            also: Other names of inputs and of outputs that users may use.

        Raises:
            DataError: Naming the part that is missing, unknown, or too much.
        """

        def one(key: str, samples: Samples) -> Samples:
            if samples.task is not None:
                return samples
            x = in_order(samples.x, inputs, also[0], f"x_{key}", "input")
            y = None if samples.y is None else in_order(samples.y, outputs, also[1], f"y_{key}", "output")
            return samples if x is samples.x and y is samples.y else replace(samples, x=x, y=y)

        try:
            return self.changed(one)
        except DataError as error:
            raise DataError(f"{self.name}: {error.found}", error.expected, error.fix) from None


def _shape(value: Any) -> str:
    return value.described() if isinstance(value, Parts) else f"{tuple(value.shape)} {value.dtype}"


def _is_one_hot(y: np.ndarray) -> bool:
    return bool(np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=1) == 1))
