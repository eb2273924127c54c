"""Ranges of values that the converter's calibration gets wrong, measured again: written over, or those of other values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Optional

import numpy as np

from keras_xaic._keras import tf
from keras_xaic.tflite.flatbuffer import Operator, constant, load, operators, pack, with_outputs

LONGER = 2.0
"""A measured range that is longer than the true one by this factor is that of other values."""
OUTSIDE = 0.05
"""So is one that this share of the true one is outside of."""
_ENDS = ("MAXIMUM", "MINIMUM", "REDUCE_MAX", "REDUCE_MIN", "SELECT", "SELECT_V2")
"""Operators whose inputs and results have one scale in integer files, while results may be of a smaller range."""
_COPYING = ("CONCATENATION", "EXPAND_DIMS", "PACK", "RESHAPE", "SQUEEZE", "TRANSPOSE")
"""Others that have one scale."""

Range = tuple[float, float]


def may_be_wrong(content: bytes) -> bool:
    """Whether values may have been measured after an operator wrote its result in their place, or be cut off.

    TensorFlow's calibration reads what an operator takes when that has run, and some run in place. Ranges are those of the
    result, too, then. That matters where a constant factor or term makes it much larger. And the converter gives what goes into
    a maximum the range of what comes out, whoever else reads it.

    Args:
        content: An int8 file.
    """
    model = load(content)
    found = list(operators(model))
    in_place = (one for one in found if one.kind in ("MUL", "ADD", "SUB", "DIV"))
    if any(constant(model, one.input(place)) is not None for one in in_place for place in (0, 1)):
        return True
    shared = _shared(found)
    return any(int(index) in shared for one in found if one.kind in _ENDS for index in one.record.inputs)


def with_true_ranges(calibrated: bytes, samples: Iterable[Sequence[np.ndarray]]) -> Optional[bytes]:
    """Returns a float32 file with the ranges that an int8 file is to be made with, or None where those in it are true.

    Args:
        calibrated: A float32 file with measured ranges.
        samples: Calibration data, an array with a batch of 1 per input for each.
    """
    model = load(calibrated)
    computed = sorted({int(index) for one in operators(model) for index in one.record.outputs})
    records = {index: model.subgraphs[0].tensors[index].quantization for index in computed}
    records = {index: one for index, one in records.items() if one is not None and one.min is not None and len(one.min) == 1}
    found = _measured(with_outputs(load(calibrated), computed), list(records), samples)
    _join(list(operators(model)), found)
    wrong = [
        index for index, true in found.items() if _is_wrong(float(records[index].min[0]), float(records[index].max[0]), *true)
    ]
    for index in wrong:
        records[index].min, records[index].max = (np.array([value], np.float32) for value in found[index])
    return pack(model) if wrong else None


def _measured(
    content: bytes, tensors: Sequence[int], samples: Iterable[Sequence[np.ndarray]]
) -> dict[int, tuple[float, float]]:
    interpreter = tf.lite.Interpreter(
        model_content=content,
        num_threads=1,
        experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    found = dict.fromkeys(tensors, (np.inf, -np.inf))
    for sample in samples:
        for detail, array in zip(interpreter.get_input_details(), sample):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        for index, (low, high) in found.items():
            values = interpreter.get_tensor(index)
            found[index] = min(low, float(values.min())), max(high, float(values.max()))
    return found


def _shared(found: Sequence[Operator]) -> set[int]:
    """Returns the tensors that several operators read, at once or as copies of other shapes."""
    read = Counter(int(index) for one in found for index in one.record.inputs)
    shared = {index for index, count in read.items() if count > 1}
    for one in found:
        if one.kind in _COPYING and int(one.record.inputs[0]) in shared:
            shared.add(int(one.record.outputs[0]))
    return shared


def _join(found: Sequence[Operator], ranges: dict[int, Range]) -> None:
    """Makes ranges of results as wide as those of what goes in where others read that, too, in place."""
    wide = _shared(found)
    for one in found:
        made, given = int(one.record.outputs[0]), [int(index) for index in one.record.inputs if int(index) in wide]
        if one.kind not in (*_ENDS, *_COPYING) or made not in ranges:
            continue
        ends: Any = [ranges[made], *(ranges[index] for index in given if index in ranges)]
        widest = min(low for low, _ in ends), max(high for _, high in ends)
        if widest != ranges[made]:
            wide.add(made)
        ranges[made] = widest


def _is_wrong(least: float, most: float, low: float, high: float) -> bool:
    extent = _extent(low, high)
    return _extent(least, most) > LONGER * extent > 0 or max(least - low, high - most) > OUTSIDE * extent


def _extent(low: float, high: float) -> float:
    """Returns the length of a range, with 0 in it as in files."""
    return max(float(high), 0.0) - min(float(low), 0.0)
