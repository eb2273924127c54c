"""ReLU6 operators that TensorFlow Lite Micro computes wrongly, written as ReLU where that is the same.

An int8 RELU6 of its own (one that is not fused into a convolution, say behind a transposed convolution or a concatenation) is
clamped by TensorFlow Lite Micro without being brought from the input's steps to the output's: it runs, and its outputs are
wrong by a hundred codes. RELU is brought there. Where the output's largest code stands for at most 6, saturation clamps
exactly like RELU6 does, on every interpreter.
"""

from __future__ import annotations

import copy

import numpy as np

from keras_xaic.errors import ExportError
from keras_xaic.tflite.flatbuffer import BuiltinOperator, ModelT, Operator, TensorType, operators

_HIGHEST_CODE = 127


def write_clamps_as_relu(model: ModelT) -> None:
    """Turns every RELU6 that TensorFlow Lite Micro would get wrong into the equal RELU, where there is one."""
    for operator in operators(model):
        if _is_wrong_on_micro(operator) and _saturates_at_six(operator):
            code = copy.copy(model.operatorCodes[operator.record.opcodeIndex])
            code.builtinCode = code.deprecatedBuiltinCode = BuiltinOperator.RELU
            model.operatorCodes.append(code)
            operator.record.opcodeIndex = len(model.operatorCodes) - 1


def require_exact_clamps(model: ModelT) -> None:
    """Refuses files with a RELU6 that TensorFlow Lite Micro would get wrong.

    Raises:
        ExportError: Naming the operator.
    """
    for operator in operators(model):
        if _is_wrong_on_micro(operator):
            raise ExportError(
                f"operator {operator.index} is a ReLU6 of its own, which TensorFlow Lite Micro computes wrongly",
                "ReLU6 right behind a convolution, dense layer or addition, or ReLU",
                "Change the layer, or export with target mobile",
            )


def _is_wrong_on_micro(operator: Operator) -> bool:
    if operator.kind != "RELU6" or operator.output().type != TensorType.INT8:
        return False
    before, after = operator.input(0).quantization, operator.output().quantization
    return not (np.array_equal(before.scale, after.scale) and np.array_equal(before.zeroPoint, after.zeroPoint))


def _saturates_at_six(operator: Operator) -> bool:
    record = operator.output().quantization
    return bool(np.rint(6.0 / np.float64(record.scale[0])) + int(record.zeroPoint[0]) >= _HIGHEST_CODE)
