"""Labels as people write them: texts, yes and no, -1 and 1, classes from 1 on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_xaic.data.parts import Parts
from keras_xaic.data.samples import Data, Samples
from keras_xaic.errors import DataError, choices


def with_numbers(data: Data) -> Data:
    """Returns the data with numbers in place of labels that are texts, True or False.

    Classes are those of the training part (else the test part), sorted, where the data does not name them.

    Raises:
        DataError: If a part has a label that is none of the classes.
    """
    named = next((part.y for _, part in data.parts() if part.y is not None and _is_text(part.y)), None)
    if named is None:
        return data.changed(lambda name, part: replace(part, y=np.asarray(part.y, np.int64)) if _is_bool(part) else part)
    known = list(data.classes or sorted({_text(one) for one in np.ravel(named)}))
    numbers = {name: number for number, name in enumerate(known)}

    def numbered(name: str, part: Samples) -> Samples:
        if part.y is None or not _is_text(part.y):
            return part
        labels = [_text(one) for one in part.y.reshape(len(part.y), -1)[:, 0]] if part.y.size == len(part.y) else []
        if not labels:
            raise DataError(f"{data.name}: y_{name} holds texts of shape {part.y.shape}", "one label per sample")
        for number, one in enumerate(labels):
            if one not in numbers:
                raise DataError(f"{data.name}: y_{name}[{number}] is {one!r}", choices(one, known))
        return replace(part, y=np.array([numbers[one] for one in labels], np.int64))

    return replace(data.changed(numbered), classes=tuple(known))


def _is_text(y: Any) -> bool:
    if isinstance(y, Parts) or not y.ndim:  # no labels of samples: `checked_samples` says so
        return False
    if y.dtype.kind == "O":
        return all(isinstance(one, (str, bytes)) for one in y.ravel()) and y.size > 0
    return y.dtype.kind in "US"


def _text(one: object) -> str:
    """Returns a label as text: `tf.data` gives bytes."""
    return one.decode(errors="replace") if isinstance(one, bytes) else str(one)


def _is_bool(part: Samples) -> bool:
    return isinstance(part.y, np.ndarray) and part.y.dtype.kind == "b" and part.y.ndim == 1


def renamed(data: Data, classes: Sequence[str]) -> Data:
    """Returns data whose labels were names with the numbers that `classes` gives these names, such as a bundle remembers them.

    Names are compared as a bundle writes them, with single spaces.

    Raises:
        DataError: If there is a name that is none of them.
    """
    named, known = ([" ".join(one.split()) for one in some] for some in (data.classes, classes))
    if not classes or not data.classes or known == named:
        return data
    for one in named:
        if one not in known:
            raise DataError(f"{data.name} has the class {one!r}", choices(one, known))
    numbers = np.array([known.index(one) for one in named], np.int64)
    changed = data.changed(lambda name, part: part if part.y is None else replace(part, y=numbers[np.asarray(part.y)]))
    return replace(changed, classes=tuple(classes))
