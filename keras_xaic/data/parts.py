"""Several inputs or outputs as one thing: arrays with the same rows, in the model's order.

A model with one input or one output has plain arrays everywhere. With several, every place that holds such an array -
`Samples.x`, `Samples.y`, what a model or a file gives - holds `Parts`: its rows are those of all arrays together. Parts come
from users in any order, under names; `in_order` brings them into the model's order, by name. From then on place i belongs to
input (or output) i of the model, whatever programs on the way would sort by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union

import numpy as np

from keras_xaic.errors import DataError, XaicError, first_line
from keras_xaic.files import machine_error


class Parts:
    """Arrays of several inputs or outputs, one row per sample in each.

    >>> parts = Parts([np.zeros((6, 2)), np.arange(6)], ["table", "ids"])
    >>> len(parts), parts[2:4].arrays[1].tolist()
    (6, [2, 3])

    Attributes:
        arrays: One (N, ...) array per part; whatever numpy calls an array.
        names: Their names; empty where only their order is known.
    """

    __iter__ = None  # rows and parts are both meant too easily

    def __init__(self, arrays: Sequence[Any], names: Sequence[str] = ()) -> None:
        self.arrays, self.names = tuple(arrays), tuple(str(name) for name in names)
        if self.names and len(self.names) != len(self.arrays):
            raise DataError(f"{len(self.arrays)} arrays have {len(self.names)} names", "one name per array")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.arrays[0]) if self.arrays and np.ndim(self.arrays[0]) else 0

    def __getitem__(self, index: object) -> Parts:
        """Returns the rows at `index` of every array."""
        return self.map(lambda array: array[index])

    def __array__(self, dtype: object = None, copy: Any = None) -> np.ndarray:
        raise TypeError(f"{len(self.arrays)} arrays of unlike kinds are no array")

    def __repr__(self) -> str:
        return f"Parts({self.described()})"

    def map(self, function: Callable[[Any], Any]) -> Parts:
        """Returns what `function` makes of every array, under the same names."""
        return Parts([function(array) for array in self.arrays], self.names)

    def named(self, number: int) -> str:
        """Returns the name of a part, or its number where it has none."""
        return self.names[number] if self.names else str(number)

    def described(self) -> str:
        """Returns names and shapes, for messages."""
        return ", ".join(f"{self.named(i)} {tuple(np.shape(array))}" for i, array in enumerate(self.arrays))


Array = Union[np.ndarray, Parts]
"""What one input or output has, or several together."""


def arrays_of(value: object) -> list[Any]:
    """Returns the arrays of `Parts`, or the one array that is given, as a list.

    >>> [len(arrays_of(one)) for one in (np.zeros(3), Parts([np.zeros(3), np.ones(3)]))]
    [1, 2]
    """
    return list(value.arrays) if isinstance(value, Parts) else [value]


def joined(arrays: Sequence[Any], names: Sequence[str] = ()) -> Any:
    """Returns one array as it is, several as `Parts`."""
    return arrays[0] if len(arrays) == 1 else Parts(arrays, names)


def concatenated(batches: Sequence[Any]) -> Any:
    """Returns batches of arrays, or of `Parts`, one after the other."""
    if not isinstance(batches[0], Parts):
        return np.concatenate(batches)
    columns = zip(*(batch.arrays for batch in batches))
    return Parts([np.concatenate(column) for column in columns], batches[0].names)


def as_parts(value: object) -> Any:
    """Returns a mapping or a list of arrays as `Parts`; everything else as it is."""
    if isinstance(value, Mapping):
        return Parts([_plain(one) for one in value.values()], [str(name) for name in value])
    if isinstance(value, (list, tuple)) and value and all(np.ndim(one) > 0 and hasattr(one, "shape") for one in value):
        return Parts([_plain(one) for one in value])
    return value


def array_of(value: object) -> Any:
    """Returns an array, or `Parts` where a mapping or a list of arrays is given.

    Raises:
        DataError: If it is no array.
    """
    if isinstance(value, (set, frozenset)):
        raise DataError(f"data holds a {type(value).__name__}", "arrays with one first axis of samples")
    try:
        value = as_parts(value)
        return value if isinstance(value, Parts) else whole_array(value)
    except Exception as error:  # arrays of other libraries raise what they like
        if isinstance(error, XaicError) or machine_error(error) is not None:
            raise
        raise DataError(f"data is not an array ({first_line(error)})", "arrays with one first axis of samples") from None


def whole_array(value: object) -> np.ndarray:
    """Returns an array of a value none of whose entries is masked: NumPy would give what lies under the mask."""
    if np.ma.is_masked(value):
        raise DataError("data holds masked values", "values for all entries", "Fill them, or leave those samples out")
    names = [str(one) for one in getattr(getattr(value, "dtype", None), "categories", ())]
    if names != sorted(names) and not all(name.lstrip("-").isdecimal() for name in names):
        found = f"data holds categories in the order {', '.join(map(repr, names[:4]))}"
        fix = "Give their codes: y.cat.codes of a Series, y.codes of a Categorical"
        raise DataError(found, "names in alphabetical order, which is how they are numbered", fix)
    return _of_columns(value) if hasattr(value, "columns") and hasattr(value, "dtypes") else np.asarray(value)


def _of_columns(frame: Any) -> np.ndarray:
    """Returns a table of pandas as an array; columns of several types of numbers become float64, missing values NaN.

    Raises:
        DataError: Naming the columns that hold none.
    """
    others = [str(name) for name, dtype in zip(frame.columns, frame.dtypes) if getattr(dtype, "kind", "O") not in "biuf"]
    if len(others) == len(frame.columns):  # such as labels: what holds them says what they must be
        return np.asarray(frame)
    if others:
        found = f"columns {', '.join(map(repr, others[:5]))} of the table hold no numbers"
        raise DataError(found, "numbers or bool in every column", "Encode them, with pandas.get_dummies for example")
    array = np.asarray(frame)
    return frame.to_numpy(dtype=np.float64, na_value=np.nan) if array.dtype == object else array


def _plain(value: object) -> Any:
    if np.ma.isMaskedArray(value):
        return whole_array(value)
    return value if hasattr(value, "dtype") and hasattr(value, "__getitem__") else np.asarray(value)


def in_order(value: object, names: Sequence[str], also: Sequence[str], key: str, what: str) -> Any:
    """Returns arrays in the order of a model's inputs or outputs: one array where there is one, else `Parts`.

    Args:
        value: An array, or `Parts`: by name in any order, or in the model's order where they have no names.
        names: The model's names.
        also: Names that users may know them by instead, e.g. keys of a dictionary that the model takes; may be empty.
        key: ``x_train``, ``y_test``, ..., for messages.
        what: ``input`` or ``output``, for messages.

    Raises:
        DataError: Naming the key that is missing, unknown, or too much.
    """
    wanted = f"{key}_NAME for each {what} of the model: {', '.join(f'{key}_{name}' for name in names)}"
    if len(names) == 1:
        wanted = f"{key} (or {key}_{names[0]}): the model has one {what}"
    if not isinstance(value, Parts):
        if len(names) == 1:
            return value
        raise DataError(f"{key} is one array, the model has {len(names)} {what}s", wanted)
    if not value.names:
        if len(names) == 1 and len(value.arrays) > 1 and len({np.shape(one) for one in value.arrays}) == 1:
            return np.stack(value.arrays)  # a list of samples
        if len(value.arrays) != len(names):
            raise DataError(f"{key} has {len(value.arrays)} arrays, the model has {len(names)} {what}(s)", wanted)
        return joined(value.arrays, names)
    known = names if set(value.names) & set(names) or not also else also
    missing = [name for name in known if name not in value.names]
    unknown = [name for name in value.names if name not in known]
    if missing or unknown:
        said = f"{key}_{missing[0]} is missing" if missing else f"{key}_{unknown[0]} belongs to no {what} of the model"
        raise DataError(f"{said} (there is {', '.join(f'{key}_{name}' for name in value.names)})", wanted)
    return joined([value.arrays[value.names.index(name)] for name in known], names)
