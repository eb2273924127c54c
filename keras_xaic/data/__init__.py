"""Data that goes in: arrays, .npz files, image folders and `tf.data` datasets, checked once and here."""

from __future__ import annotations

from keras_xaic.data.checks import as_array, check_inputs, check_numbers, check_values
from keras_xaic.data.loading import as_data, load_data
from keras_xaic.data.samples import Data, Rows, Samples

__all__ = [
    "Data",
    "Rows",
    "Samples",
    "as_array",
    "as_data",
    "check_inputs",
    "check_numbers",
    "check_values",
    "load_data",
]
