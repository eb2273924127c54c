"""Labels as people write them: texts, yes and no, -1 and 1, classes from 1 on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Optional

import numpy as np

from keras_xaic.data.parts import Parts
from keras_xaic.data.samples import Data, Samples
from keras_xaic.errors import DataError, XaicWarning, choices

_NO_LABELS = "Without labels, put all images into one directory"


def with_numbers(data: Data) -> Data:
    """Returns the data with numbers in place of labels that are texts, True or False.

    Classes are those of the training part (else the test part), sorted, where the data does not name them.

    Raises:
        DataError: If a part has a label that is none of the classes.
    """
    named = next((part.y for _, part in data.parts() if part.y is not None and _is_text(part.y)), None)
    if named is None:
        data = replace(data, classes=written_names(data.classes, data.name))
        return data.changed(lambda name, part: replace(part, y=np.asarray(part.y, np.int64)) if _is_bool(part) else part)
    found = sorted({_text(one) for one in np.ravel(named)})
    if not data.classes and is_out_of_order(found):
        raise DataError(
            f"{data.name}: labels are whole numbers as texts, in alphabetical order {_some(found)}",
            "numbers, or names: texts are numbered in alphabetical order",
            "Give them as numbers: y.astype(int)",
        )
    known = written_names(data.classes or found, data.name)
    numbers = {name: number for number, name in enumerate(known)}

    def numbered(name: str, part: Samples) -> Samples:
        if part.y is None or not _is_text(part.y):
            return part
        labels = [_written(_text(one)) for one in part.y.reshape(len(part.y), -1)[:, 0]] if part.y.size == len(part.y) else []
        if not labels:
            raise DataError(f"{data.name}: y_{name} holds texts of shape {part.y.shape}", "one label per sample")
        for number, one in enumerate(labels):
            if one not in numbers:
                raise DataError(f"{data.name}: y_{name}[{number}] is {one!r}", choices(one, known))
        return replace(part, y=np.array([numbers[one] for one in labels], np.int64))

    return replace(data.changed(numbered), classes=known)


def written_names(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Returns names of classes as files hold them: one line each, words with one space between them, in UTF-8.

    >>> written_names(["ant  hill", "cat "], "data")
    ('ant hill', 'cat')

    Raises:
        DataError: If two become the same.
    """
    written = tuple(_written(one) for one in names)
    twice = [one for number, one in enumerate(names) if written[number] in written[:number]]
    if twice:
        other = names[written.index(_written(twice[0]))]
        found = f"{where} has the classes {other!r} and {twice[0]!r}, which files hold as {_written(other)!r}"
        raise DataError(found, "names that differ in more than spaces", "Rename one, or give both labels the same name")
    return written


def _written(name: str) -> str:
    """Returns a name as a line of a file: names of directories may hold bytes that are no text."""
    return " ".join(name.encode(errors="replace").decode().split())


def is_out_of_order(names: Sequence[str]) -> bool:
    """Whether names are whole numbers that stand in another order than numbers do.

    >>> is_out_of_order(["1", "10", "2"]), is_out_of_order(["1", "2", "3"]), is_out_of_order(["10", "2", "ant"])
    (True, False, False)
    """
    if not all(one.strip().isdecimal() for one in names):
        return False
    return sorted(names, key=int) != list(names)


def check_named(data: Data, outputs: Optional[int]) -> None:
    """Refuses classes that are not those of a model: their numbers are places in the alphabet, and one more moves others.

    Args:
        data: The data; without names of classes all is well.
        outputs: Number of the model's classes; None where its outputs are no classes of samples.

    Raises:
        DataError: Naming the classes.
    """
    if not data.classes or len(data.classes) == outputs:
        return
    found = f"{data.name} names {len(data.classes)} classes ({_some(data.classes)})"
    if outputs is None:
        raise DataError(f"{found}, the model's outputs are no classes of samples", "inputs alone, or targets", _NO_LABELS)
    raise DataError(
        f"{found}, the model tells {outputs} apart",
        "a name for each class of the model: they are numbered in alphabetical order",
        f"Give class numbers, or an empty directory for each class without images. {_NO_LABELS}",
    )


def without_lone_class(data: Data) -> Data:
    """Returns data whose only class is no class: its samples have no labels."""
    if len(data.classes) != 1:
        return data
    said = f"{data.name} has one class alone, {data.classes[0]!r}: its samples are taken as samples without labels."
    warnings.warn(said, XaicWarning, stacklevel=2)
    return replace(data.changed(lambda name, part: replace(part, y=None)), classes=())


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


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
