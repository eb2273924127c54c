from __future__ import annotations

import time

import flatbuffers
import numpy as np
import pytest

from keras_xaic._keras import tf
from keras_xaic.edge.inspect_file import read_file
from keras_xaic.edge.operators import BUILTIN_OPERATORS, operator_name
from keras_xaic.errors import DataError, EdgeError


@pytest.mark.parametrize("name", ["int8", "uint8", "int16", "mixed", "float", "pair"])
def test_it_reads_what_tensorflows_interpreter_reads(files, name):
    info = read_file(files[name])
    kind = tf.lite.experimental.OpResolverType.BUILTIN_REF
    interpreter = tf.lite.Interpreter(
        str(files[name]), experimental_op_resolver_type=kind, experimental_preserve_all_tensors=True
    )
    assert [op.name for op in info.main.operators] == [d["op_name"] for d in interpreter._get_ops_details()]
    assert list(info.main.inputs) == [d["index"] for d in interpreter.get_input_details()]
    assert list(info.main.outputs) == [d["index"] for d in interpreter.get_output_details()]
    interpreter.allocate_tensors()
    for detail in interpreter.get_tensor_details():
        if detail["index"] >= len(info.main.tensors):
            continue  # scratch tensors of the interpreter's own
        tensor = info.main.tensors[detail["index"]]
        assert tensor.dtype == np.dtype(detail["dtype"]).name
        np.testing.assert_array_equal(tensor.signature, detail["shape_signature"])
        np.testing.assert_array_equal(tensor.scales, detail["quantization_parameters"]["scales"])
        np.testing.assert_array_equal(tensor.zero_points, detail["quantization_parameters"]["zero_points"])
        stored = info.data(tensor)
        if len(stored):
            np.testing.assert_array_equal(tensor.shape, detail["shape"])
            assert stored.tobytes() == interpreter.get_tensor(detail["index"]).tobytes()


def test_operator_names_are_the_schemas():
    schema = pytest.importorskip("tensorflow.lite.python.schema_py_generated").BuiltinOperator
    for name in BUILTIN_OPERATORS:
        assert getattr(schema, name) == BUILTIN_OPERATORS.index(name)
    assert operator_name(32, "TFLM_DECODE") == "CUSTOM:TFLM_DECODE"
    assert operator_name(900) == "OPERATOR_900"


def test_several_graphs(files):
    info = read_file(files["endless"])
    assert len(info.graphs) == 3  # the graph, the loop's condition and its body
    assert "WHILE" in info.operators


def test_what_is_no_tflite_file(tmp_path):
    with pytest.raises(DataError, match=r"gone\.tflite cannot be read"):
        read_file(tmp_path / "gone.tflite")
    for content in (b"", b"TFL3", b"PK\x03\x04" + bytes(200)):
        (tmp_path / "other.tflite").write_bytes(content)
        with pytest.raises(EdgeError, match=r"other\.tflite is not a TFLite file"):
            read_file(tmp_path / "other.tflite")


def test_any_damage_is_a_clear_error_or_a_readable_file(files, tmp_path):
    content = files["int8"].read_bytes()
    rng = np.random.default_rng(0)
    path, errors = tmp_path / "fuzz.tflite", []
    for _ in range(400):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 8):
            damaged[position] = rng.integers(0, 256)
        damaged[4:8] = b"TFL3"
        path.write_bytes(damaged[: rng.integers(8, len(content) + 1)] if rng.random() < 0.3 else damaged)
        try:
            read_file(path)
        except EdgeError as error:
            errors.append(str(error))
    assert len(errors) > 100
    assert all("fuzz.tflite" in error for error in errors)


def test_tables_that_share_long_lists_take_no_memory(tmp_path):
    """160 kB that would be 400 million numbers: 20,000 times the same tensor, whose shape has 20,000 dimensions."""
    builder, many = flatbuffers.Builder(1 << 20), 20_000
    shape = _vector(builder, [1] * many, builder.PrependInt32)
    builder.StartObject(10)
    builder.PrependUOffsetTRelativeSlot(0, shape, 0)
    tensors = _vector(builder, [builder.EndObject()] * many, builder.PrependUOffsetTRelative)
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(0, tensors, 0)
    graphs = _vector(builder, [builder.EndObject()], builder.PrependUOffsetTRelative)
    builder.StartObject(8)
    builder.PrependUOffsetTRelativeSlot(2, graphs, 0)
    builder.Finish(builder.EndObject(), b"TFL3")
    (tmp_path / "bomb.tflite").write_bytes(bytes(builder.Output()))
    start = time.monotonic()
    with pytest.raises(EdgeError, match="used again and again"):
        read_file(tmp_path / "bomb.tflite")
    assert time.monotonic() - start < 5


def _vector(builder, values, prepend):
    builder.StartVector(4, len(values), 4)
    for value in values:
        prepend(value)
    return builder.EndVector()
