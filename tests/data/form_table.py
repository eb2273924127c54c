"""The table of the forms in which data may come: `python -m tests.data.form_table` prints it for docs/data.md."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from typing import Any, Callable


@dataclass(frozen=True)
class Form:
    """One form of data.

    Attributes:
        make: Makes it of inputs (N, N), labels and weights.
        gives: What is read from it beside inputs: ``labels``, ``weights``, ``validation``, ``test``.
        refused: Words of the message where it is not taken; empty where it is.
        needs: A package that it is made with.
    """

    make: Callable[[Any, Any, Any], Any]
    gives: tuple[str, ...] = ("labels",)
    refused: str = ""
    needs: str = ""


def _tf() -> Any:
    from keras_xaic._keras import tf

    return tf


def _slices(*arrays: Any) -> Any:
    return _tf().data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0])


def _generated(x: Any, y: Any, endless: bool = False) -> Any:
    tf = _tf()
    signature = (tf.TensorSpec(x.shape[1:], tf.float32), tf.TensorSpec((), tf.int64))
    return tf.data.Dataset.from_generator(
        lambda: itertools.cycle(zip(x, y)) if endless else zip(x, y), output_signature=signature
    )


def _ragged(x: Any, y: Any) -> Any:
    tf = _tf()
    return tf.data.Dataset.from_tensor_slices((tf.ragged.constant([row[: 1 + i] for i, row in enumerate(x.tolist())]), y))


def _sequence(x: Any, y: Any) -> Any:
    from keras_xaic._keras import keras

    class Batches(keras.utils.Sequence):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return x[3 * index : 3 * index + 3], y[3 * index : 3 * index + 3]

    return Batches()


def _flow(x: Any, y: Any) -> Any:
    from keras_xaic._keras import keras

    flow = keras.preprocessing.image.ImageDataGenerator().flow(x[:, :, None, None], y, batch_size=3, shuffle=False)

    class Flat(type(flow)):  # type: ignore[misc]
        def __getitem__(self, index: int) -> Any:
            images, labels = super().__getitem__(index)
            return images[:, :, 0, 0], labels

    flow.__class__ = Flat
    return flow


def _frame(x: Any, y: Any) -> Any:
    import pandas

    return pandas.DataFrame(x), pandas.Series(y)


def _mixed(x: Any, y: Any, text: bool = False) -> Any:
    import pandas

    frame = pandas.DataFrame(x).astype({1: "Float64"})
    return frame.assign(kind="round") if text else frame, pandas.Series(y, dtype="Int64")


FORMS: dict[str, Form] = {
    "`x`": Form(lambda x, y, w: x, ()),
    "`(x, y)`, arrays": Form(lambda x, y, w: (x, y)),
    "`(x, y)`, lists": Form(lambda x, y, w: (x.tolist(), y.tolist())),
    "`(x, y, weights)`": Form(lambda x, y, w: (x, y, w), ("labels", "weights")),
    "`(DataFrame, Series)` of pandas": Form(lambda x, y, w: _frame(x, y), needs="pandas"),
    "a DataFrame with columns of several types of numbers": Form(lambda x, y, w: _mixed(x, y), needs="pandas"),
    "a DataFrame with columns of text": Form(
        lambda x, y, w: _mixed(x, y, text=True), refused="'kind' of the table hold no numbers", needs="pandas"
    ),
    "`((x, y), (x_test, y_test))`": Form(lambda x, y, w: ((x, y), (x, y)), ("labels", "test")),
    '`{"x_train": ..., "y_train": ...}`': Form(lambda x, y, w: {"x_train": x, "y_train": y}),
    "the same with `x_val`, `y_val`": Form(
        lambda x, y, w: {"x_train": x, "y_train": y, "x_val": x, "y_val": y}, ("labels", "validation")
    ),
    "tf.data, samples": Form(lambda x, y, w: _slices(x, y)),
    "tf.data, batches": Form(lambda x, y, w: _slices(x, y).batch(3)),
    "tf.data, batches of one size (`drop_remainder`)": Form(lambda x, y, w: _slices(x, y).batch(2, drop_remainder=True)),
    "tf.data, inputs alone": Form(lambda x, y, w: _slices(x), ()),
    "tf.data, inputs alone, in batches": Form(lambda x, y, w: _slices(x).batch(4), ()),
    "tf.data, inputs as their own targets": Form(lambda x, y, w: _slices(x, x).map(lambda a, b: (a, b[0])), ("values",)),
    "tf.data, batches taken apart (`unbatch`)": Form(lambda x, y, w: _slices(x, y).batch(3).unbatch()),
    "tf.data, shuffled, cached, prefetched": Form(
        lambda x, y, w: _slices(x, y).cache().shuffle(8, seed=1).batch(3).prefetch(1)
    ),
    "tf.data, `(x, y, weights)`": Form(lambda x, y, w: _slices(x, y, w).batch(3), ("labels", "weights")),
    "tf.data, a dictionary of one input": Form(lambda x, y, w: _slices({"image": x}, y).batch(3)),
    "tf.data of unknown length": Form(lambda x, y, w: _generated(x, y)),
    "tf.data without an end (`repeat`)": Form(lambda x, y, w: _slices(x, y).repeat(), refused="never ends"),
    "tf.data without an end behind a filter": Form(
        lambda x, y, w: _slices(x, y).repeat().filter(lambda x, y: True).shuffle(4).batch(2), refused="never ends"
    ),
    "tf.data without an end behind a filter, with a take": Form(
        lambda x, y, w: _slices(x, y).repeat().filter(lambda x, y: True).take(len(x)).filter(lambda x, y: True)
    ),
    "tf.data of unknown length without an end": Form(
        lambda x, y, w: _generated(x, y, endless=True), refused="does not say how long it is"
    ),
    "tf.data, ragged": Form(lambda x, y, w: _ragged(x, y), refused="ragged"),
    "tf.data, empty": Form(lambda x, y, w: _slices(x, y).take(0), refused="empty"),
    "`keras.utils.Sequence`": Form(lambda x, y, w: _sequence(x, y)),
    "`ImageDataGenerator.flow`": Form(lambda x, y, w: _flow(x, y), needs="scipy"),
    "a generator": Form(lambda x, y, w: ((a, b) for a, b in zip(x, y)), refused="does not say where it ends"),
    "a set": Form(lambda x, y, w: {1.0, 2.0}, refused="arrays with one first axis"),
}
"""What users have -> how it is read."""


def table() -> str:
    """Returns the table as Markdown."""
    rows = ["| form | | what is read |", "|---|---|---|"]
    for name, form in FORMS.items():
        read = ", ".join(("inputs", *form.gives)) if not form.refused else f'one line: "... {form.refused} ..."'
        rows.append(f"| {name} | {'refused' if form.refused else 'works'} | {read} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
