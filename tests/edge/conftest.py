"""Small .tflite files, made once per session."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf

SHAPE = (8, 8, 2)


def convert(model: keras.Model, types: tuple | None = None, int16: bool = False) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if types is None:
        return converter.convert()
    rng = np.random.default_rng(1)
    samples = [{i.name: rng.uniform(0, 1, (1, *i.shape[1:])).astype(np.float32) for i in model.inputs} for _ in range(20)]
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: samples
    ops = tf.lite.OpsSet
    converter.target_spec.supported_ops = [
        ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8 if int16 else ops.TFLITE_BUILTINS_INT8
    ]
    converter.inference_input_type, converter.inference_output_type = types
    return converter.convert()


def small_cnn() -> keras.Model:
    keras.utils.set_random_seed(7)
    x = inputs = layers.Input(SHAPE, name="image")
    x = layers.Conv2D(6, 3, activation="relu", name="first")(x)
    x = layers.DepthwiseConv2D(3, activation="relu", name="second")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(5, activation="softmax", name="last")(x)
    model = keras.Model(inputs, x)
    last = model.get_layer("last")
    last.set_weights([20.0 * w for w in last.get_weights()])  # fresh weights answer nearly the same to everything
    return model


def two_by_two() -> keras.Model:
    """Two inputs of different shape, two outputs of different shape."""
    keras.utils.set_random_seed(8)
    a, b = layers.Input((6,), 1, name="a"), layers.Input((3,), 1, name="b")
    joined = layers.Concatenate()([layers.Dense(4, activation="relu")(a), b])
    return keras.Model([a, b], [layers.Dense(2)(joined), layers.Dense(7)(joined)])


def free_size() -> keras.Model:
    keras.utils.set_random_seed(9)
    inputs = layers.Input((None, None, 1))
    x = layers.Conv2D(3, 3, activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


def from_function(function, shape: tuple) -> bytes:
    concrete = tf.function(function, input_signature=[tf.TensorSpec(shape, tf.float32)]).get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Files by name; segments has an operator that TFLM lacks, endless never returns, hungry wants 300 MB of activations."""
    where = tmp_path_factory.mktemp("tflite")
    cnn = small_cnn()
    contents = {
        "int8": convert(cnn, (tf.int8, tf.int8)),
        "uint8": convert(cnn, (tf.uint8, tf.uint8)),
        "mixed": convert(cnn, (tf.float32, tf.float32)),
        "int16": convert(cnn, (tf.int16, tf.int16), int16=True),
        "float": convert(cnn),
        "pair": convert(two_by_two(), (tf.int8, tf.int8)),
        "free": convert(free_size()),
        "segments": from_function(lambda x: tf.math.segment_sum(x, tf.constant([0])), (1, 2)),
        "endless": from_function(
            lambda x: tf.while_loop(lambda v: tf.reduce_sum(v) > -1.0, lambda v: [v + 1.0], [x])[0], (1, 2)
        ),
        "hungry": from_function(lambda x: tf.reduce_sum(tf.sin(tf.broadcast_to(x, [6144, 6144])), axis=0), (1, 1)),
    }
    for name, content in contents.items():
        (where / f"{name}.tflite").write_bytes(content)
    return {name: where / f"{name}.tflite" for name in contents}


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(3).uniform(0, 1, (40, *SHAPE)).astype(np.float32)


@pytest.fixture
def python_is(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a shell script play the Python that XAIC_LITERT_PYTHON names."""

    def play(script: str) -> None:
        fake = tmp_path / "python"
        fake.write_text(f"#!/bin/sh\n{script}\n")
        fake.chmod(0o755)
        monkeypatch.setenv("XAIC_LITERT_PYTHON", str(fake))

    return play


@pytest.fixture
def litert_is(python_is):
    """The same for a Python that begins the work, so that every way to die can be had at will."""
    return lambda script: python_is(f"echo started\n{script}")
