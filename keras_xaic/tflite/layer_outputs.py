"""What every operator of the float model gives: the yardstick by which the first layer that deviates is named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_xaic._keras import Model, tf
from keras_xaic.errors import ExportError, first_line
from keras_xaic.models.kernels import kernels_in
from keras_xaic.models.operations import Operations
from keras_xaic.silence import captured_stderr
from keras_xaic.tflite.convert import layer_name, with_layers, with_operation
from keras_xaic.tflite.flatbuffer import ModelT, name_of, operators, with_outputs
from keras_xaic.tflite.pairing import weight_operators
from keras_xaic.tflite.reading import match_operators
from keras_xaic.tflite.slim import drop_reshapes_before_dense

SAMPLES = 4
"""Number of samples whose inner values are kept."""
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


def layer_outputs(model: Model, file: ModelT, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Returns "number layer" -> (samples, ...) float32: what the operators of the float32 twin give, in the order they run.

    Args:
        model: The Keras model.
        file: Its float32 twin, loaded; all results become outputs of it.
        arrays: One (N, ...) array of samples per input of the model.

    Raises:
        ExportError: If TFLite has no kernel for an operator of such values; the message names the layer.
    """
    drop_reshapes_before_dense(file)  # as in the file that is compared
    operations = Operations(model)
    names = [operation.layer.name for operation in operations]
    stored = match_operators(weight_operators(file), kernels_in(operations))
    weighted = {one.index: key for key, entries in stored.items() for one in entries}
    computing = [one for one in operators(file) if one.kind not in _CONVERSIONS]
    with captured_stderr():  # newer releases announce its end
        interpreter = tf.lite.Interpreter(
            model_content=with_outputs(file, [int(one.record.outputs[0]) for one in computing]),
            num_threads=1,
            experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:
        said = with_layers(with_operation(first_line(error), file), operations)
        raise ExportError(
            f"model {model.name!r} cannot run on TFLite: {said}",
            "operators that TFLite has, of values that they take",
            "Replace the layer that uses it",
        ) from error
    details = interpreter.get_input_details()
    outputs: list[list[np.ndarray]] = [[] for _ in computing]
    for sample in range(min(SAMPLES, len(arrays[0]))):
        interpreter.reset_all_variables()
        for detail, array in zip(details, arrays):
            interpreter.set_tensor(detail["index"], np.asarray(array[sample : sample + 1], detail["dtype"]))
        interpreter.invoke()
        for operator, kept in zip(computing, outputs):
            kept.append(np.asarray(interpreter.get_tensor(int(operator.record.outputs[0])), np.float32))
    return {
        f"{number:04d} {weighted.get(operator.index) or layer_name(name_of(operator.output()), names)}": np.stack(kept)
        for number, (operator, kept) in enumerate(zip(computing, outputs))
    }
