"""What a drop is measured against: the original's float32 file, unless an edge interpreter computes that file wrongly."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Optional

import numpy as np

from keras_xaic import edge, tflite
from keras_xaic.data import Array, Samples, arrays_of
from keras_xaic.errors import EdgeError, ExportError
from keras_xaic.files import write_atomic
from keras_xaic.tflite.flatbuffer import load
from keras_xaic.tflite.layer_outputs import SAMPLES, layer_outputs

if TYPE_CHECKING:
    from keras_xaic._keras import Model

ROUNDING = 0.01
"""Largest deviation that float rounding explains, of any output, as a share of the spread of all outputs."""


def deviation_in_percent(given: np.ndarray, expected: np.ndarray) -> Optional[float]:
    """Returns the mean squared difference in percent of the variance of what is expected; None of a constant if it changed."""
    expected = np.asarray(expected, np.float64)
    error, variance = float(np.mean(np.square(given.reshape(expected.shape) - expected))), float(expected.var())
    return 100.0 * error / variance if variance > 0 else None if error > 0 else 0.0


def largest_deviations(given: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Returns by how much each sample's outputs deviate at most: a share of the spread, infinite where one is not finite.

    The spread is the standard deviation of the expected values; where those are nearly constant, a twentieth of the largest.

    Args:
        given: (N, ...) what an interpreter gave.
        expected: (N, ...) what is right.
    """
    if given.size != expected.size:
        return np.full(len(expected), np.inf)
    expected = np.asarray(expected, np.float64).reshape(len(expected), -1)
    given = np.asarray(given, np.float64).reshape(expected.shape)
    spread = max(float(expected.std()), 0.05 * float(np.abs(expected).max(initial=0.0))) or 1.0
    found = np.abs(given - expected).max(axis=1, initial=0.0) / spread
    return np.where(np.isfinite(found), found, np.inf)


def faulty_original(
    model: Model, path: pathlib.Path, samples: Samples, expected: Array, given: Array, interpreter: str
) -> Optional[str]:
    """Returns what is wrong if the float32 file of the original does not compute what the Keras model does, else None.

    Args:
        model: The original as the file was converted from it (see `canonicalize`).
        path: Its float32 file.
        samples: What was computed.
        expected: (N, ...) outputs of the Keras model, `Parts` of several.
        given: (N, ...) outputs of the file.
        interpreter: Who ran it.
    """
    pairs = list(zip(arrays_of(given), arrays_of(expected)))
    if len(pairs) != len(arrays_of(given)) or len(pairs) != len(arrays_of(expected)):
        return f"The original's float32 .tflite has {len(arrays_of(given))} outputs, the model {len(arrays_of(expected))}."
    deviations = np.max([largest_deviations(*pair) for pair in pairs], axis=0)
    if not deviations.max(initial=0.0) > ROUNDING:
        return None
    worst = np.sort(np.argsort(-deviations, kind="stable")[:SAMPLES])
    layer = _first_faulty_layer(model, path, samples.feeds(worst), interpreter)
    where = "no single layer does" if layer is None else f"the first layer that does is {layer!r}"
    count = int((deviations > ROUNDING).sum())
    return (
        f"{interpreter} computes the original's float32 .tflite wrongly: outputs of {count:,} of {len(deviations):,} samples "
        f"deviate from the Keras model; {where}. The drop is measured against the Keras model. Do not deploy the float32 "
        f"original on {interpreter}; what the compressed file gives there was measured."
    )


def _first_faulty_layer(model: Model, path: pathlib.Path, inputs: list[np.ndarray], interpreter: str) -> Optional[str]:
    content, inner = path.read_bytes(), path.with_suffix(".layers.tflite")
    try:
        expected = layer_outputs(model, load(content), inputs)
        write_atomic(inner, tflite.slim(content))
        given = edge.run_layers(inner, inputs, interpreter=interpreter)
    except (EdgeError, ExportError):  # the finding stands without the layer's name
        return None
    finally:
        inner.unlink(missing_ok=True)
    for name, one in zip(expected, given):
        if len(given) == len(expected) and largest_deviations(one, expected[name]).max() > ROUNDING:
            return name.split(" ", 1)[1]
    return None
