"""Values beyond what the codes of a file hold: data that are louder than those that it was calibrated with."""

from __future__ import annotations

from typing import Optional

import numpy as np

from keras_xaic.data import Parts, Samples, arrays_of
from keras_xaic.edge.inspect_file import FileInfo, TensorInfo, read_file
from keras_xaic.files import PathLike

FAR, MANY = 0.1, 0.05
"""A value is far beyond a range by more than this share of its length; from this share of the samples on that is said."""
READ = 2000
"""Most samples that are looked at."""
_BITS = {"int8": 8, "uint8": 8, "int16": 16}


def said_of_cut(path: PathLike, samples: Samples) -> Optional[str]:
    """Returns a warning where many samples have values far beyond what an input of a file holds; else None.

    Args:
        path: A .tflite file.
        samples: What it is judged by.
    """
    info, chosen = read_file(path), slice(None, None, -(-len(samples) // READ))
    for place, (values, array) in enumerate(zip(samples.feeds(chosen), arrays_of(samples.x))):
        found = None if array.dtype.kind == "b" or place >= len(info.inputs) else _range(info, place)
        if found is None or found[0].size not in (1, values.shape[-1]):
            continue
        low, high = found
        beyond = np.maximum(low - values, values - high) > FAR * (high - low)
        share = float(np.mean(beyond.reshape(len(values), -1).any(axis=1)))
        if share < MANY:
            continue
        which = f"input {samples.x.named(place)!r}" if isinstance(samples.x, Parts) else "its input"
        return (
            f"{share:.0%} of the samples have values far beyond those that the file was calibrated with: {which} holds "
            f"{low.min():.4g} to {high.max():.4g}, they go from {values.min():.4g} to {values.max():.4g}. What is beyond is "
            "cut off. Calibrate with training data like these, or choose float32 activations."
        )
    return None


def _range(info: FileInfo, place: int) -> Optional[tuple[np.ndarray, np.ndarray]]:
    """Returns the least and the largest value that the codes of an input hold, one or one per column; None for no codes."""
    graph, tensor, tensors = info.main, info.main.inputs[place], info.main.tensors
    steps: list[tuple[str, np.ndarray]] = []
    while tensors[tensor].dtype == "float32":
        readers = [one for one in graph.operators if tensor in one.inputs]
        if len(readers) != 1 or readers[0].name not in ("QUANTIZE", "SUB", "MUL"):
            return None
        if readers[0].name != "QUANTIZE":  # a change of units in front
            number = info.data(tensors[readers[0].inputs[1]])
            if readers[0].inputs[0] != tensor or not number.size:
                return None
            steps.append((readers[0].name, number.view("<f4").astype(np.float64)))
        tensor = readers[0].outputs[0]
    ends = _ends(tensors[tensor])
    for name, number in reversed(steps):
        ends = None if ends is None else np.sort(ends + number if name == "SUB" else ends / number, axis=0)
    return None if ends is None else (ends[0], ends[1])


def _ends(tensor: TensorInfo) -> Optional[np.ndarray]:
    """Returns the values of the least and the largest code, (2, 1)."""
    if tensor.dtype not in _BITS or len(tensor.scales) != 1 or len(tensor.zero_points) != 1:
        return None
    largest = np.iinfo(tensor.dtype)
    codes = np.array([[largest.min], [largest.max]], np.float64)
    return np.asarray((codes - float(tensor.zero_points[0])) * float(tensor.scales[0]))
