from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.errors import ExportError
from keras_xaic.tflite.build import build_tflite
from keras_xaic.tflite.clamping import require_exact_clamps, write_clamps_as_relu
from keras_xaic.tflite.convert import int8_twin
from keras_xaic.tflite.decode import compress_for_micro
from keras_xaic.tflite.flatbuffer import load, operators, pack
from tests.tflite.models import inputs_of, run


@pytest.fixture(scope="module", params=[1.0, 10.0], ids=["below six", "clamped at six"])
def lonely_relu6(request):
    """A ReLU6 that nothing can take up."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    deconvolution = layers.Conv2DTranspose(4, 2)
    model = keras.Model(inputs, layers.ReLU(6.0)(deconvolution(inputs)))
    deconvolution.kernel.assign(request.param * deconvolution.kernel)
    return model, int8_twin(model, inputs_of(model, 60))


def _kinds(content: bytes) -> list[str]:
    return [operator.kind for operator in operators(load(content))]


def test_relu_gives_the_bits_of_relu6_wherever_it_runs(lonely_relu6):
    model, content = lonely_relu6
    changed = load(content)
    write_clamps_as_relu(changed)
    require_exact_clamps(changed)
    assert _kinds(content) == ["TRANSPOSE_CONV", "RELU6"]
    assert _kinds(pack(changed)) == ["TRANSPOSE_CONV", "RELU"]
    samples = inputs_of(model, 16, seed=9)
    np.testing.assert_array_equal(run(content, samples)[0], run(pack(changed), samples)[0])


def test_tflite_micro_agrees_with_the_judge_afterwards(lonely_relu6):
    tflm = pytest.importorskip("tflite_micro")
    model, content = lonely_relu6
    (samples,) = inputs_of(model, 8, seed=9)
    expected = run(content, [samples])[0].astype(int)

    def outputs(content: bytes) -> np.ndarray:
        graph = load(content).subgraphs[0]
        record = graph.tensors[graph.inputs[0]].quantization
        interpreter = tflm.runtime.Interpreter.from_bytes(content, arena_size=1 << 20)
        found = []
        for sample in samples:
            codes = np.clip(np.rint(sample / record.scale[0]) + record.zeroPoint[0], -128, 127).astype(np.int8)
            interpreter.set_input(codes[np.newaxis], 0)
            interpreter.invoke()
            found.append(interpreter.get_output(0)[0].astype(int))
        return np.stack(found)

    for written in (compress_for_micro(content).content, build_tflite(model, inputs_of(model, 60))):
        assert np.abs(outputs(written) - expected).max() <= 1


def test_what_cannot_be_written_exactly_is_refused(lonely_relu6):
    _, content = lonely_relu6
    model = load(content)
    output = list(operators(model))[-1].output()
    output.quantization.scale = np.array([0.1], np.float32)  # 127 stands for 25.5
    write_clamps_as_relu(model)
    assert _kinds(pack(model)) == ["TRANSPOSE_CONV", "RELU6"]
    with pytest.raises(ExportError, match="operator 1 is a ReLU6"):
        compress_for_micro(pack(model))


def test_a_relu6_that_keeps_its_steps_is_left_alone(lonely_relu6):
    _, content = lonely_relu6
    model = load(content)
    clamp = list(operators(model))[-1]
    clamp.output().quantization = clamp.input(0).quantization
    write_clamps_as_relu(model)
    require_exact_clamps(model)
    assert _kinds(pack(model)) == ["TRANSPOSE_CONV", "RELU6"]
