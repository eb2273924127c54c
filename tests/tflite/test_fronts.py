"""Tables with columns of unlike size: the change of units in front is computed in float32."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic import edge
from keras_xaic._keras import keras, layers
from keras_xaic.data import Samples
from keras_xaic.models.regular import regularize
from keras_xaic.quantization.activations import quantize_activations
from keras_xaic.tflite.build import build_tflite
from keras_xaic.tflite.flatbuffer import load, operators

SIZES = np.array([1e-3, 1.0, 50.0, 4e4, 1e6])
CENTERS = np.array([0.0, 10.0, -300.0, 1e5, 5e6])


def table(count: int = 300) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(count, 5)) * SIZES + CENTERS).astype(np.float32)


def model_with(*front, units: int = 5):
    return keras.Sequential([layers.Input((units,)), *front, layers.Dense(16, "relu"), layers.Dense(3)])


def batchnorm():
    layer = layers.BatchNormalization(epsilon=1e-6)
    layer.build((None, 5))
    layer.set_weights([np.array([1.0, -0.5, 2.0, 1.0, 1.0]), np.array([0.1, 0, 0, 0, -0.2]), CENTERS, SIZES**2])
    return layer


FRONTS = {
    "normalization": lambda: [layers.Normalization(mean=CENTERS, variance=SIZES**2)],
    "rescaling before": lambda: [
        layers.Rescaling(0.1, 2.0),
        layers.Normalization(mean=CENTERS * 0.1 + 2.0, variance=(0.1 * SIZES) ** 2),
    ],
    "batchnorm": lambda: [batchnorm()],
}


@pytest.mark.parametrize(("kind", "precision"), [(kind, "int8") for kind in FRONTS] + [("normalization", "int16")])
def test_columns_of_unlike_size_come_out_right_on_every_interpreter(kind, precision, tmp_path):
    keras.utils.set_random_seed(1)
    x, model = table(), regularize(model_with(*FRONTS[kind]()))
    expected = np.asarray(model(x, training=False))
    path = tmp_path / "model.tflite"
    path.write_bytes(build_tflite(model, x, precision=precision))
    assert [one.kind for one in operators(load(path.read_bytes()))][:3] == ["SUB", "MUL", "QUANTIZE"]
    for name in {"tflite-runtime", "litert", "tflm"} & set(edge.available_interpreters()):
        given = edge.run_file(path, x[:50], interpreter=name).outputs[0].reshape(expected[:50].shape)
        assert np.abs(given - expected[:50]).mean() < 0.03 * expected.std(), name


def test_pixels_keep_their_integer_input():
    x = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3)).astype(np.float32)
    model = keras.Sequential(
        [
            layers.Input((6, 6, 3)),
            layers.Normalization(mean=[120.0, 115.0, 100.0], variance=[3600.0, 3500.0, 3800.0]),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    file = load(build_tflite(model, x))
    assert file.subgraphs[0].tensors[file.subgraphs[0].inputs[0]].type != 0


def test_training_sees_the_columns_as_the_file_does():
    keras.utils.set_random_seed(1)
    x, model = table(), model_with(*FRONTS["normalization"]())
    expected = np.asarray(model(x, training=False))
    given = np.asarray(quantize_activations(model, Samples(x))(x, training=False))
    assert np.abs(given - expected).mean() < 0.03 * expected.std()


def test_a_column_that_never_changes_is_exact():
    """Its gain is that of Keras: one over the smallest standard deviation that it allows."""
    x = np.concatenate([table(), np.full((300, 1), 3.25, np.float32)], 1)
    scale = layers.Normalization()
    scale.adapt(x)
    model = model_with(scale, units=6)
    expected = np.asarray(model(x, training=False))
    quantized = quantize_activations(model, Samples(x))
    assert np.abs(np.asarray(quantized(x, training=False)) - expected).mean() < 0.03 * expected.std()
