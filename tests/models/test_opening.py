"""Layers of the user's own in Keras 2: taken apart into what Keras has, with equal outputs, or left as they are."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import ModelError
from keras_xaic.models.given import as_model


class Linear(layers.Layer):
    """The first layer of the guide on layers of one's own."""

    def __init__(self, units=5, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(name="w", shape=(shape[-1], self.units), initializer="random_normal")
        self.b = self.add_weight(name="b", shape=(self.units,), initializer="random_normal")

    def call(self, x):
        return tf.matmul(x, self.w) + self.b


class Patches(layers.Layer):
    def call(self, images):
        size = [1, 4, 4, 1]
        found = tf.image.extract_patches(images=images, sizes=size, strides=size, rates=[1, 1, 1, 1], padding="VALID")
        return tf.reshape(found, [tf.shape(images)[0], -1, found.shape[-1]])


class ClassToken(layers.Layer):
    def build(self, shape):
        self.token = self.add_weight(name="token", shape=(1, 1, shape[-1]), initializer="random_normal")

    def call(self, x):
        return tf.concat([tf.broadcast_to(self.token, [tf.shape(x)[0], 1, x.shape[-1]]), x], axis=1)


class TiledToken(ClassToken):
    def call(self, x):
        return tf.concat([tf.tile(self.token, [tf.shape(x)[0], 1, 1]), x], axis=1)


class Flat(layers.Layer):
    def call(self, x):
        return tf.reshape(x, [tf.shape(x)[0], x.shape[1] * x.shape[2]])


class Positions(layers.Layer):
    def __init__(self, size, width, **kwargs):
        super().__init__(**kwargs)
        self.tokens, self.places = layers.Embedding(size, width), layers.Embedding(12, width)

    def call(self, x):
        return self.tokens(x) + self.places(tf.range(start=0, limit=tf.shape(x)[-1], delta=1))


class Block(layers.Layer):
    """Names of its own parts are those of every other block."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, width, name="attention")
        self.inner = keras.Sequential([layers.Dense(8, activation="relu", name="wide"), layers.Dense(width, name="narrow")])
        self.first, self.second = layers.LayerNormalization(), layers.LayerNormalization()
        self.dropout = layers.Dropout(0.3)

    def call(self, x, training=False):
        x = self.first(x + self.dropout(self.attention(x, x), training=training))
        return self.second(x + self.inner(x))


class Twice(layers.Layer):
    """A layer of the user's in another one."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one, self.norm = Linear(6), layers.BatchNormalization()

    def call(self, x, training=None):
        return self.norm(self.one(x), training=training)


class Table(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(name="table", shape=(9, 8), initializer="random_normal")

    def call(self, x):
        return tf.gather(self.table, tf.cast(x, tf.int32)) + tf.nn.embedding_lookup(self.table, tf.cast(x, tf.int32))


class Latents(layers.Layer):
    """As in a Perceiver: what is asked is the same for all samples."""

    def build(self, shape):
        self.latents = self.add_weight(name="latents", shape=(4, 8), initializer="random_normal")
        self.attention = layers.MultiHeadAttention(2, 8)

    def call(self, x):
        return self.attention(tf.repeat(self.latents[None], tf.shape(x)[0], axis=0), x)


class Mixed(layers.Layer):
    """A constant that nobody trains, beside a weight."""

    def build(self, shape):
        self.constant = tf.constant(np.eye(shape[-1], 6, dtype=np.float32))
        self.w = self.add_weight(name="w", shape=(6, 5), initializer="random_normal")

    def call(self, x):
        return tf.matmul(tf.matmul(x, self.constant), self.w)


class Windows(layers.Layer):
    """As in a Swin transformer."""

    def call(self, x):
        _, high, wide, channels = x.shape
        x = tf.reshape(x, (-1, high // 4, 4, wide // 4, 4, channels))
        x = tf.nn.softmax(tf.reshape(tf.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 16, channels)), axis=1)
        x = tf.transpose(tf.reshape(x, (-1, high // 4, wide // 4, 4, 4, channels)), (0, 1, 3, 2, 4, 5))
        return tf.reshape(x, (-1, high, wide, channels))


class Conv(layers.Conv2D):
    def call(self, x):
        return tf.nn.relu(super().call(x))


class Standardized(layers.Conv2D):
    """Weights are standardized at every call."""

    def call(self, x):
        kernel = self.kernel - tf.reduce_mean(self.kernel, axis=(0, 1, 2))
        return tf.nn.conv2d(x, kernel, [1, 2, 2, 1], "SAME") + self.bias


class Depthwise(layers.DepthwiseConv2D):
    def call(self, x):
        return 2 * super().call(x)


class Own(layers.Dense):
    def call(self, x):
        return super().call(x) ** 2


def through(start, *steps):
    x = start
    for step in steps:
        x = step(x)
    return keras.Model(start, x, name="net")


def image():
    return keras.Input((8, 8, 3), name="image")


def two_inputs():
    some, others = keras.Input((4,), name="some"), keras.Input((4,), name="others")
    tower = Linear(3, name="tower")
    return keras.Model([some, others], tf.abs(tower(some) - tower(others)), name="net")


class Whole(keras.Model):
    """A model of the user's own class."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.inner, self.last = Linear(7), layers.Dropout(0.2), layers.Dense(3)

    def call(self, x, training=False):
        return self.last(self.inner(tf.tanh(self.hidden(x)), training=training))


class OfTwo(keras.Model):
    def __init__(self, by_name, **kwargs):
        super().__init__(**kwargs)
        self.by_name, self.some, self.others = by_name, layers.Dense(3), Linear(3)

    def call(self, x):
        some, others = (x["some"], x["others"]) if self.by_name else x
        return self.some(some) * self.others(others)


def of_two(by_name):
    model, arrays = OfTwo(by_name, name="net"), [np.ones((2, 4), np.float32), np.ones((2, 5), np.float32)]
    model.predict(dict(zip(("some", "others"), arrays)) if by_name else arrays, verbose=0)
    return model


def whole():
    model = Whole(name="net")
    model(np.zeros((1, 4), np.float32))
    return model


MODELS = {
    "model": whole,
    "model of two inputs": lambda: of_two(False),
    "model of named inputs": lambda: of_two(True),
    "linear": lambda: through(keras.Input((4,)), Linear(), layers.ReLU(), Linear(3)),
    "sequential": lambda: keras.Sequential([keras.Input((4,)), Linear(), layers.Dense(2)]),
    "nested": lambda: through(keras.Input((4,)), keras.Sequential([Linear(5), layers.ReLU()]), layers.Dense(2)),
    "class token": lambda: through(image(), Patches(), layers.Dense(8), ClassToken(), lambda x: x[:, 0]),
    "tiled token": lambda: through(image(), Patches(), TiledToken(), layers.Dense(3)),
    "text": lambda: through(keras.Input((12,)), Positions(9, 8), Block(8), layers.GlobalAveragePooling1D()),
    "a length that may count samples": lambda: through(keras.Input((99, 2)), layers.Conv1D(3, 3), Flat(), layers.Dense(2)),
    "blocks": lambda: through(keras.Input((5, 8)), Block(8), Block(8)),
    "layer in a layer": lambda: through(keras.Input((4,)), Twice(), Twice()),
    "table": lambda: through(keras.Input((5,)), Table(), layers.Flatten(), layers.Dense(2)),
    "latents": lambda: through(keras.Input((5, 8)), Latents()),
    "constant": lambda: through(keras.Input((4,)), Mixed()),
    "windows": lambda: through(image(), Windows(), layers.Conv2D(2, 1)),
    "convolutions": lambda: through(image(), Conv(4, 3), Standardized(5, 3), Depthwise(3, padding="same")),
    "dense": lambda: through(keras.Input((5, 8)), Own(4), layers.Flatten(), Own(3)),
    "lambda": lambda: through(image(), layers.Lambda(lambda x: x / 255 - 0.5), layers.Conv2D(3, 3)),
    "activations without names": lambda: through(
        image(),
        layers.Conv2D(4, 3, activation=lambda x: 2.0 * tf.nn.relu(x)),
        layers.Conv2D(3, 1, activation=functools.partial(tf.nn.leaky_relu, alpha=0.3)),
    ),
    "shared": two_inputs,
}


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_the_model_which_stays_as_it_is(name):
    keras.utils.set_random_seed(6)
    model, rng = MODELS[name](), np.random.default_rng(7)
    model.set_weights([np.abs(one + rng.normal(size=one.shape) * 0.3) for one in model.get_weights()])
    parts = model._flatten_layers()
    calls, names = [len(one._inbound_nodes) for one in parts], [one.name for one in model.layers]
    made = as_model(model)
    assert all(type(one).__module__.partition(".")[0] in ("keras", "tf_keras") for one in made._flatten_layers())
    arrays = [rng.uniform(0, 8, (7, *one.shape[1:])).astype(one.dtype.as_numpy_dtype) for one in made.inputs]
    given = tf.nest.pack_sequence_as(made.input, arrays)
    wanted = model.predict(given, verbose=0)
    np.testing.assert_allclose(made.predict(given, verbose=0), wanted, atol=2e-5 * np.abs(wanted).max())
    assert ([len(one._inbound_nodes) for one in model._flatten_layers()], [one.name for one in model.layers]) == (calls, names)
    assert [one.name for one in as_model(model).layers] == [one.name for one in made.layers], "plans name layers"


def test_weights_of_the_users_own_layers_are_those_of_layers_that_are_compressed():
    keras.utils.set_random_seed(6)
    kinds = {"linear": ["Dense"] * 2, "dense": ["Dense"] * 2, "convolutions": ["Conv2D", "Conv2D", "DepthwiseConv2D"]}
    assert sum(isinstance(one, layers.Embedding) for one in as_model(MODELS["table"]()).layers) == 1
    kinds["constant"] = ["Dense"]
    for name, wanted in kinds.items():
        weighted = [one for one in as_model(MODELS[name]()).layers if one.weights]
        assert [type(one).__name__ for one in weighted] == wanted
        assert all(one.use_bias is (name != "constant") for one in weighted)


class Penalized(layers.Layer):
    def call(self, x):
        self.add_loss(tf.reduce_mean(x))
        self.add_metric(x, "x")
        return tf.nn.relu(x)


class Counted(layers.Dense):
    def build(self, shape):
        super().build(shape)
        self.average = keras.metrics.Mean(name="average")

    def call(self, x):
        made = super().call(x)
        self.average.update_state(made)
        return made


def test_a_metric_that_a_call_updates_is_left_out_and_stays_as_it_is():
    keras.utils.set_random_seed(0)
    model = through(keras.Input((4,)), Counted(3))
    average = vars(model.layers[-1].average)
    before = average.get("update_state")
    made = as_model(model)
    assert average.get("update_state") is before
    assert [type(one).__name__ for one in made.layers] == ["InputLayer", "Dense"]
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(made(x), model(x), atol=1e-6)


def test_losses_of_a_call_stay_where_they_are():
    model = through(keras.Input((4,)), layers.Dense(3), Penalized())
    before = (len(model.layers[-1]._losses), len(model.losses), [one.name for one in model.layers[-1].metrics])
    assert all(type(one) is not Penalized for one in as_model(model).layers)
    assert (len(model.layers[-1]._losses), len(model.losses), [one.name for one in model.layers[-1].metrics]) == before


class Strict(layers.Layer):
    """It does not take symbolic tensors."""

    def call(self, x):
        if not isinstance(x, tf.Tensor):
            raise TypeError(f"{x} is no tensor")
        return x * 2


class Large(layers.Layer):
    """A constant that would be written into the configuration, as text."""

    def call(self, x):
        return tf.reduce_sum(x[:, None] * tf.ones((150_000, 3)), axis=1)


@pytest.mark.parametrize("layer", [Strict, Large])
def test_what_cannot_be_taken_apart_stays_as_it_is(layer):
    model = through(keras.Input((4,)), layers.Dense(3), layer(name="strange"))
    assert any(one.name == "strange" for one in as_model(model).layers)


def test_others_are_taken_apart_beside_what_cannot_be():
    keras.utils.set_random_seed(6)
    model = through(keras.Input((4,)), Linear(5), Strict(name="strange"), Linear(3), layers.Dense(2))
    made = as_model(model)
    assert [type(one).__name__ for one in made.layers[1:]] == ["Dense", "Strict", "Dense", "Dense"]
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    np.testing.assert_allclose(made(x), model(x), atol=1e-6)


def test_weights_that_two_calls_share_stay_one_layers():
    """They would be stored twice, and training would part them."""
    assert [one.name for one in as_model(two_inputs()).layers if one.weights] == ["tower"]


def test_an_activation_without_a_name_in_what_cannot_be_taken_apart_is_told_with_its_layer():
    model = through(keras.Input((5, 4)), layers.LSTM(3, activation=lambda x: tf.tanh(x), name="steps"))
    with pytest.raises(ModelError, match=r"layer 'steps' \(LSTM\) of model .* has an activation without a name"):
        as_model(model)
