"""Layers and models of the user's own in Keras 3: taken apart into what Keras has, with equal outputs."""

from __future__ import annotations

import functools
import importlib
import textwrap

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras
from keras_xaic.errors import ModelError
from keras_xaic.models.keras3 import is_keras3
from keras_xaic.models.keras3_objects import from_keras3
from keras_xaic.models.safety import check_config

keras3 = importlib.import_module("keras")
if not is_keras3(keras3.__version__):
    pytest.skip("Keras 3 is not installed", allow_module_level=True)
layers, ops = keras3.layers, keras3.ops


class Linear(layers.Layer):
    """The first layer of the guide on layers of one's own."""

    def __init__(self, units=5, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units), initializer="random_normal")
        self.b = self.add_weight(shape=(self.units,), initializer="random_normal")

    def call(self, x):
        return ops.matmul(x, self.w) + self.b

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class ClassToken(layers.Layer):
    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="random_normal")

    def call(self, x):
        count = ops.shape(x)[0]
        return ops.concatenate([ops.broadcast_to(self.token, [count, 1, x.shape[-1]]), x], axis=1)


class Patches(layers.Layer):
    def call(self, images):
        count, high, wide, channels = ops.shape(images)
        found = ops.image.extract_patches(images, size=4)
        return ops.reshape(found, (count, (high // 4) * (wide // 4), 16 * channels))


class Flat(layers.Layer):
    def call(self, x):
        return ops.reshape(x, [ops.shape(x)[0], x.shape[1] * x.shape[2]])


class Positions(layers.Layer):
    def __init__(self, size, width, **kwargs):
        super().__init__(**kwargs)
        self.tokens, self.places = layers.Embedding(size, width), layers.Embedding(12, width)

    def call(self, x):
        return self.tokens(x) + self.places(ops.arange(0, ops.shape(x)[-1], 1))


class Block(layers.Layer):
    """Names of its own parts are those of every other block."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, width, name="attention")
        self.inner = keras3.Sequential([layers.Dense(8, activation="relu", name="wide"), layers.Dense(width, name="narrow")])
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


class Excite(layers.Layer):
    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.pool, self.gate = layers.GlobalAveragePooling2D(keepdims=True), layers.Dense(channels, activation="sigmoid")

    def call(self, x):
        return x * self.gate(self.pool(x))


class Table(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=(9, 8), initializer="random_normal")

    def call(self, x):
        return ops.take(self.table, ops.cast(x, "int32"), axis=0)


class Latents(layers.Layer):
    """As in a Perceiver: what is asked is the same for all samples."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 8)

    def build(self, shape):
        self.latents = self.add_weight(shape=(4, 8), initializer="random_normal")
        self.attention.build((None, 4, 8), shape)

    def call(self, x):
        return self.attention(ops.repeat(self.latents[None], ops.shape(x)[0], axis=0), x)


class Mixed(layers.Layer):
    """A constant that nobody trains, beside a weight."""

    def build(self, shape):
        self.constant = ops.convert_to_tensor(np.eye(shape[-1], 6, dtype=np.float32))
        self.w = self.add_weight(shape=(6, 5), initializer="random_normal")

    def call(self, x):
        return ops.matmul(ops.matmul(x, self.constant), self.w)


class Neighbours(layers.Layer):
    """A layer on a graph that is always the same."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.edges = np.triu(np.ones((5, 5), np.float32))
        self.inner = layers.Dense(3)

    def call(self, x):
        return ops.einsum("ij,bjf->bif", self.edges, self.inner(x))


class Normalized(layers.Layer):
    def build(self, shape):
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        mean, variance = ops.moments(x, [1], keepdims=True)
        return ops.layer_normalization(x, self.gamma) + keras3.activations.glu(x - mean)[..., :1] * variance


class Windows(layers.Layer):
    """As in a Swin transformer."""

    def call(self, x):
        high, wide, channels = x.shape[1:]
        x = ops.reshape(x, (-1, high // 4, 4, wide // 4, 4, channels))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 16, channels))
        x = ops.softmax(x, axis=1)
        x = ops.reshape(x, (-1, high // 4, wide // 4, 4, 4, channels))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, high, wide, channels))


class Kernels(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 3, shape[-1], 4), initializer="random_normal")
        self.each = self.add_weight(shape=(4, 6), initializer="random_normal")

    def call(self, x):
        x = ops.relu(ops.conv(x, self.kernel, strides=2, padding="same"))
        return ops.einsum("bhwc,cd->bhwd", x, self.each)


class MyDense(layers.Dense):
    def call(self, inputs, training=None):
        return super().call(inputs) * 2.0


class Curved(layers.Layer):
    def call(self, x):
        return keras3.activations.mish(x) + keras3.activations.softsign(x) * keras3.activations.log_softmax(x)


class Counted(layers.Dense):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.average = keras3.metrics.Mean(name="average")

    def call(self, x):
        made = super().call(x)
        self.average.update_state(made)
        return made


def squared(x):
    return ops.square(ops.relu(x))


def image():
    return keras3.Input((8, 8, 3), name="image")


def through(start, *steps):
    x = start
    for step in steps:
        x = step(x)
    return keras3.Model(start, x, name="net")


class Whole(keras3.Model):
    """A model of the user's own class."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.last = Linear(7), layers.Dense(3)

    def call(self, x):
        return self.last(ops.tanh(self.hidden(x)))


class OfTwo(keras3.Model):
    def __init__(self, by_name, **kwargs):
        super().__init__(**kwargs)
        self.by_name, self.some, self.others = by_name, layers.Dense(3), Linear(3)

    def call(self, x):
        some, others = (x["some"], x["others"]) if self.by_name else x
        return self.some(some) * self.others(others)


def of_two(by_name):
    model = OfTwo(by_name, name="net")
    arrays = [np.ones((2, 4), np.float32), np.ones((2, 4), np.float32)]
    model(dict(zip(("some", "others"), arrays)) if by_name else arrays)
    return model


def whole():
    model = Whole(name="net")
    model(np.zeros((1, 4), np.float32))
    return model


def two_inputs():
    some, others = keras3.Input((4,), name="some"), keras3.Input((4,), name="others")
    tower = Linear(3, name="tower")
    return keras3.Model([some, others], ops.abs(tower(some) - tower(others)), name="net")


MODELS = {
    "linear": lambda: through(keras3.Input((4,)), Linear(), layers.ReLU(), Linear(3)),
    "sequential": lambda: keras3.Sequential([keras3.Input((4,)), Linear(), layers.Dense(2)]),
    "nested": lambda: through(keras3.Input((4,)), keras3.Sequential([Linear(5), layers.ReLU()]), layers.Dense(2)),
    "class token": lambda: through(image(), Patches(), layers.Dense(8), ClassToken(), lambda x: x[:, 0]),
    "text": lambda: through(keras3.Input((12,), dtype="int32"), Positions(9, 8), Block(8), layers.GlobalAveragePooling1D()),
    "a length that may count samples": lambda: through(keras3.Input((99, 2)), layers.Conv1D(3, 3), Flat(), layers.Dense(2)),
    "blocks": lambda: through(keras3.Input((5, 8)), Block(8), Block(8)),
    "layer in a layer": lambda: through(keras3.Input((4,)), Twice(), Twice()),
    "excite": lambda: through(image(), layers.Conv2D(4, 3), Excite(4)),
    "table": lambda: through(keras3.Input((5,), dtype="int32"), Table(), layers.Flatten(), layers.Dense(2)),
    "latents": lambda: through(keras3.Input((5, 8)), Latents()),
    "constant": lambda: through(keras3.Input((4,)), Mixed()),
    "neighbours": lambda: through(keras3.Input((5, 8)), Neighbours(), Neighbours()),
    "normalized": lambda: through(keras3.Input((5, 8)), Normalized()),
    "windows": lambda: through(image(), Windows(), layers.Conv2D(2, 1)),
    "kernels": lambda: through(image(), Kernels(), layers.Flatten(), MyDense(3)),
    "mish": lambda: through(keras3.Input((4,)), Curved(), MyDense(3)),
    "metric": lambda: through(keras3.Input((4,)), Counted(3)),
    "activation": lambda: through(image(), layers.Conv2D(4, 3, activation=squared), layers.Activation(squared)),
    "activation that Keras cannot write": lambda: through(
        image(), layers.Conv2D(4, 3, activation=functools.partial(keras3.activations.relu, negative_slope=0.3))
    ),
    "lambda": lambda: through(image(), layers.Lambda(lambda x: x / 255 - 0.5), layers.Conv2D(3, 3)),
    "grouped queries": lambda: through(keras3.Input((5, 8)), lambda x: layers.GroupQueryAttention(4, 4, 2)(x, x, x)),
    "model": whole,
    "model of two inputs": lambda: of_two(False),
    "model of named inputs": lambda: of_two(True),
    "shared": two_inputs,
}


@pytest.fixture(params=MODELS)
def model(request):
    keras3.utils.set_random_seed(6)
    made = MODELS[request.param]()
    rng = np.random.default_rng(7)
    for weight in made.weights:
        if "int" not in weight.dtype and not weight.path.endswith(("variance", "seed_generator_state")):
            weight.assign(rng.normal(size=weight.shape) * 0.3)
    return made


def arrays_for(made):
    rng = np.random.default_rng(8)
    integers = [one.dtype.is_integer for one in made.inputs]
    shapes = [(7, *one.shape[1:]) for one in made.inputs]
    return [rng.integers(0, 9, shape) if whole else rng.normal(size=shape) for whole, shape in zip(integers, shapes)]


def test_outputs_are_those_of_keras_3_and_its_model_stays_as_it_is(model):
    parts = model._flatten_layers()
    calls, weights = [len(one._inbound_nodes) for one in parts], [np.array(one) for one in model.get_weights()]
    made = from_keras3(model)
    arrays = arrays_for(made)
    given = dict(zip(made.input_names, arrays)) if isinstance(made.input, dict) else arrays if len(arrays) > 1 else arrays[0]
    np.testing.assert_allclose(made.predict(given, verbose=0), np.asarray(model.predict(given, verbose=0)), atol=2e-5)
    assert [len(one._inbound_nodes) for one in parts] == calls
    for before, after in zip(weights, model.get_weights()):
        np.testing.assert_array_equal(before, after)
    names = [one.name for one in made.layers]
    assert not any(isinstance(one, keras.Model) for one in made.layers)
    again = from_keras3(model)
    assert [one.name for one in again.layers] == names, "a plan names layers; it has to hold for the next run, too"


def test_weights_of_the_users_own_layers_are_those_of_layers_that_are_compressed():
    for name, wanted in {"linear": [True, True], "constant": [False]}.items():
        weighted = [one for one in from_keras3(MODELS[name]()).layers if one.weights]
        assert [(type(one).__name__, one.use_bias) for one in weighted] == [("Dense", bias) for bias in wanted]


class Noise(layers.Layer):
    def call(self, x):
        return x + keras3.random.normal(ops.shape(x))


class Large(layers.Layer):
    """A constant that would be written into the configuration, as text."""

    def call(self, x):
        return ops.sum(x[:, None] * ops.ones((100_000, 4)), axis=1)


class Foreign(layers.Layer):
    def call(self, x):
        return ops.convert_to_tensor(np.asarray(x) * 2)


@pytest.mark.parametrize(
    ("layer", "found"),
    [(Noise, "another constant"), (Large, "a constant of 400,000 values"), (Foreign, "cannot be taken apart")],
)
def test_what_cannot_be_taken_apart_is_one_line(layer, found):
    model = keras3.Sequential([keras3.Input((4,))])
    start = keras3.Input((4,))
    made = layer(name="strange")
    made.compute_output_spec = lambda x: keras3.KerasTensor(x.shape)
    model = keras3.Model(start, made(start))
    with pytest.raises(ModelError, match=found) as caught:
        from_keras3(model)
    assert "\n" not in str(caught.value)


def test_layers_of_keras_that_nothing_stands_for_are_named_with_the_way_out():
    start = keras3.Input((64,))
    model = keras3.Model(start, layers.Flatten()(layers.MelSpectrogram(8, 4, 8, name="mel")(Linear(64)(start))))
    with pytest.raises(ModelError, match=r"'mel' \(MelSpectrogram\).*the model behind it"):
        from_keras3(model)


OWN = """
    import keras
    from keras import layers, ops

    @keras.saving.register_keras_serializable("mine")
    class Doubled(layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units, self.inner = units, layers.Dense(units)

        def build(self, shape):
            self.inner.build(shape)
            self.built = True

        def call(self, x):
            return 2 * self.inner(x)

        def get_config(self):
            return {**super().get_config(), "units": self.units}
"""


def test_a_file_is_read_with_the_classes_that_were_given(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(textwrap.dedent(OWN))
    scope = {"__name__": "elsewhere"}
    exec(own.read_text(), scope)
    keras3.utils.set_random_seed(3)
    model = keras3.Sequential([keras3.Input((4,)), scope["Doubled"](3), layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(tmp_path / "net.keras")
    x = np.random.default_rng(8).normal(size=(7, 4))
    wanted = model.predict(x, verbose=0)
    keras3.saving.get_custom_objects().pop("mine>Doubled")
    with pytest.raises(ModelError, match="Doubled"):
        xaic.load_model(tmp_path / "net.keras")
    try:
        loaded = xaic.load_model(tmp_path / "net.keras", allow_unsafe=True, custom_objects=own)
    finally:
        keras3.saving.get_custom_objects().pop("mine>Doubled")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), wanted, atol=1e-6)


def test_a_layer_whose_configuration_does_not_name_it_is_named():
    """As Keras 3 writes a layer with an ``__init__`` and without a ``get_config`` of its own."""
    layer = {"class_name": "Own", "module": "mine", "name": "mine", "config": {"trainable": True}, "registered_name": "Own"}
    with pytest.raises(ModelError, match=r"layer 'mine' needs the custom class 'Own'"):
        check_config({"class_name": "Sequential", "config": {"layers": [layer]}}, "net.keras", False)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_lambda_layer_in_a_file_is_read_where_it_is_allowed(name, tmp_path):
    keras3.utils.set_random_seed(0)
    model = through(keras3.Input((4,)), layers.Dense(3), layers.Lambda(lambda x: x * 2.0 - 1.0))
    model.save(tmp_path / name)
    with pytest.raises(ModelError, match="holds Python code"):
        xaic.load_model(tmp_path / name)
    x = np.ones((2, 4), np.float32)
    found = xaic.load_model(tmp_path / name, allow_unsafe=True).predict(x, verbose=0)
    np.testing.assert_allclose(found, model.predict(x, verbose=0), atol=1e-5)


def test_weights_that_two_calls_share_stay_one_layers():
    """They would be stored twice, and training would part them."""
    assert [one.name for one in from_keras3(two_inputs()).layers if one.weights] == ["tower"]
