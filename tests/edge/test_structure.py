from __future__ import annotations

import flatbuffers
import numpy as np
import pytest

from keras_xaic.edge import available_interpreters, judge
from keras_xaic.edge.inspect_file import read_file
from keras_xaic.edge.running import run_file
from keras_xaic.edge.structure import check_structure
from keras_xaic.errors import EdgeError

schema = pytest.importorskip("tensorflow.lite.python.schema_py_generated")


def edited(source, target, change):
    """Writes `source` to `target` after `change(model, graph)`."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(source.read_bytes(), 0))
    change(model, model.subgraphs[0])
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    target.write_bytes(bytes(builder.Output()))
    return target


def first(graph, code):
    """The first operator with three inputs: here always a convolution or a dense layer."""
    return next(op for op in graph.operators if len(op.inputs) == code)


def short_buffer(model, graph):
    tensor = graph.tensors[first(graph, 3).inputs[1]]
    model.buffers[tensor.buffer].data = model.buffers[tensor.buffer].data[:-3]


def empty_buffer(model, graph):
    model.buffers[graph.tensors[first(graph, 3).inputs[1]].buffer].data = None


def wrong_tensor(model, graph):
    first(graph, 3).inputs = [500, *first(graph, 3).inputs[1:]]


def wrong_output(model, graph):
    graph.outputs = [len(graph.tensors)]


def wrong_buffer(model, graph):
    graph.tensors[0].buffer = 4000


def wrong_scales(model, graph):
    graph.tensors[first(graph, 3).inputs[1]].quantization.scale = [0.1, 0.2]


def infinite_scale(model, graph):
    graph.tensors[graph.inputs[0]].quantization.scale = [np.inf]


def wrong_order(model, graph):
    graph.operators = graph.operators[::-1]


def never_computed(model, graph):
    graph.operators = graph.operators[:-1]


def no_outputs(model, graph):
    graph.outputs = []


def wrong_code(model, graph):
    graph.operators[0].opcodeIndex = 77


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (short_buffer, r"tensor \d+ .*has \d+ bytes; shape \(6, 3, 3, 2\) of int8 needs 108"),
        (empty_buffer, r"operator \d \(CONV_2D\) reads tensor \d+, which has no values by then"),
        (wrong_tensor, r"operator \d \(CONV_2D\) uses tensor 500 of \d+"),
        (wrong_output, r"outputs \(\d+,\) are not all among its"),
        (wrong_buffer, r"tensor 0 .*has buffer 4000 of"),
        (wrong_scales, r"2 scales and 6 zero points"),
        (infinite_scale, r"a scale that is not finite"),
        (wrong_order, r"which has no values by then"),
        (never_computed, r"output, tensor \d+, is never computed"),
        (no_outputs, r"it has no outputs"),
        (wrong_code, r"operator 0 is of kind 77"),
    ],
)
def test_damage_is_named(files, tmp_path, images, change, said):
    path = edited(files["int8"], tmp_path / "bad.tflite", change)
    with pytest.raises(EdgeError, match=said):
        check_structure(read_file(path))
    with pytest.raises(EdgeError, match=said):
        run_file(path, images[:1])


@pytest.mark.parametrize("name", ["int8", "uint8", "int16", "mixed", "float", "pair", "free", "segments", "endless", "hungry"])
def test_good_files_pass(files, name):
    check_structure(read_file(files[name]))


def test_packed_int4_needs_half_the_bytes_rounded_up(files, tmp_path):
    """The first convolution has 108 values: 54 bytes."""

    def pack(length):
        def change(model, graph):
            tensor = graph.tensors[first(graph, 3).inputs[1]]
            tensor.type = schema.TensorType.INT4
            model.buffers[tensor.buffer].data = np.zeros(length, np.uint8)

        return change

    check_structure(read_file(edited(files["int8"], tmp_path / "good.tflite", pack(54))))
    with pytest.raises(EdgeError, match=r"has 53 bytes; .* of int4 needs 54"):
        check_structure(read_file(edited(files["int8"], tmp_path / "bad.tflite", pack(53))))


@pytest.mark.skipif("tflm" not in available_interpreters(), reason="tflite-micro is not installed")
def test_weights_compressed_for_tflm_pass_and_run(files, tmp_path, images):
    """What DECODE reads is flat but keeps its per-channel scales; the decoded model answers as the plain one."""
    import tflite_micro
    from tflite_micro.tensorflow.lite.micro.compression import spec

    def coarse(model, graph):
        convolution = first(graph, 3)
        buffer = model.buffers[graph.tensors[convolution.inputs[1]].buffer]
        buffer.data = (np.asarray(buffer.data).astype(np.int8) // 64 * 64).view(np.uint8)
        for code in model.operatorCodes:
            code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
        index.append(int(convolution.inputs[1]))

    index: list[int] = []
    plain = edited(files["int8"], tmp_path / "plain.tflite", coarse)
    table = spec.LookUpTableCompression(index_bitwidth=2, mode=spec.PerChannel(axis=0))
    tensors = [spec.Tensor(subgraph=0, tensor=index[0], compression=[table])]
    packed = tmp_path / "packed.tflite"
    packed.write_bytes(tflite_micro.compression.compress(plain.read_bytes(), tensors))
    info = read_file(packed)
    check_structure(info)
    assert "CUSTOM:TFLM_DECODE" in info.operators
    expected = run_file(plain, images, interpreter="tflm").raw[0]
    np.testing.assert_array_equal(run_file(packed, images, interpreter="tflm").raw[0], expected)
    with pytest.raises(EdgeError, match=rf"{judge()} refused packed\.tflite"):
        run_file(packed, images)


@pytest.mark.parametrize("count", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_random_damage_never_escapes_the_child(files, tmp_path, images, count):
    """Whatever the interpreter does with a damaged file, the caller gets outputs or one EdgeError."""
    content = files["int8"].read_bytes()
    rng = np.random.default_rng(2)
    path, errors = tmp_path / "fuzz.tflite", []
    for _ in range(count):
        damaged = bytearray(content)
        for position in rng.integers(8, len(content), 5):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            result = run_file(path, images[:1], timeout=5.0)
        except EdgeError as error:
            errors.append(str(error))
        else:
            assert len(result.raw) == 1
    assert errors
    assert not any("\n" in error for error in errors)
