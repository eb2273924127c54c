"""Models of Keras 3 in memory, and files for it; what needs Keras 3 runs where it is installed."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from keras_xaic._keras import keras as keras2
from keras_xaic.compression import CompressedModel
from keras_xaic.errors import ModelError, XaicWarning
from keras_xaic.models import load_model
from keras_xaic.models.given import as_model
from keras_xaic.models.keras3 import is_keras3
from keras_xaic.models.keras3_objects import from_keras3, is_keras3_object
from keras_xaic.models.regular import regularize
from keras_xaic.pipeline.inputs import load
from keras_xaic.planning import Plan
from keras_xaic.settings import DataOptions

keras = importlib.import_module("keras")
needs_keras3 = pytest.mark.skipif(not is_keras3(keras.__version__), reason="Keras 3 is not installed")


def attention():
    """Attention, the normalisations of Keras 3, a nested model and a layer that are called twice, two inputs and outputs."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((6, 8)), layers.Dense(8, activation="relu"), layers.LayerNormalization()])
    a, b = keras.Input((6, 8), name="a"), keras.Input((5,), name="b")
    x = layers.RMSNormalization()(layers.MultiHeadAttention(2, 4)(a, a))
    x = layers.Flatten()(layers.GroupNormalization(2)(inner(inner(x))))
    shared = layers.Dense(5, name="shared")
    x = layers.Concatenate()([shared(shared(b)), x])
    model = keras.Model([a, b], [layers.Dense(3, activation="softmax")(x), shared(b)])
    random = np.random.default_rng(1)
    for weight in model.weights:
        if "seed" not in weight.path:
            weight.assign(random.uniform(-0.5, 0.5, weight.shape))
    model.compile("adam", loss=lambda truth, given: 0.0)
    return model


def samples() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=(3, 6, 8)).astype(np.float32), random.normal(size=(3, 5)).astype(np.float32)]


@needs_keras3
def test_an_object_is_taken_over_whatever_it_was_compiled_with():
    model, x = attention(), samples()
    assert is_keras3_object(model)
    for given, wanted in zip(from_keras3(model).predict(x, verbose=0), model.predict(x, verbose=0)):
        np.testing.assert_allclose(given, wanted, atol=1e-5)


@needs_keras3
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_with_attention_and_normalisations(suffix, tmp_path):
    model, x = attention(), samples()
    wanted = model.predict(x, verbose=0)
    model.compile("adam", loss="mse")
    model.save(tmp_path / f"model{suffix}")
    for given, expected in zip(load_model(tmp_path / f"model{suffix}").predict(x, verbose=0), wanted):
        np.testing.assert_allclose(given, expected, atol=1e-5)


@needs_keras3
def test_unbuilt_models_are_named_and_subclassed_ones_taken_apart():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    own = Own()
    with pytest.raises(ModelError, match="has no weights yet"):
        load(own, DataOptions())
    own(np.zeros((1, 3), np.float32))
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(load(own, DataOptions())(x), np.asarray(own(x)), atol=1e-6)


def small():
    keras2.utils.set_random_seed(0)
    layers = keras2.layers
    x = inputs = keras2.Input((8, 8, 1))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(3, 3, name="conv")(x)))
    x = layers.DepthwiseConv2D(3, activation="relu")(x)
    return keras2.Model(inputs, layers.Dense(2, activation="softmax")(layers.Flatten()(x)))


@needs_keras3
def test_a_compressed_model_becomes_one_of_keras_3(tmp_path):
    model, x = small(), np.random.default_rng(0).uniform(size=(4, 8, 8, 1)).astype(np.float32)
    path = CompressedModel(model, {}, Plan(), {}).save_keras3(tmp_path / "model.keras")
    made = keras.models.load_model(path)
    assert is_keras3_object(made)
    np.testing.assert_allclose(made.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


@needs_keras3
def test_attention_and_normalisations_go_back_to_keras_3(tmp_path):
    x = samples()
    model = from_keras3(attention())
    made = keras.models.load_model(CompressedModel(model, {}, Plan(), {}).save_keras3(tmp_path / "model.keras"))
    for given, wanted in zip(made.predict(x, verbose=0), model.predict(x, verbose=0)):
        np.testing.assert_allclose(given, wanted, atol=1e-5)


@needs_keras3
def test_a_normalisation_that_was_taken_apart_goes_back_to_keras_3(tmp_path):
    layers, start = keras2.layers, keras2.Input((5, 6))
    middle = layers.LayerNormalization()(start)
    model = keras2.Model(start, layers.Add()([layers.Dense(6)(middle), middle]))
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in model.get_weights()])
    made = regularize(model)
    assert made is not model
    x = random.normal(size=(3, 5, 6)).astype(np.float32)
    back = keras.models.load_model(CompressedModel(made, {}, Plan(), {}).save_keras3(tmp_path / "model.keras"))
    np.testing.assert_allclose(back.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


@needs_keras3
def test_layers_of_nested_models_go_back_to_keras_3_without_slashes(tmp_path):
    """What is trained is a flat clone, whose layers are called ``inner/dense``; there is an ``inner_dense``, too."""
    layers = keras2.layers
    start = keras2.Input((5, 4))
    middle = layers.Dense(4, name="inner_dense")(start)
    for name in ("inner/dense", "inner/dense_"):
        middle = layers.Dense(4, "relu", name=name)(middle)
    middle = layers.MultiHeadAttention(1, 2, name="inner/attention")(middle, value=middle)
    model = keras2.Model(start, layers.Add(name="inner/add")([middle, middle]))
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    back = keras.models.load_model(CompressedModel(model, {}, Plan(), {}).save_keras3(tmp_path / "model.keras"))
    assert {"inner_dense", "inner_dense_", "inner_dense__", "inner_attention"} <= {layer.name for layer in back.layers}
    np.testing.assert_allclose(back.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


@needs_keras3
def test_a_model_that_keeps_a_state_is_taken_over_and_keeps_it():
    layers = keras.layers
    steps = [layers.LSTM(4, stateful=True, return_sequences=True), layers.Bidirectional(layers.GRU(3, stateful=True))]
    model = keras.Sequential([keras.Input((5, 2), batch_size=3), *steps])
    x = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
    wanted = [model(x), model(x)]
    for layer in steps:
        layer.reset_state()
    np.testing.assert_array_equal(model(x), wanted[0])
    kept = set(vars(model))
    made = from_keras3(model)
    made.reset_states()
    np.testing.assert_allclose(made(x), wanted[0], atol=1e-5)
    assert set(vars(model)) == kept
    np.testing.assert_array_equal(model(x), wanted[1])


@needs_keras3
def test_calls_in_training_mode_are_without_it_as_predict_has_them(tmp_path):
    inputs = keras.Input((4,))
    moved = keras.layers.BatchNormalization(moving_mean_initializer="ones")
    x = keras.layers.Dropout(0.5)(moved(inputs, training=True), training=True)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    for given in (model, tmp_path / "model.keras"):
        np.testing.assert_allclose(as_model(given)(x), model.predict(x, verbose=0), atol=1e-5)


@needs_keras3
def test_what_a_subclass_predicts_is_not_what_its_layers_compute():
    class Classes(keras.Model):
        def predict_step(self, data):
            return keras.ops.argmax(super().predict_step(data), -1)

    start = keras.Input((3,))
    assert from_keras3(Classes(start, keras.layers.Dense(2)(start))).output_shape == (None, 2)


@needs_keras3
@pytest.mark.parametrize("name", ["my layer", "_head", "größe", "a:b", ""])
def test_a_name_that_only_keras_3_takes_is_told_with_one_that_both_take(name):
    start = keras.Input((3,), name="in put")
    model = keras.Model(start, keras.layers.Dense(2, name=name)(start), name="my model")
    with pytest.raises(ModelError, match=r"has a name that Keras 2 does not take.*layer\.name = '\w+'") as caught:
        from_keras3(model)
    model.layers[-1].name = str(caught.value).split("'")[-2]
    assert from_keras3(model).predict(np.zeros((1, 3)), verbose=0).shape == (1, 2)


@pytest.mark.skipif(is_keras3(keras.__version__), reason="Keras 3 is installed")
def test_without_keras_3_it_is_asked_for(tmp_path):
    with pytest.raises(ModelError, match=r"Keras 3 is needed.*current stack"):
        CompressedModel(small(), {}, Plan(), {}).save_keras3(tmp_path / "model.keras")
    assert not list(tmp_path.iterdir())


def by_name():
    given = {"second": keras.Input((3,), name="second"), "first": keras.Input((4,), name="first")}
    joined = keras.layers.Concatenate()([given["second"], given["first"]])
    return keras.Model(given, {"wide": keras.layers.Dense(3)(joined), "narrow": keras.layers.Dense(1)(given["first"])})


def in_lists():
    one, two, three = (keras.Input((size,), name=f"in{size}") for size in (4, 3, 2))
    joined = keras.layers.Concatenate()([two, three])
    return keras.Model([one, (two, three)], {"both": [keras.layers.Dense(2)(joined), keras.layers.Dense(3)(one)]})


def called_by_name():
    inner = by_name()
    one, two = keras.Input((4,), name="one"), keras.Input((3,), name="two")
    return keras.Model([one, two], inner({"first": one, "second": two})["wide"])


@needs_keras3
@pytest.mark.parametrize("make", [by_name, in_lists, called_by_name])
def test_inputs_and_outputs_in_dictionaries_and_lists(make, tmp_path):
    model = make()
    model.save(tmp_path / "model.keras")
    random = np.random.default_rng(0)
    shapes = {one.name: one.shape[1:] for one in model.inputs}
    arrays = {name: random.normal(size=(5, *shape)).astype(np.float32) for name, shape in shapes.items()}
    given = keras.tree.map_structure(lambda one: arrays[one.name], model._inputs_struct)
    wanted = keras.tree.flatten(model(given))
    for made in (from_keras3(model), load_model(tmp_path / "model.keras")):
        found = made.predict([arrays[name] for name in made.input_names], verbose=0)
        for one, other in zip(keras.tree.flatten(found), wanted):
            np.testing.assert_allclose(one, np.asarray(other), atol=1e-5)


@needs_keras3
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float64"])
def test_models_that_compute_in_other_floats_compute_in_float32(policy, tmp_path):
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        start = keras.Input((4, 3))
        x = keras.layers.Dense(3)(start) + start  # of two types, which Keras 2 does not widen
        model = keras.Model(start, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    finally:
        keras.config.set_dtype_policy(before)
    model.save(tmp_path / "model.keras")
    model.save(tmp_path / "model.h5")
    x = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    wanted = keras.ops.convert_to_numpy(keras.ops.cast(model(x), "float32"))
    made = [from_keras3(model), *(load_model(tmp_path / name) for name in ("model.keras", "model.h5"))]
    outputs = [one.predict(x, verbose=0) for one in made]
    assert {one.dtype.name for one in outputs} == {"float32"}
    np.testing.assert_allclose(outputs[0], wanted, atol=0.05 if "bfloat16" in policy else 0.005)
    for one in outputs[1:]:
        np.testing.assert_allclose(one, outputs[0], atol=1e-6)


@needs_keras3
def test_own_regularizers_are_named_and_own_initializers_need_no_word():
    class Own(keras.regularizers.Regularizer):
        def __call__(self, x):
            return keras.ops.sum(x)

        def get_config(self):
            return {}

    class Start(keras.initializers.Initializer):
        def __call__(self, shape, dtype=None):
            return keras.ops.ones(shape, dtype)

        def get_config(self):
            return {}

    def smaller(weight):
        return weight * 0.9

    x = np.ones((2, 3), np.float32)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, kernel_initializer=Start())(inputs))
    np.testing.assert_allclose(from_keras3(model).predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    model = keras.Model(inputs, keras.layers.Dense(2, kernel_regularizer=Own(), bias_constraint=smaller)(inputs))
    with pytest.warns(XaicWarning, match="without: constraint 'smaller', regularizer 'Own'"):
        made = from_keras3(model)
    np.testing.assert_allclose(made.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


@needs_keras3
def test_what_is_looked_up_is_compared(monkeypatch):
    start = keras.Input((3,), dtype="int32")
    model = keras.Model(start, keras.layers.Embedding(5, 2)(start))
    made = from_keras3(model)
    table = made.layers[-1].get_weights()[0]
    table[1] += 1.0
    made.layers[-1].set_weights([table])
    monkeypatch.setattr("keras_xaic.models.keras3_objects.build_model", lambda *_: made)
    monkeypatch.setattr("keras_xaic.models.keras3_objects.load_archive_weights", lambda *_: None)
    with pytest.raises(ModelError, match="computes something else"):
        from_keras3(model)
