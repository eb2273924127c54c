"""Operators that fill what nothing is written to with the code 0, which stands for 0 in float32 only: computed there.

Interpreters do not know the code of zero in them, and do not bring values to the scale of the result.
"""

from __future__ import annotations

import numpy as np

from keras_xaic.tflite.adding import add_operator_code, add_tensor, new_operator
from keras_xaic.tflite.flatbuffer import BuiltinOperator, ModelT, TensorType, name_of, operators, schema
from keras_xaic.tflite.scales import QUANTIZE_VERSION
from keras_xaic.tflite.weight_only import DEQUANTIZE_VERSION

_FILLING = {"MATRIX_DIAG": (0,), "MATRIX_SET_DIAG": (0, 1), "SCATTER_ND": (1,)}
"""Operators -> places of the values that they write."""
_INTEGERS = (TensorType.INT8, TensorType.INT16)


def compute_in_float(model: ModelT) -> None:
    """Widens what such operators read, and quantizes what they give, in place."""
    for one in [one for one in operators(model) if one.kind in _FILLING and one.output().type in _INTEGERS]:
        graph, record, name = one.graph, one.record, name_of(one.output())
        widen = add_operator_code(model, BuiltinOperator.DEQUANTIZE, DEQUANTIZE_VERSION)
        narrow = add_operator_code(model, BuiltinOperator.QUANTIZE, QUANTIZE_VERSION)
        before, inputs, made = [], np.array(record.inputs, np.int32), int(record.outputs[0])
        for place in _FILLING[one.kind]:
            given = graph.tensors[inputs[place]]
            own = add_tensor(model, given.shape, TensorType.FLOAT32, f"{name}/values_{place}")
            before.append(new_operator(widen, [int(inputs[place])], own, schema.DequantizeOptionsT()))
            inputs[place] = own
        result = add_tensor(model, one.output().shape, TensorType.FLOAT32, f"{name}/float")
        record.inputs, record.outputs = inputs, np.array([result], np.int32)
        after = new_operator(narrow, [result], made, schema.QuantizeOptionsT())
        place = next(number for number, other in enumerate(graph.operators) if other is record)
        graph.operators = [*graph.operators[:place], *before, record, after, *graph.operators[place + 1 :]]
