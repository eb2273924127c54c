from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import ModelError
from keras_xaic.models.canonical import canonicalize
from keras_xaic.models.kernels import layer_kernels, weighted_kernels
from keras_xaic.models.operations import Operations


def randomize(model, seed=0):
    """Gives every weight a value that shows up when it is dropped: variances, biases and betas included."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if isinstance(layer, keras.Model):
            continue
        for weight in layer.weights:
            value = rng.normal(0, 0.4, weight.shape)
            if "variance" in weight.name:
                value = rng.uniform(0.3, 2.0, weight.shape)
            if weight.dtype.is_floating:
                weight.assign(value.astype(np.float32))
    return model


def image_net():
    x = inputs = keras.Input((9, 9, 3), name="image")
    x = layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False, name="conv", kernel_constraint="max_norm")(x)
    x = layers.BatchNormalization(scale=False, name="bn1")(x)
    x = layers.ReLU(6.0, name="relu6")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="dw")(x)
    x = layers.Dropout(0.3)(x)
    x = layers.BatchNormalization(center=False, name="bn2")(x)
    x = y = layers.Activation("swish", name="swish")(x)
    x = layers.SeparableConv2D(12, 3, padding="same", activation="relu", name="sep")(x)
    x = layers.Add(name="add")([x, y])
    x = layers.BatchNormalization(name="bn3")(x)
    x = layers.Conv2DTranspose(5, 3, strides=2, name="up")(x)
    x = layers.BatchNormalization(name="bn4")(x)
    x = layers.LeakyReLU(0.2, name="leaky")(x)
    x = layers.GaussianNoise(0.1)(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(7, name="hidden")(x)
    x = layers.BatchNormalization(name="bn5")(x)
    x = layers.PReLU(name="prelu")(x)
    return randomize(keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(x)))


def sequence_net():
    return randomize(
        keras.Sequential(
            [
                keras.Input((12, 4)),
                layers.Conv1D(6, 3, padding="causal", dilation_rate=2, name="c1"),
                layers.BatchNormalization(name="b1"),
                layers.ReLU(name="r1"),
                layers.SeparableConv1D(5, 3, padding="causal", depth_multiplier=2, name="s1"),
                layers.BatchNormalization(name="b2"),
                layers.DepthwiseConv1D(3, padding="same", name="d1"),
                layers.BatchNormalization(name="b3"),
                layers.Conv1DTranspose(4, 3, strides=2, name="t1"),
                layers.BatchNormalization(name="b4"),
                layers.Dense(3, name="e1"),
                layers.BatchNormalization(name="b5"),
                layers.LSTM(4, name="lstm"),
                layers.Dense(1, activation="sigmoid", name="head"),
            ]
        )
    )


def nested_net():
    inner = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(3, 3, name="conv"), layers.BatchNormalization(name="bn")], name="block"
    )
    a, b = keras.Input((6, 6, 2), name="a"), keras.Input((6, 6, 2), name="b")
    shared = layers.Conv2D(2, 1, name="shared")
    bn = layers.BatchNormalization(name="bn_of_shared")
    x = inner(shared(a)) + layers.Conv2D(3, 3, name="other")(bn(shared(b)))
    x = layers.Rescaling(0.5, name="scale")(x * 2.0)
    y = layers.Flatten(name="flat")(x)
    z = tf.nn.softmax(layers.Dense(3, name="z")(y))
    return randomize(
        keras.Model([a, b], [layers.Reshape((1, 2), name="out")(layers.Dense(2, activation="sigmoid", name="y")(y)), z])
    )


MODELS = [image_net, sequence_net, nested_net]


def inputs_of(model, seed=1, count=5):
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 1, (count, *t.shape[1:])).astype(np.float32) for t in model.inputs]


def close(found, expected):
    for f, e in zip(tf.nest.flatten(found), tf.nest.flatten(expected)):
        np.testing.assert_allclose(f, e, rtol=0, atol=2e-6 * max(1.0, float(np.abs(e).max())))


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("make", MODELS)
def test_the_clone_gives_the_same_outputs(make, separate):
    model = make()
    x = inputs_of(model)
    canonical = canonicalize(model, separate_activations=separate)
    close(canonical.model(x, training=False), model(x, training=False))
    assert not any(isinstance(op.layer, (layers.Dropout, layers.GaussianNoise)) for op in Operations(canonical.model))


@pytest.mark.parametrize("make", MODELS)
def test_what_can_be_folded_is_folded_and_the_rest_stays(make):
    model = make()
    canonical = canonicalize(model)
    left = [op.path for op in Operations(canonical.model) if isinstance(op.layer, layers.BatchNormalization)]
    assert left == {"image_net": ["bn3"], "sequence_net": [], "nested_net": ["bn_of_shared"]}[make.__name__]


@pytest.mark.parametrize("make", MODELS)
def test_weight_keys_are_those_of_the_user(make):
    model = make()
    keys = {kernel.key for kernel in weighted_kernels(model)}
    assert {kernel.key for kernel in weighted_kernels(canonicalize(model).model)} == keys
    assert {kernel.key for kernel in weighted_kernels(canonicalize(model, separate_activations=True).model)} == keys


@pytest.mark.parametrize("make", MODELS)
def test_gains_are_the_ratio_of_folded_and_original_kernels(make):
    model = make()
    canonical = canonicalize(model)
    changed = set()
    for before, after in zip(weighted_kernels(model), weighted_kernels(canonical.model)):
        np.testing.assert_allclose(after.value, before.value * canonical.gains.get(before.key, 1.0), rtol=1e-6)
        if np.any(after.value != before.value):
            changed.add(before.key)
    assert changed == set(canonical.gains)
    assert changed


def test_heads_are_named_and_left_away_on_request():
    model = nested_net()
    x = inputs_of(model)
    assert canonicalize(model).heads == ("sigmoid", "softmax")
    y, z = canonicalize(model, keep_output_activation=False).model(x)
    close([tf.sigmoid(y), tf.nn.softmax(z)], model(x))
    assert tuple(y.shape) == (5, 1, 2)
    separate = canonicalize(model, keep_output_activation=False, separate_activations=True)
    close(separate.model(x), [y, z])


def test_a_softmax_that_something_else_reads_stays():
    inputs = keras.Input((4,))
    p = layers.Dense(3, activation="softmax", name="p")(inputs)
    model = keras.Model(inputs, [p, layers.Dense(2, name="q")(p)])
    canonical = canonicalize(model, keep_output_activation=False)
    assert canonical.heads == (None, None)
    x = inputs_of(model)
    close(canonical.model(x), model(x))


def test_a_convolution_whose_output_is_also_an_output_is_not_folded():
    inputs = keras.Input((5, 5, 1))
    z = layers.Conv2D(2, 3, name="conv")(inputs)
    model = randomize(keras.Model(inputs, [z, layers.BatchNormalization(name="bn")(z)]))
    canonical = canonicalize(model)
    assert canonical.folded == {}
    x = inputs_of(model)
    close(canonical.model(x), model(x))


def test_the_model_of_the_user_is_left_alone_and_the_clone_trains_saves_and_converts(tmp_path):
    model = image_net()
    nodes = [len(layer.inbound_nodes) for layer in model.layers]
    before = [w.copy() for w in model.get_weights()]
    clone = canonicalize(model).model
    x = inputs_of(model, count=8)
    close(keras.models.load_model(save(clone, tmp_path / "clone.keras"))(x), clone(x))
    assert len(tf.lite.TFLiteConverter.from_keras_model(clone).convert()) > 1000
    clone.compile("sgd", "sparse_categorical_crossentropy")
    clone.fit(x[0], np.arange(8) % 4, verbose=0)
    assert nodes == [len(layer.inbound_nodes) for layer in model.layers]
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    assert [t.name for t in clone.inputs] == ["image"]


def save(model, path):
    model.save(path)
    return path


def test_shared_layers_stay_shared():
    calls = [op.name for op in Operations(canonicalize(nested_net()).model)]
    assert "shared" in calls
    assert "shared#2" in calls


def test_a_custom_layer_without_config_is_refused_by_name():
    class Odd(layers.Layer):
        def __init__(self, factor):
            super().__init__(name="odd")
            self.factor = factor

        def call(self, x):
            return x * self.factor

        def get_config(self):
            return {"name": "odd"}

    inputs = keras.Input((4,))
    with pytest.raises(ModelError, match=r"odd.*Odd.*get_config"):
        canonicalize(keras.Model(inputs, Odd(2.0)(inputs)))


TAKERS = {
    "dense": ((8,), lambda: layers.Dense(4)),
    "dense of an image": ((3, 3, 8), lambda: layers.Dense(4, use_bias=False)),
    "convolution": ((5, 5, 3), lambda: layers.Conv2D(4, 3, padding="same")),
    "depthwise": ((5, 5, 4), lambda: layers.DepthwiseConv2D(3)),
    "separable": ((5, 5, 3), lambda: layers.SeparableConv2D(4, 3)),
    "transposed": ((4, 4, 3), lambda: layers.Conv2DTranspose(4, 3, use_bias=False)),
}
SIGNED = np.float32([1.5, -0.7, 0.0, 2.0])
BEHIND = {
    "product": lambda t: t * SIGNED,
    "quotient": lambda t: t / -2.0,
    "rescaling": lambda t: layers.Rescaling(SIGNED.tolist(), 0.3)(t),
    "batch norm and product": lambda t: layers.BatchNormalization()(t) * SIGNED,
    "product and batch norm": lambda t: layers.BatchNormalization()(SIGNED * t),
    "one minus": lambda t: 1.0 - t,
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("name", BEHIND)
def test_factors_that_are_not_all_positive_go_into_the_layer_in_front_of_them(taker, name):
    shape, make = TAKERS[taker]
    start = keras.Input(shape)
    model = randomize(keras.Model(start, layers.ReLU()(BEHIND[name](make()(start)))))
    found = canonicalize(model)
    x = np.random.default_rng(1).normal(size=(4, *shape)).astype(np.float32)
    np.testing.assert_allclose(found.model.predict(x, verbose=0), model.predict(x, verbose=0), atol=2e-5)
    assert len(found.model.layers) == 3
    kernel, gain = layer_kernels(model.layers[1], model.layers[1].name)[-1], next(iter(found.gains.values()))
    folded = layer_kernels(found.model.layers[1], found.model.layers[1].name)[-1]
    np.testing.assert_allclose(folded.value, kernel.value * gain, atol=1e-6)


@pytest.mark.parametrize("name", ["positive", "read by others", "behind an activation", "of another axis"])
def test_other_factors_stay_where_they_are(name):
    start = keras.Input((3, 4))
    x = layers.Dense(4, activation="relu" if name == "behind an activation" else None)(start)
    factors = {"positive": np.abs(SIGNED) + 1, "of another axis": np.float32([[1.0], [-1.0], [2.0]])}.get(name, SIGNED)
    y = x * factors
    model = keras.Model(start, layers.Add()([x, y]) if name == "read by others" else y)
    assert not canonicalize(model).folded


def test_a_layer_may_be_called_like_the_path_of_another_one():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(5, "relu", name="b")], name="a")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3)(inner(inputs) + layers.Dense(5, name="a/b")(inputs)))
    clone = canonicalize(model).model
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    np.testing.assert_allclose(clone(x), model(x), rtol=0, atol=1e-6)
    assert len({one.path for one in Operations(model)}) == len(Operations(model))
