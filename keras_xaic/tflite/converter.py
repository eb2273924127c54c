"""TensorFlow's own converter, in the child process where it may crash: a traced graph in, a .tflite file out."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic._keras import tf
from keras_xaic.errors import ExportError
from keras_xaic.silence import captured_stderr
from keras_xaic.tflite.flatbuffer import load, name_of
from keras_xaic.tflite.graph_rewriting import rewrite
from keras_xaic.tflite.pairing import weight_operators

if TYPE_CHECKING:
    from keras_xaic.tflite.convert import InputOutput, Precision

_frozen: Any = importlib.import_module("tensorflow.python.framework.convert_to_constants")
_modify_io: Any = importlib.import_module("tensorflow.lite.python.util").modify_model_io_type


@dataclass(frozen=True)
class Graph:
    """A traced model with a batch of 1.

    Attributes:
        content: The graph with its weights as constants; empty where it lies in `directory`.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        directory: A SavedModel. Loops own variables by their model: without it the converter crashes on them. With it, it
            takes a slower way.
    """

    content: bytes = b""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    directory: Optional[str] = None


@dataclass(frozen=True)
class Wish:
    """What the converter shall write.

    Attributes:
        precision: See `keras_xaic.tflite.convert.Precision`.
        io: Whether a file with integer activations takes and gives integer codes (``int8``) or float32 values (``float``).
        floating: Which weight operators stay float in an int8 file, by their place among the weight operators.
    """

    precision: Precision
    io: InputOutput = "int8"
    floating: tuple[int, ...] = ()


def freeze(function: Any) -> Graph:
    """Makes constants of a concrete function's weights, as the converter does first."""
    frozen, graph = _frozen.convert_variables_to_constants_v2_as_graph(function, lower_control_flow=False)
    tensors = frozen.graph.get_tensor_by_name
    rewrite(graph, lambda name: tensors(_tensor(name)).shape.as_list(), lambda name: _value(tensors(_tensor(name))))
    inputs = [tensor.name for tensor in frozen.inputs if tensor.dtype != tf.resource]
    return Graph(graph.SerializeToString(), tuple(inputs), tuple(tensor.name for tensor in frozen.outputs))


def _tensor(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _value(tensor: Any) -> np.ndarray:
    return np.asarray(tf.make_ndarray(tensor.op.get_attr("value")))


def convert(graph: Graph, wish: Wish, calibration: Sequence[np.ndarray] = ()) -> dict[str, bytes]:
    """Converts a graph; to be run in a child process.

    Args:
        graph: The graph.
        wish: What is to be written of it.
        calibration: One (N, ...) array per input, for integer activations.

    Returns:
        The file, as ``content``.

    Raises:
        ExportError: With the converter's reason.
    """
    failure, content = None, b""
    with captured_stderr() as said:
        try:
            content = _converted(graph, wish, calibration)
        except ExportError:
            raise
        except Exception as error:  # ConverterError, ValueError, RuntimeError and whatever MLIR adds
            failure = error
    if failure is not None:
        raise ExportError(_reason(f"{failure}\n{said.text}"))
    return {"content": content}


def _converted(graph: Graph, wish: Wish, calibration: Sequence[np.ndarray]) -> bytes:
    if not wish.floating:
        return bytes(_converter(graph, wish, calibration).convert())
    plain = bytes(_converter(graph, Wish(wish.precision, "float"), calibration).convert())
    found = weight_operators(load(plain))
    islands = [name_of(found[place].operator.output()) for place in wish.floating]
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=_converter(graph, Wish(wish.precision, "float"), calibration),
        debug_dataset=lambda: _one_by_one(calibration),
        debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=islands),
    )
    content = bytes(debugger.get_nondebug_quantized_model())
    if wish.io == "int8":
        content = bytes(_modify_io(content, tf.int8, tf.int8))
    left = [one.operator.index for one in weight_operators(load(content)) if one.weights.dtype == np.float32]
    if len(left) != len(islands):
        raise ExportError(f"{len(islands)} layers were to stay float, the converter left {len(left)}")
    return content


def _converter(graph: Graph, wish: Wish, calibration: Sequence[np.ndarray]) -> Any:
    if graph.directory is not None:
        converter = tf.lite.TFLiteConverter.from_saved_model(graph.directory, signature_keys=["serving_default"])
    else:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([_function(graph)])
    if wish.precision == "float32":
        return converter
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if wish.precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif wish.precision in ("int8", "int16"):
        converter.representative_dataset = lambda: _one_by_one(calibration)
        wide = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        operators = wide if wish.precision == "int16" else tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        converter.target_spec.supported_ops = [operators, tf.lite.OpsSet.TFLITE_BUILTINS]
        if wish.io == "int8":
            converter.inference_input_type = tf.int16 if wish.precision == "int16" else tf.int8
            converter.inference_output_type = converter.inference_input_type
    return converter


def _function(graph: Graph) -> Any:
    definition = tf.compat.v1.GraphDef.FromString(graph.content)
    whole = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
    tensors = whole.graph.get_tensor_by_name
    return whole.prune([tensors(name) for name in graph.inputs], [tensors(name) for name in graph.outputs])


def _one_by_one(arrays: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    for index in range(len(arrays[0])):
        yield [array[index : index + 1] for array in arrays]


def _reason(text: str) -> str:
    unknown = sorted(set(re.findall(r"'(tf\.\w+)' op is neither a custom op nor a flex op", text)))
    if unknown:
        return f"it needs {', '.join(unknown)}"
    lines = (
        [line.strip() for line in text.splitlines() if "error:" in line.lower()] or text.strip().splitlines() or ["no reason"]
    )
    return lines[0][:300]
