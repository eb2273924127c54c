"""TensorFlow's own converter, in the child process where it may crash: a traced graph in, a .tflite file out."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Optional

import numpy as np

from keras_xaic._keras import tf
from keras_xaic.errors import ExportError
from keras_xaic.files import machine_fault
from keras_xaic.silence import captured_stderr
from keras_xaic.tflite.adding import add_operator_code, add_tensor, new_operator
from keras_xaic.tflite.flatbuffer import (
    BuiltinOperator,
    ModelT,
    Operator,
    load,
    name_of,
    operators,
    pack,
    schema,
)
from keras_xaic.tflite.graph_rewriting import rewrite
from keras_xaic.tflite.pairing import weight_operators
from keras_xaic.tflite.true_ranges import may_be_wrong, with_true_ranges
from keras_xaic.tflite.weight_only import DEQUANTIZE_VERSION

Precision = Literal["int8", "int16", "dynamic-range", "weight-only", "float16", "float32"]
"""What a file computes with: ``int8`` and ``int16`` activations on integer weights; ``dynamic-range``: int8 weights and float
activations; ``weight-only`` and ``float16``: weights of 8 and 16 bits that are widened to float32 when a file is loaded;
``float32``: as in Keras."""
_frozen: Any = importlib.import_module("tensorflow.python.framework.convert_to_constants")
_mlir_quantize: Any = importlib.import_module("tensorflow.lite.python.convert").mlir_quantize
_modify_io: Any = importlib.import_module("tensorflow.lite.python.util").modify_model_io_type


@dataclass(frozen=True)
class Graph:
    """A traced model with a batch of 1.

    Attributes:
        content: The graph with its weights as constants; empty where it lies in `directory`.
        inputs: Names of its inputs, in the order of the model's.
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
    """What the converter shall write; a file with integer activations takes and gives their codes.

    Attributes:
        precision: See `keras_xaic.tflite.convert.Precision`.
        floating: Which weight operators stay float in an int8 file, by their place among the weight operators.
    """

    precision: Precision
    floating: tuple[int, ...] = ()


def freeze(function: Any) -> Graph:
    """Makes constants of a concrete function's weights, as the converter does first.

    What no output needs is left out: layers with an ``activity_regularizer`` compute a loss, too.
    """
    frozen, graph = _frozen.convert_variables_to_constants_v2_as_graph(function, lower_control_flow=False)
    needed = {operation.name for operation in frozen.graph.get_operations()}
    nodes = [node for node in graph.node if node.name in needed]
    del graph.node[:]
    graph.node.extend(nodes)
    tensors = frozen.graph.get_tensor_by_name
    rewrite(graph, lambda name: tensors(_tensor(name)).shape.as_list(), lambda name: _value(tensors(_tensor(name))))
    inputs = [tensor.name for tensor in frozen.inputs if tensor.dtype != tf.resource]
    return Graph(graph.SerializeToString(deterministic=True), tuple(inputs), tuple(tensor.name for tensor in frozen.outputs))


def _tensor(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _value(tensor: Any) -> np.ndarray:
    return np.asarray(tf.make_ndarray(tensor.op.get_attr("value")))


def convert(graph: Graph, wishes: Sequence[Wish], calibration: Sequence[np.ndarray] = ()) -> dict[str, bytes]:
    """Converts a graph; to be run in a child process.

    Args:
        graph: The graph.
        wishes: What files are to be written of it.
        calibration: One (N, ...) array per input, for integer activations.

    Returns:
        The files, by their numbers among the wishes.

    Raises:
        ExportError: With the converter's reason.
    """
    failure, contents = None, {}
    with captured_stderr() as said:
        try:
            contents = {str(number): _converted(graph, wish, calibration) for number, wish in enumerate(wishes)}
        except ExportError:
            raise
        except Exception as error:  # ConverterError, ValueError, RuntimeError and whatever MLIR adds
            failure = error
    if failure is not None:
        raise machine_fault(failure) or ExportError(_reason(f"{failure}\n{said.text}"))
    return contents


def _converted(graph: Graph, wish: Wish, calibration: Sequence[np.ndarray]) -> bytes:
    if not wish.floating:
        content = bytes(_converter(graph, wish.precision, calibration).convert())
        if wish.precision != "int8" or graph.directory is not None or not may_be_wrong(content):
            return content
        return _with_true_ranges(graph, calibration, content)
    plain = bytes(_converter(graph, wish.precision, calibration, float_ends=True).convert())
    file = load(plain)
    found = weight_operators(file)
    islands = _with_joins(file, [found[place].operator for place in wish.floating])
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=_converter(graph, wish.precision, calibration, float_ends=True),
        debug_dataset=lambda: one_by_one(calibration),
        debug_options=tf.lite.experimental.QuantizationDebugOptions(
            denylisted_nodes=[*islands, *(name[:-1] for name in islands if name.endswith("1"))]
        ),
    )
    content = _with_integer_ends(_with_own_outputs(bytes(debugger.get_nondebug_quantized_model())))
    left = [one.operator.index for one in weight_operators(load(content)) if one.weights.dtype == np.float32]
    if len(left) != len(wish.floating):
        raise ExportError(f"{len(wish.floating)} layers were to stay float, the converter left {len(left)}")
    return content


def _with_joins(model: ModelT, chosen: Sequence[Operator]) -> list[str]:
    """Returns the names of what operators give, and of what only puts that side by side: one scale would hold for all of it.

    The integer form of an output of the model is called like the output and ``1``.
    """
    floating = {int(one.record.outputs[0]) for one in chosen}
    names = [name_of(one.output()) for one in chosen]
    for one in operators(model):
        taken = [int(index) for index in one.record.inputs]
        if one.kind == "QUANTIZE" and set(taken) <= floating:
            floating.add(int(one.record.outputs[0]))
        elif one.kind == "CONCATENATION" and set(taken) <= floating:
            floating.add(int(one.record.outputs[0]))
            names.append(name_of(one.output()))
    return names


def _with_own_outputs(content: bytes) -> bytes:
    """Returns a file in which float operators do not read what is widened for an output: integer files have no such output."""
    model = load(content)
    graph = model.subgraphs[0]
    outputs = {int(index) for index in graph.outputs}
    for one in reversed([one for one in operators(model) if one.kind == "DEQUANTIZE"]):
        index = int(one.record.outputs[0])
        takers = [other for other in graph.operators if index in other.inputs]
        if index in outputs and takers:
            own = add_tensor(model, graph.tensors[index].shape, graph.tensors[index].type, f"{name_of(one.output())}/own")
            for other in takers:
                other.inputs = np.where(np.equal(other.inputs, index), own, other.inputs).astype(np.int32)
            graph.operators.insert(one.index + 1, new_operator(one.record.opcodeIndex, one.record.inputs, own))
    return pack(model)


def _with_integer_ends(content: bytes) -> bytes:
    """Returns a file that takes and gives integer codes; float operators that read an input, as masks do, read it widened."""
    model = load(content)
    graph = model.subgraphs[0]
    inputs = {int(index) for index in graph.inputs}
    for one in [one for one in operators(model) if one.kind == "QUANTIZE" and int(one.record.inputs[0]) in inputs]:
        index, narrow = int(one.record.inputs[0]), int(one.record.outputs[0])
        takers = [other for other in graph.operators if other is not one.record and index in other.inputs]
        if takers:
            own = add_tensor(model, graph.tensors[index].shape, graph.tensors[index].type, f"{name_of(one.output())}/own")
            for other in takers:
                other.inputs = np.where(np.equal(other.inputs, index), own, other.inputs).astype(np.int32)
            code = add_operator_code(model, BuiltinOperator.DEQUANTIZE, DEQUANTIZE_VERSION)
            graph.operators.remove(one.record)
            widened = new_operator(code, [narrow], own, schema.DequantizeOptionsT())
            graph.operators = [one.record, widened, *graph.operators]
    return bytes(_modify_io(pack(model), tf.int8, tf.int8))


def _with_true_ranges(graph: Graph, calibration: Sequence[np.ndarray], content: bytes) -> bytes:
    """Returns the int8 file made with ranges that are measured here, where the converter's own are wrong."""
    converter = _converter(graph, "int8", calibration, float_ends=True)
    converter._experimental_calibrate_only = True
    corrected = with_true_ranges(bytes(converter.convert()), one_by_one(calibration))
    return content if corrected is None else _with_integer_ends(bytes(_mlir_quantize(corrected)))


def _converter(graph: Graph, precision: Precision, calibration: Sequence[np.ndarray], float_ends: bool = False) -> Any:
    if graph.directory is not None:
        converter = tf.lite.TFLiteConverter.from_saved_model(graph.directory, signature_keys=["serving_default"])
    else:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function_of(graph)])
    if precision == "float32":
        return converter
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif precision in ("int8", "int16"):
        # Of a SavedModel the converter keeps names of inputs, not their order.
        by_name = graph.inputs if graph.directory is not None and len(graph.inputs) > 1 else ()
        converter.representative_dataset = lambda: one_by_one(calibration, by_name)
        wide = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        integers = wide if precision == "int16" else tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        converter.target_spec.supported_ops = [integers, tf.lite.OpsSet.TFLITE_BUILTINS]
        # Newer converters give dense kernels a scale per channel, which costs arena; ours get one where a grid asks for it.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
        if not float_ends:
            converter.inference_input_type = tf.int16 if precision == "int16" else tf.int8
            converter.inference_output_type = converter.inference_input_type
    return converter


def function_of(graph: Graph) -> Any:
    """Returns a graph as a function of its inputs that gives a list of its outputs."""
    definition = tf.compat.v1.GraphDef.FromString(graph.content)
    whole = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
    tensors = whole.graph.get_tensor_by_name
    return whole.prune([tensors(name) for name in graph.inputs], [tensors(name) for name in graph.outputs])


def one_by_one(arrays: Sequence[np.ndarray], names: Sequence[str] = ()) -> Iterator[Any]:
    """Yields the samples of arrays, each with a batch of 1: a list of arrays, or those by name."""
    for index in range(len(arrays[0])):
        sample = [array[index : index + 1] for array in arrays]
        yield dict(zip(names, sample)) if names else sample


def _reason(text: str) -> str:
    unknown = sorted(set(re.findall(r"'(tf\.\w+)' op is neither a custom op nor a flex op", text)))
    if unknown:
        lines = [line for line in text.splitlines() if "is neither a custom op nor a flex op" in line]
        places = sorted({found for line in lines for found in re.findall(r'"(op\d{4})/', line)})
        return f"it needs {', '.join(unknown)}" + (f" in {', '.join(places)}" if places else "")
    lines = (
        [line.strip() for line in text.splitlines() if "error:" in line.lower()] or text.strip().splitlines() or ["no reason"]
    )
    return plain_words(lines[0])


def plain_words(line: str) -> str:
    """Returns what TensorFlow's native code says, without where it says so: of its places only the operation is kept.

    >>> plain_words('<unknown>:0: error: loc("op0001/crop/Slice"): requires size[i] <= Di')
    'requires size[i] <= Di in op0001'
    >>> plain_words("tensorflow/lite/kernels/strided_slice.cc StridedSlice op only supports 1D-5D input arrays.")
    'StridedSlice op only supports 1D-5D input arrays'
    """
    said = re.sub(r"^\S*:\d+(:\d+)?: (error: )?|^\S+\.(cc|cpp|h)(:\d+)?:? ", "", line.strip())
    plain = re.sub(r"^loc\(.*\): ", "", said)
    place = None if plain == said else re.search(r"op\d{4}", said)
    return plain[:300].rstrip(". ") + (f" in {place.group()}" if place is not None and place.group() not in plain else "")
