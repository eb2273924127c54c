"""Models of others made regular: the same outputs, without what later rooms cannot use."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.models.added_layers import RMSNormalization
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.folding import IDENTITIES
from keras_xaic.models.kernels import weighted_kernels
from keras_xaic.models.regular import regularize
from keras_xaic.models.surgery import remove_channels
from keras_xaic.tflite.convert import float_twin, int8_twin
from keras_xaic.tflite.flatbuffer import load
from keras_xaic.tflite.pairing import pair_by_value, weight_operators
from tests.models.test_canonical import randomize


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def inputs_of(model, shape=None):
    shape = shape or model.input_shape[1:]
    return np.random.default_rng(1).normal(size=(6, *shape)).astype(np.float32)


def assert_same(found, expected, x, tolerance=2e-5):
    np.testing.assert_allclose(
        found(x, training=False), np.asarray(expected(x, training=False), np.float32), rtol=0, atol=tolerance
    )


def test_a_regular_model_is_left_as_it_is():
    start = keras.Input((6, 6, 2))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3)(start)))
    model = keras.Model(start, layers.Dense(3)(layers.Dropout(0.2)(layers.Flatten()(x))))
    assert regularize(model) is model


L, BatchNorm = layers, layers.BatchNormalization
BEFORE = {
    "dense": ((5,), lambda t: L.Dense(3, use_bias=False)(BatchNorm()(L.Dense(4, "relu")(t)))),
    "dense of a sequence": (
        (4, 3),
        lambda t: L.Dense(3)(BatchNorm()(L.Conv1D(5, 2, activation="elu")(t))),
    ),
    "flatten": (
        (5, 5, 2),
        lambda t: L.Dense(3)(BatchNorm()(L.Flatten()(L.Conv2D(4, 3, activation="relu")(t)))),
    ),
    "before flatten": (
        (5, 5, 2),
        lambda t: L.Dense(3)(L.Flatten()(BatchNorm()(L.ReLU()(L.Conv2D(4, 3)(t))))),
    ),
    "first layer": (
        (6, 6, 3),
        lambda t: L.Conv2D(4, 3, strides=2, dilation_rate=1)(BatchNorm(scale=False)(t)),
    ),
    "conv1d": ((8, 3), lambda t: L.Conv1D(4, 3, dilation_rate=2)(BatchNorm(center=False)(L.ReLU()(t)))),
    "pointwise, same": ((6, 6, 3), lambda t: L.Conv2D(4, 1, strides=2, padding="same")(BatchNorm()(t))),
    "depthwise": ((6, 6, 3), lambda t: L.DepthwiseConv2D(3, depth_multiplier=2)(BatchNorm()(t))),
    "dropout between": (
        (5,),
        lambda t: L.Dense(3)(L.Dropout(0.5)(BatchNorm()(L.Dense(4, "tanh")(t)))),
    ),
}
KEPT = {
    "padded": ((6, 6, 3), lambda t: L.Conv2D(4, 3, padding="same")(BatchNorm()(t))),
    "two readers": ((5,), lambda t: L.Concatenate()([L.Dense(3)(b := BatchNorm()(t)), b])),
    "two convolutions, one padded": (
        (5, 5, 3),
        lambda t: L.Add()([L.Conv2D(4, 1)(b := BatchNorm()(t)), L.Conv2D(4, 3, padding="same")(b)]),
    ),
    "activation behind": ((5,), lambda t: L.Dense(3)(L.ReLU()(BatchNorm()(t)))),
    "grouped": ((6, 6, 4), lambda t: L.Conv2D(4, 3, groups=2)(BatchNorm()(t))),
    "mixed by reshape": ((4, 3), lambda t: L.Conv1D(2, 1)(L.Reshape((3, 4))(BatchNorm()(t)))),
    "output": ((5,), lambda t: BatchNorm()(L.Dense(3, "relu")(t))),
}


@pytest.mark.parametrize("name", [*BEFORE, *KEPT])
def test_a_batchnorm_goes_into_the_layer_behind_it_only_where_that_is_exact(name):
    shape, body = {**BEFORE, **KEPT}[name]
    start = keras.Input(shape)
    model = randomize(keras.Model(start, body(start)))
    before = [weight.copy() for weight in model.get_weights()]
    found = regularize(model)
    assert_same(found, model, inputs_of(model))
    assert ("BatchNormalization" in kinds(found)) == (name in KEPT)
    for weight, other in zip(model.get_weights(), before):
        np.testing.assert_array_equal(weight, other)


FACTORS = np.float32([0.3, 1.7, 0.6, 2.0, 1.1])
SOURCES = {
    "layer norm": lambda t: L.LayerNormalization()(t),
    "layer norm, offset alone": lambda t: L.LayerNormalization(scale=False)(t),
    "rms norm": lambda t: RMSNormalization()(t),
    "batch norm": lambda t: BatchNorm()(t),
    "rescaling": lambda t: L.Rescaling(FACTORS.tolist(), (-FACTORS).tolist())(t),
    "product": lambda t: t * FACTORS,
    "product, constant first": lambda t: FACTORS * t,
    "quotient": lambda t: t / FACTORS,
    "product and difference": lambda t: FACTORS - t * FACTORS,
}
READERS = {
    "dense": lambda t: L.Dense(3)(t),
    "dense without bias": lambda t: L.Dense(3, use_bias=False)(t),
    "behind dropout": lambda t: L.Dense(3)(L.Dropout(0.5)(t)),
    "two dense layers": lambda t: L.Concatenate()([L.Dense(3)(t), L.Dense(2)(t)]),
    "residual": lambda t: L.Add()([L.Dense(5)(t), t]),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("shape", [(5,), (4, 5)])
def test_the_converter_leaves_dense_kernels_as_they_are_whatever_is_in_front_of_them(source, reader, shape):
    start = keras.Input(shape)
    model = randomize(keras.Model(start, READERS[reader](SOURCES[source](L.Dense(5, "relu")(start)))))
    found = regularize(model)
    assert_same(found, model, inputs_of(model))
    kernels = {one.key: one.value for one in weighted_kernels(canonicalize(found).model)}
    operators = weight_operators(load(float_twin(canonicalize(found).model)))
    tolerances = {key: np.full(value.shape, 1e-5) for key, value in kernels.items()}
    assert set(pair_by_value(operators, [one.weights for one in operators], kernels, tolerances)) == set(kernels)


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "mixed_bfloat16", "bfloat16", "float64"])
def test_other_floats_become_float32(policy):
    start = keras.Input((6, 6, 2), dtype="float64" if policy == "float64" else None)
    x = layers.Conv2D(4, 3, activation="relu", dtype=policy)(start)
    x = layers.TimeDistributed(layers.Dense(3, dtype=policy), dtype=policy)(layers.BatchNormalization(dtype=policy)(x))
    model = randomize(keras.Model(start, layers.Dense(2, dtype=policy)(layers.Flatten(dtype=policy)(x))))
    found = regularize(model)
    assert {weight.dtype.name for weight in found.weights} == {"float32"}
    assert {tensor.dtype.name for tensor in found.inputs + found.outputs} == {"float32"}
    assert {layer.compute_dtype for layer in found.layers} == {"float32"}
    assert_same(found, model, inputs_of(model), 1e-5 if policy == "float64" else 0.1)
    float_twin(found)


UNLIKE = {
    "table": ((3,), lambda t: L.Dense(4)(L.Rescaling([1.0, 2.0, 0.0], 0.5)(t)), True),
    "inside": ((5,), lambda t: L.Dense(4)(L.Rescaling([1.0, 1e6, 2.0])(L.Dense(3, "relu")(t))), True),
    "flattened": ((4, 3), lambda t: L.Dense(4)(L.Flatten()(L.Rescaling(1.0, [1.0, 2.0, 3.0])(t))), True),
    "one factor": ((3,), lambda t: L.Dense(4)(L.Rescaling(2.0, 1.0)(t)), False),
    "inputs of unlike size": ((3,), lambda t: L.Dense(4)(L.Rescaling([1.0, 1e3, 1.0])(t)), False),
    "padded": ((6, 6, 3), lambda t: L.Conv2D(4, 3, padding="same")(L.Rescaling([1.0, 2.0, 3.0])(t)), False),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_rescaling_by_unlike_factors_goes_into_the_layer_behind_it(name):
    shape, body, goes = UNLIKE[name]
    start = keras.Input(shape)
    model = randomize(keras.Model(start, body(start)))
    found = regularize(model)
    expected = np.asarray(model(inputs_of(model), training=False))
    assert_same(found, model, inputs_of(model), 2e-6 * max(1.0, float(np.abs(expected).max())))
    assert ("Rescaling" not in kinds(found)) is goes
    assert (found is not model) is goes


SPREAD = {
    "factors": lambda t: t * np.array([1.0, 2.0, 3.0], np.float32),
    "factors of both signs": lambda t: t * np.array([-1.0, 2.0, 3.0], np.float32),
    "summands": lambda t: t + np.array([1.0, 2.0, 3.0], np.float32),
    "minuends": lambda t: np.array([1.0, 2.0, 3.0], np.float32) - t,
    "divisors": lambda t: t / np.array([1.0, 2.0, 4.0], np.float32),
    "rescaling": layers.Rescaling([0.5, 1.0, -2.0]),
}


@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("name", SPREAD)
def test_factors_that_make_several_channels_of_one_stay(name, activation):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(SPREAD[name](layers.Dense(1, activation)(inputs))))
    regular = regularize(model)
    assert_same(regular, model, inputs_of(model))
    assert_same(canonicalize(regular, separate_activations=True).model, model, inputs_of(model))


AUGMENTATIONS = {
    "flip": lambda: layers.RandomFlip("horizontal"),
    "rotation": lambda: layers.RandomRotation(0.2),
    "translation": lambda: layers.RandomTranslation(0.1, 0.1),
    "zoom": lambda: layers.RandomZoom(0.1),
    "contrast": lambda: layers.RandomContrast(0.1),
    "brightness": lambda: layers.RandomBrightness(0.1),
    "noise": lambda: layers.GaussianNoise(0.5),
    "gaussian dropout": lambda: layers.GaussianDropout(0.5),
    "alpha dropout": lambda: layers.AlphaDropout(0.5),
    "regularization": lambda: layers.ActivityRegularization(0.1),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_layers_that_do_nothing_at_inference_leave(name):
    start = keras.Input((8, 8, 2))
    x = layers.Conv2D(3, 3)(AUGMENTATIONS[name]()(start))
    model = randomize(keras.Model(start, layers.Dense(2)(layers.Flatten()(x))))
    found = regularize(model)
    assert_same(found, model, inputs_of(model), 0.0)
    assert not any(isinstance(layer, IDENTITIES) for layer in found.layers)


def test_augmentation_that_makes_numbers_of_bytes_leaves_the_numbers():
    start = keras.Input((8, 8, 2), dtype="uint8")
    model = randomize(keras.Model(start, layers.Dense(2)(layers.Flatten()(layers.Conv2D(3, 3)(layers.RandomFlip()(start))))))
    found = regularize(model)
    assert "RandomFlip" not in kinds(found)
    assert_same(found, model, np.random.default_rng(1).integers(0, 256, (6, 8, 8, 2)).astype(np.uint8), 1e-3)


def test_free_dimensions_take_the_size_of_the_data():
    start = keras.Input((None, None, 2))
    model = randomize(keras.Model(start, layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(start)))))
    found = regularize(model, [(9, 7, 2)])
    assert found.input_shape == (None, 9, 7, 2)
    assert_same(found, model, inputs_of(model, (9, 7, 2)), 1e-6)
    assert regularize(found, [(9, 7, 2)]) is found


@pytest.mark.parametrize("size", [0.0, 2e-34, 1e-12, 1e-40])
def test_vanished_filters_are_zeros_and_convert(size):
    start = keras.Input((6, 6, 2))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, name="conv")(start)))
    model = randomize(keras.Model(start, layers.Dense(3)(layers.Flatten()(x))))
    kernel, bias = model.get_layer("conv").get_weights()
    kernel[..., :2] *= size
    model.get_layer("conv").set_weights([kernel, bias])
    found = regularize(model)
    assert not found.get_layer("conv").get_weights()[0][..., :2].any()
    np.testing.assert_array_equal(found.get_layer("conv").get_weights()[0][..., 2:], kernel[..., 2:])
    assert_same(found, model, inputs_of(model), 1e-6)
    int8_twin(canonicalize(remove_channels(found, {})).model, inputs_of(model))
