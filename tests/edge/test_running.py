from __future__ import annotations

import contextlib
import importlib
import os
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.edge import available_interpreters, judge, measure_arena, run_file
from keras_xaic.edge.child.adapters import Lite, quantize
from keras_xaic.edge.doctor import TINY
from keras_xaic.edge.process import Limits, run_child
from keras_xaic.errors import DataError, EdgeError, MachineError
from keras_xaic.tflite import build_tflite
from keras_xaic.tflite.convert import float_twin
from keras_xaic.tflite.flatbuffer import load, pack
from tests.tflite.models import require_reference_bits

needs_tflm = pytest.mark.skipif("tflm" not in available_interpreters(), reason="tflite-micro is not installed")
needs_litert = pytest.mark.skipif("litert" not in available_interpreters(), reason="LiteRT is not installed")


def reference(path: pathlib.Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """TensorFlow's own interpreter with its reference kernels, in this process, on quantized inputs."""
    kind = tf.lite.experimental.OpResolverType.BUILTIN_REF
    interpreter = tf.lite.Interpreter(str(path), experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    ins, outs = interpreter.get_input_details(), interpreter.get_output_details()
    results = []
    for k in range(len(inputs[0])):
        for detail, array in zip(ins, inputs):
            scale, zero_point = detail["quantization"]
            sample = array[k : k + 1]
            if scale:
                limits = np.iinfo(detail["dtype"])
                steps = (sample / np.float32(scale)).astype(np.float64)
                sample = np.clip(np.trunc(steps + np.copysign(0.5, steps)) + zero_point, limits.min, limits.max)
            interpreter.set_tensor(detail["index"], sample.astype(detail["dtype"]))
        interpreter.invoke()
        results.append([interpreter.get_tensor(d["index"])[0] for d in outs])
    return [np.stack(column) for column in zip(*results)]


@pytest.mark.parametrize("name", ["int8", "uint8", "int16", "mixed", "float"])
def test_outputs_are_those_of_tensorflows_reference_kernels(files, images, name):
    result = run_file(files[name], images, interpreter="builtin-ref")
    expected = reference(files[name], [images])[0]
    if expected.dtype == np.float32:
        np.testing.assert_allclose(result.raw[0], expected, atol=1e-6)
    else:
        np.testing.assert_array_equal(result.raw[0], expected)
    assert result.raw[0].dtype == expected.dtype
    assert result.outputs[0].dtype == np.float32
    np.testing.assert_allclose(result.outputs[0].sum(axis=1), 1.0, atol=0.03)  # softmax, dequantized


def test_outputs_of_two_inputs_come_in_the_order_of_the_file(files):
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(0, 1, (9, 6)).astype(np.float32), rng.uniform(0, 1, (9, 3)).astype(np.float32)]
    details = tf.lite.Interpreter(str(files["pair"])).get_input_details()
    ordered = [next(a for a in inputs if a.shape[1] == d["shape"][1]) for d in details]
    result = run_file(files["pair"], ordered, interpreter="builtin-ref")
    for ours, theirs in zip(result.raw, reference(files["pair"], ordered)):
        np.testing.assert_array_equal(ours, theirs)
    assert sorted(y.shape for y in result.outputs) == [(9, 2), (9, 7)]


def test_the_judge_answers_as_its_own_module_does(files, images):
    module = importlib.import_module(Lite.modules[judge()][0])
    interpreter = module.Interpreter(str(files["float"]), num_threads=1)
    interpreter.allocate_tensors()
    index_in, index_out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    expected = []
    for image in images:
        interpreter.set_tensor(index_in, image[None])
        interpreter.invoke()
        expected.append(interpreter.get_tensor(index_out)[0])
    np.testing.assert_array_equal(run_file(files["float"], images).outputs[0], np.stack(expected))


@needs_tflm
def test_tflm_is_bit_identical_to_the_reference_kernels(files, images):
    micro = run_file(files["int8"], images, interpreter="tflm")
    require_reference_bits(micro.raw[0], reference(files["int8"], [images])[0])
    assert micro.arena is not None
    assert micro.arena_bytes == micro.arena.minimum


@needs_litert
def test_litert_runs_too(files, images):
    result = run_file(files["int8"], images, interpreter="litert")
    assert np.mean(np.abs(result.outputs[0] - reference(files["float"], [images])[0])) < 0.02


@needs_tflm
def test_arena_minimum_is_where_tflm_stops_running(files):
    from tflite_micro.python.tflite_micro import runtime

    arena = measure_arena(files["int8"])
    content = files["int8"].read_bytes()

    def runs(size: int) -> bool:
        try:
            interpreter = runtime.Interpreter.from_bytes(content, arena_size=size)
            interpreter.set_input(np.zeros((1, 8, 8, 2), np.int8), 0)
            interpreter.invoke()
        except RuntimeError:
            return False
        return True

    assert runs(arena.minimum)
    assert not runs(arena.minimum - 16)
    assert arena.total == arena.head + arena.tail
    assert 8 * 8 * 2 + 6 * 6 * 6 <= arena.head <= arena.minimum  # input and first activation live at the same time


def test_uint8_data_with_scale_gives_what_floats_give(files):
    pixels = np.random.default_rng(5).integers(0, 256, (30, 8, 8, 2), dtype=np.uint8)
    scaled = pixels.astype(np.float32) * np.float32(1 / 255) + np.float32(-0.1)
    by_scale = run_file(files["int8"], pixels, scale=1 / 255, offset=-0.1)
    by_value = run_file(files["int8"], scaled)
    np.testing.assert_array_equal(by_scale.raw[0], by_value.raw[0])
    assert len(np.unique(by_value.raw[0])) > 20


def test_more_samples_than_one_chunk_keep_their_order(files):
    many = np.random.default_rng(6).uniform(0, 1, (700, 8, 8, 2)).astype(np.float32)
    whole = run_file(files["int8"], many).raw[0]
    part = run_file(files["int8"], many[500:520]).raw[0]
    np.testing.assert_array_equal(whole[500:520], part)
    assert len(whole) == 700


def test_free_dimensions_take_the_size_of_the_sample(files):
    image = np.random.default_rng(4).uniform(0, 1, (2, 9, 12, 1)).astype(np.float32)
    result = run_file(files["free"], image)
    interpreter = tf.lite.Interpreter(str(files["free"]))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], (2, 9, 12, 1))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    expected = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(result.outputs[0], expected, atol=1e-5)


def test_measurements(files, images):
    calls: list[int] = []
    result = run_file(files["int8"], images, latency_runs=30, progress=calls.append)
    assert result.latency is not None
    assert 0 < result.latency.median <= result.latency.p90 < 5000
    assert result.latency.threads == 1
    assert result.version.startswith("2.")
    assert result.arena is None
    if pathlib.Path("/proc/self/clear_refs").exists():
        assert 10_000 < result.peak_memory_bytes < 50_000_000
    assert run_file(files["int8"], images[:1]).latency is None


def test_progress_counts_the_samples(files):
    many = np.zeros((60_000, 8, 8, 2), np.uint8)
    calls: list[int] = []
    run_file(files["int8"], many, interpreter="builtin-ref", progress=calls.append)
    assert calls == sorted(calls)
    assert calls
    assert 0 < calls[-1] <= 60_000


def test_quantization_rounds_halves_away_from_zero_and_saturates():
    detail = {"scale": 0.5, "zero_point": 3, "dtype": "int8"}
    values = np.array([0.0, 0.25, -0.25, 0.24, 0.75, -0.75, 1000.0, -1000.0], np.float32)
    np.testing.assert_array_equal(quantize(values, detail), np.array([3, 4, 2, 3, 5, 1, 127, -128], np.int8))


def test_quantization_matches_tflites_quantize_operator(files, images):
    """`mixed` is the int8 file with QUANTIZE before and DEQUANTIZE after it."""
    ours = run_file(files["int8"], images, interpreter="builtin-ref").outputs[0]
    theirs = run_file(files["mixed"], images, interpreter="builtin-ref").outputs[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-7)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (np.zeros((3, 8, 9, 2)), r"takes \(1, 8, 8, 2\), one sample of the data is \(1, 8, 9, 2\)"),
        (np.zeros((3, 8, 8)), r"one sample of the data is \(1, 8, 8\)"),
        ([np.zeros((3, 8, 8, 2)), np.zeros((3, 2))], "has 1 inputs, 2 were given"),
        ([np.zeros((3, 2)), np.zeros((4, 2))], "equally many"),
        (np.zeros((0, 8, 8, 2)), "at least one"),
        (np.array(["a"]), "dtype"),
    ],
)
def test_inputs_that_do_not_fit_are_one_clear_line(files, inputs, said):
    with pytest.raises(DataError, match=said) as caught:
        run_file(files["int8"], inputs)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_no_utf8_is_the_name_of_a_file_like_others(tmp_path):
    file = tmp_path / os.fsdecode(b"caf\xe9") / "model.tflite"
    file.parent.mkdir()
    file.write_bytes(TINY.read_bytes())
    x = np.eye(4, dtype=np.float32)
    for name in available_interpreters():
        np.testing.assert_array_equal(*(run_file(one, x, interpreter=name).outputs[0] for one in (file, TINY)))


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"gone\.tflite"):
        run_file(tmp_path / "gone.tflite", np.zeros((1, 2)))


def test_unknown_interpreter(files, images):
    with pytest.raises(EdgeError, match=r"'onnx' is not known.*tflite-runtime"):
        run_file(files["int8"], images, interpreter="onnx")


@pytest.mark.parametrize("interpreter", ["auto", pytest.param("tflm", marks=needs_tflm)])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_file_quotes_the_interpreter(files, tmp_path, images, keep, interpreter):
    content = files["int8"].read_bytes()
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(content[: int(len(content) * keep)])
    name = judge() if interpreter == "auto" else interpreter
    with pytest.raises(EdgeError, match=rf"cut\.tflite.*\. {name} (refused|crashed|would)") as caught:
        run_file(cut, images, interpreter=interpreter)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


def test_a_file_that_never_returns(files):
    start = time.monotonic()
    with pytest.raises(EdgeError, match=r"did not finish within 1.5 s on endless\.tflite"):
        run_file(files["endless"], np.ones((1, 2), np.float32), timeout=1.5)
    assert time.monotonic() - start < 10


def test_a_file_that_wants_too_much_memory(files):
    with pytest.raises(
        EdgeError,
        match=rf"{judge()} .*hungry\.tflite.*(memory|limit)",
    ):
        run_file(files["hungry"], np.ones((1, 1), np.float32), memory=100_000_000)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'INFO: hello' >&2; echo 'it hurts' >&2; kill -SEGV $$", r"crashed.*SIGSEGV.*'it hurts'"),
        ("kill -KILL $$", r"crashed.*SIGKILL.*memory.*2,000\.0 MB"),
        ("kill -ABRT $$", "crashed.*SIGABRT"),
        ("exit 3", "ended with code 3"),
    ],
)
def test_every_death_of_the_child_is_one_clear_error(files, images, litert_is, script, said):
    litert_is(script)
    with pytest.raises(EdgeError, match=said) as caught:
        run_file(files["int8"], images, interpreter="litert")
    assert "INFO" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_interpreter_that_is_not_installed(files, images, monkeypatch, tmp_path):
    monkeypatch.setenv("XAIC_LITERT_PYTHON", str(tmp_path / "nowhere"))
    with pytest.raises(EdgeError, match="XAIC_LITERT_PYTHON"):
        run_file(files["int8"], images, interpreter="litert")


@needs_tflm
def test_unsupported_operator_is_named_by_tflm(files):
    with pytest.raises(EdgeError, match=r"tflm refused segments\.tflite.*SEGMENT_SUM"):
        run_file(files["segments"], np.ones((1, 2), np.float32), interpreter="tflm")


def test_no_scratch_is_left_behind(files, images, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_file(files["int8"], images)
    with pytest.raises(DataError):
        run_file(files["int8"], images[:, :4])
    assert list(tmp_path.iterdir()) == []


def test_edge_does_not_import_tensorflow():
    code = (
        "import sys, keras_xaic.edge, keras_xaic.edge.doctor, keras_xaic.report; "
        "print({m.split('.')[0] for m in sys.modules} & {'tensorflow', 'keras'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("safe_path", ["", "1"])
def test_child_needs_numpy_and_the_interpreter_only(safe_path):
    from keras_xaic.edge.starting import CHILD

    others = {"child", "keras_xaic", "tensorflow", "flatbuffers", "pydantic"}
    code = (
        f"import runpy, sys; runpy.run_path({str(CHILD)!r}); "
        f"print(sorted({{m.split('.')[0] for m in sys.modules}} & {others}), {str(CHILD.parents[1])!r} in sys.path)"
    )
    environment = {**os.environ, "PYTHONSAFEPATH": safe_path}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "['child'] False"


def test_a_recurrent_model_starts_afresh_with_every_sample(tmp_path):
    from keras_xaic._keras import keras, layers
    from keras_xaic.tflite import float_twin

    keras.utils.set_random_seed(0)
    inputs = keras.Input((10, 2))
    model = keras.Model(inputs, layers.Dense(3)(layers.LSTM(8)(inputs)))
    (tmp_path / "m.tflite").write_bytes(float_twin(model))
    x = np.random.default_rng(0).normal(size=(6, 10, 2)).astype(np.float32) * 3
    result = run_file(tmp_path / "m.tflite", x, latency_runs=3)
    np.testing.assert_allclose(result.outputs[0], model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.parametrize("interpreter", available_interpreters())
def test_a_tensor_without_more_than_a_batch_is_a_number_per_sample(interpreter, tmp_path):
    start = keras.Input((6,))
    model = keras.Model(start, tf.reduce_mean(keras.layers.Dense(4)(start), axis=-1))
    path = tmp_path / "m.tflite"
    path.write_bytes(float_twin(model))
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    (found,) = run_file(path, [x], interpreter=interpreter).outputs
    np.testing.assert_allclose(found.ravel(), model.predict(x, verbose=0), atol=1e-5)


def test_a_full_disk_under_the_child_is_the_machines_fault(files, tmp_path):
    """Not even the answer can be written: its file leads to a device that is always full."""
    (tmp_path / "answer.json.part").symlink_to("/dev/full")
    job = {"interpreter": judge(), "mode": "version", "model": str(tmp_path / "m.tflite")}
    with pytest.raises(MachineError, match="the disk is full"):
        run_child(job, tmp_path, Limits())


@pytest.mark.parametrize("interpreter", available_interpreters())
@pytest.mark.parametrize("which", [0, 2])
def test_a_file_that_claims_tensors_of_50_gigabytes_takes_no_memory(tmp_path, interpreter, which):
    model = load(TINY.read_bytes())
    tensor = model.subgraphs[0].tensors[which]
    tensor.shape, tensor.shapeSignature = np.asarray((50_000, 1_000_000), np.int32), None
    (tmp_path / "claims.tflite").write_bytes(pack(model))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    start = time.monotonic()
    with contextlib.suppress(DataError, EdgeError):  # or it is never touched: the matrix product makes its own shape
        run_file(tmp_path / "claims.tflite", np.zeros((1, 4), np.float32), interpreter=interpreter)
    assert time.monotonic() - start < 30
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert after <= max(before, 1_500_000)  # kB; of the largest child so far


@pytest.mark.skipif(judge() != "tflite-runtime", reason="newer interpreters have them, or end without a word")
def test_operators_that_an_interpreter_lacks_for_int16_values_come_with_a_way_out(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(tf.math.rsqrt(layers.Dense(4, "sigmoid")(inputs))))
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    path = tmp_path / "wide.tflite"
    path.write_bytes(build_tflite(model, x, precision="int16"))
    with pytest.raises(EdgeError, match=r"operators that it has for int16 values\. Choose int8 or float32 activations"):
        run_file(path, x, interpreter="tflite-runtime")
