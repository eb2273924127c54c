"""Data that goes in: arrays, .npz files, image folders and `tf.data` datasets, checked once and here.

Several inputs or outputs are `Parts` (see `keras_xaic.data.parts`), one input or output is an array.
"""

from __future__ import annotations

from keras_xaic.data.checks import as_array, check_inputs, check_numbers, check_values, real_numbers
from keras_xaic.data.classes import renamed, without_lone_class
from keras_xaic.data.images import with_channels
from keras_xaic.data.loading import as_data, load_data
from keras_xaic.data.parts import Array, Parts, arrays_of, concatenated, joined
from keras_xaic.data.samples import Data, Rows, Samples

__all__ = [
    "Array",
    "Data",
    "Parts",
    "Rows",
    "Samples",
    "arrays_of",
    "as_array",
    "as_data",
    "check_inputs",
    "check_numbers",
    "check_values",
    "concatenated",
    "joined",
    "load_data",
    "real_numbers",
    "renamed",
    "with_channels",
    "without_lone_class",
]
