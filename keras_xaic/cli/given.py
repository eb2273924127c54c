"""What a command was given, looked at before TensorFlow is loaded: wrong paths and names are refused at once."""

from __future__ import annotations

import functools
import pathlib
import warnings
from collections.abc import Sequence
from typing import Optional, Union

from keras_xaic.bundle import Bundle
from keras_xaic.data import load_data
from keras_xaic.edge import structure
from keras_xaic.hdf5 import check_model_path
from keras_xaic.ownership import check_continued, check_directory

SMALL = 4_000_000
"""Bytes of data that are read twice: here to say what is wrong with them, and later to use them."""


def check_given(
    model: pathlib.Path,
    data: Optional[pathlib.Path] = None,
    *,
    out: Optional[pathlib.Path] = None,
    kind: str = "",
    overwrite: bool = False,
    others: Sequence[Union[str, pathlib.Path, None]] = (),
    bundles: bool = False,
) -> None:
    """Makes sure that the output may be written and that inputs are there; only then their content is looked at.

    Args:
        model: A Keras model.
        data: Data; None where there are none.
        out: The directory to write; None where it is no directory, or looked at elsewhere.
        kind: What it will be (see `keras_xaic.ownership.output`).
        overwrite: Whether one that is there may be replaced.
        others: Further files that are read; None among them is none.
        bundles: Whether the model may be a bundle, too.

    Raises:
        XaicError: The one that the command would raise later.
    """
    if out is not None:
        check = check_continued if kind == "search" else functools.partial(check_directory, overwrite=overwrite)
        check(out, kind, inputs=[model, data, *others])
    if not (bundles and Bundle(model).keras_model.is_file()):
        check_model_path(model)
    if data is not None:
        check_data(data)


def check_given_file(file: pathlib.Path, data: Optional[pathlib.Path], out: pathlib.Path, overwrite: bool) -> None:
    """Makes sure that a .tflite file and data are there and whole, and that the output may be written.

    Raises:
        XaicError: The one that `xaic slim` would raise later.
    """
    check_directory(out, "bundle", overwrite=overwrite, inputs=[file, data])
    if not file.is_dir():
        structure.check_given_file(file)
    if data is not None:
        check_data(data)


def check_data(data: pathlib.Path) -> None:
    """Makes sure that data are there, and of small files that they can be used.

    Raises:
        DataError: If not.
    """
    if not data.is_dir() and not (data.is_file() and data.stat().st_size > SMALL):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when they are used
            load_data(data)
