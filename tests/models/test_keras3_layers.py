"""Layers and wrappers that only Keras 3 has; what needs Keras 3 runs where it is installed."""

from __future__ import annotations

import importlib
import inspect

import numpy as np
import pytest

from keras_xaic.errors import ModelError
from keras_xaic.models import keras3_layers, load_model
from keras_xaic.models.given import as_model
from keras_xaic.models.keras3 import _Translation, is_keras3
from keras_xaic.models.keras3_objects import from_keras3
from keras_xaic.models.wrapped import NORMALIZED
from keras_xaic.relevance import attribute

keras = importlib.import_module("keras")
pytestmark = pytest.mark.skipif(not is_keras3(keras.__version__), reason="Keras 3 is not installed")

FACTORS = {
    "RandomHue": 0.2,
    "RandomPosterization": 4,
    "RandomSaturation": 0.3,
    "RandomSharpness": 0.3,
    "RandomColorDegeneration": 0.5,
    "RandomBrightness": 0.2,
    "RandomContrast": 0.2,
    "RandomRotation": 0.1,
    "RandomTranslation": 0.1,
    "RandomZoom": 0.1,
}


def same(model, path, suffixes=(".keras", ".h5")):
    """Whether the object and the files compute what Keras 3 computes."""
    x = np.random.default_rng(0).uniform(0, 1, size=(3, *model.input_shape[1:])).astype(np.float32)
    made = [from_keras3(model)]
    for suffix in suffixes:
        model.save(path / f"model{suffix}")
        made.append(load_model(path / f"model{suffix}"))
    for one in made:
        np.testing.assert_allclose(one.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    return made[0]


def test_every_layer_of_keras_3_is_known():
    """Each class is one of Keras 2, or one that something stands for or that is refused by name; a new one fails here."""
    from keras_xaic._keras import layers as ours

    public = {name for name in dir(keras.layers) if isinstance(getattr(keras.layers, name), type)}
    public -= {name for name in public if hasattr(ours, name)}
    assert public - keras3_layers.KNOWN - {"RMSNormalization"} == set()


@pytest.mark.parametrize("kind", sorted(keras3_layers.AUGMENTATIONS))
def test_augmentations_do_nothing(kind, tmp_path):
    named = {"RandomTranslation": ["height_factor", "width_factor"], "RandomZoom": ["height_factor"]}.get(kind, ["factor"])
    layer = getattr(keras.layers, kind)(**(dict.fromkeys(named, FACTORS[kind]) if kind in FACTORS else {}))
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(255.0), layer, layers.Conv2D(4, 3), layers.Flatten()])
    same(model, tmp_path, (".keras",))


PREPARATIONS = {
    "resized": lambda layers: layers.Resizing(12, 10),
    "resized without distortion": lambda layers: layers.Resizing(6, 10, interpolation="bicubic", crop_to_aspect_ratio=True),
    "cropped": lambda layers: layers.CenterCrop(6, 5),
    "scaled": lambda layers: layers.Rescaling(1 / 127.5, offset=-1),
}


@pytest.mark.parametrize("kind", PREPARATIONS)
def test_images_are_prepared_in_the_model(kind, tmp_path):
    """Keras 3 says more of such layers than Keras 2 knows."""
    augmented = keras.Sequential([keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.1)])
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), augmented, PREPARATIONS[kind](keras.layers), keras.layers.Conv2D(4, 3), keras.layers.Flatten()]
    )
    same(model, tmp_path, (".keras",))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda layers: layers.Resizing(6, 10, pad_to_aspect_ratio=True), "pad_to_aspect_ratio=True, which Keras 2"),
        (lambda layers: layers.Resizing(6, 10, antialias=True), "antialias=True, which Keras 2"),
        (lambda layers: layers.RandomCrop(6, 5), r"\(RandomCrop\) is a layer of Keras 3 that has no counterpart"),
    ],
)
def test_preparations_that_keras_2_computes_otherwise_are_refused(make, said, tmp_path):
    keras.Sequential([keras.Input((8, 8, 3)), make(keras.layers), keras.layers.Conv2D(4, 3)]).save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match=said):
        load_model(tmp_path / "model.keras")


def test_spectral_normalization_comes_off(tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.SpectralNormalization(layers.Conv2D(8, 3)),
            layers.SpectralNormalization(layers.Conv2D(8, 3, use_bias=False)),
            layers.Flatten(),
            layers.SpectralNormalization(layers.Dense(4), name="head"),
        ]
    )
    model(np.ones((2, 6, 6, 3), np.float32), training=True)  # which changes kernels
    made = same(model, tmp_path)
    assert made.layers[-1].name == "head"
    assert not any(type(layer).__name__ == NORMALIZED for layer in made.layers)


def test_spectral_normalization_of_keras_2_comes_off(tmp_path):
    from keras_xaic._keras import keras as keras2
    from keras_xaic._keras import layers

    inside = layers.Conv2D(8, 3, activation="relu")
    model = keras2.Sequential([keras2.Input((6, 6, 3)), layers.SpectralNormalization(inside, name="first"), layers.Flatten()])
    x = np.random.default_rng(0).normal(size=(3, 6, 6, 3)).astype(np.float32)
    model(x, training=True)
    for suffix in (".h5", ".keras"):
        model.save(tmp_path / f"model{suffix}")
        made = as_model(tmp_path / f"model{suffix}")
        assert [layer.name for layer in made.layers[-2:]] == ["first", model.layers[-1].name]
        assert type(made.layers[-2]) is layers.Conv2D
        np.testing.assert_allclose(made.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


def test_low_rank_adaptation_is_in_the_kernel(tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((6, 6, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(4)]
    )
    for layer in (model.layers[0], model.layers[2]):
        layer.enable_lora(2)
        for weight in layer.weights:
            weight.assign(np.random.default_rng(1).normal(size=weight.shape))
    same(model, tmp_path, (".keras",))
    model.save(tmp_path / "model.h5")
    with pytest.raises(ModelError, match=r"LoRA.*Save the model as \.keras"):
        load_model(tmp_path / "model.h5")


def test_a_model_that_keras_quantized_is_refused_with_the_reason(tmp_path):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model.quantize("int8")
    model.save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match=r"'dense.*weights that Keras quantized.*before model\.quantize"):
        load_model(tmp_path / "model.keras")


def test_a_layer_without_a_counterpart_is_refused_with_a_way_out(tmp_path):
    inputs = keras.Input((2000,))
    spectrum = keras.layers.MelSpectrogram(fft_length=256, sequence_stride=128, num_mel_bins=16, name="mel")
    model = keras.Model(inputs, keras.layers.Conv1D(4, 3)(spectrum(inputs)))
    model.save(tmp_path / "model.keras")
    with pytest.raises(
        ModelError, match=r"'mel' \(MelSpectrogram\) is a layer of Keras 3 .*get_layer\('mel'\)\.output"
    ) as raised:
        load_model(tmp_path / "model.keras")
    assert "custom" not in str(raised.value)
    behind = keras.Model(model.get_layer("mel").output, model.output)  # the way out
    behind.save(tmp_path / "behind.keras")
    assert load_model(tmp_path / "behind.keras").input_shape == behind.input_shape


def test_a_model_that_draws_random_numbers_is_named():
    @keras.saving.register_keras_serializable("drawing")
    class Sampling(keras.layers.Layer):
        def call(self, mean):
            return mean + keras.random.normal(keras.ops.shape(mean))

    from keras_xaic._keras import keras as keras2
    from keras_xaic._keras import tf

    @keras2.utils.register_keras_serializable("drawing", name="Sampling")
    class Twin(keras2.layers.Layer):
        def call(self, mean):
            return mean + tf.random.normal(tf.shape(mean))

    inputs = keras.Input((3,))
    with pytest.raises(ModelError, match="draws random numbers"):
        from_keras3(keras.Model(inputs, Sampling()(keras.layers.Dense(2)(inputs))))


NUMBERED = {
    "looked up": lambda layers: layers.IntegerLookup(vocabulary=[1, 5, 7]),
    "looked up in one of three": lambda layers: layers.IntegerLookup(
        vocabulary=[1, 5, 7], num_oov_indices=3, output_mode="multi_hot"
    ),
    "sorted": lambda layers: layers.Discretization([1.5, 4.0]),
    "hashed": lambda layers: layers.Hashing(8),
}


def adapted(layers):
    layer = layers.Discretization(num_bins=4)
    layer.adapt(np.arange(10.0)[:, None])
    return layer


NUMBERED["sorted as the data says"] = adapted


@pytest.mark.parametrize("kind", NUMBERED)
def test_columns_become_numbers(kind, tmp_path):
    layers = keras.layers
    inputs = keras.Input((3,), dtype="float32" if "sorted" in kind else "int64")
    found = NUMBERED[kind](layers)(inputs)
    behind = found if "three" in kind else layers.Flatten()(layers.Embedding(9, 4)(found))
    model = keras.Model(inputs, layers.Dense(2)(behind))
    x = np.random.default_rng(0).integers(0, 9, (6, 3))
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"model{suffix}")
        for one in (as_model(model), load_model(tmp_path / f"model{suffix}")):
            np.testing.assert_allclose(one.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


def test_a_table_that_is_not_in_the_configuration_is_told_with_the_way_out(tmp_path):
    table = keras.layers.IntegerLookup(name="table")
    table.adapt(np.array([1, 5, 7]))
    model = keras.Sequential([keras.Input((3,), dtype="int64"), table, keras.layers.Embedding(9, 4)])
    model.save(tmp_path / "model.h5")
    for one in (model, tmp_path / "model.h5"):
        with pytest.raises(ModelError, match=r"'table' \(IntegerLookup\).*vocabulary=layer.get_vocabulary"):
            as_model(one)


def test_texts_are_refused_with_advice_that_works(tmp_path):
    words = keras.layers.TextVectorization(10, output_sequence_length=4, name="words")
    words.adapt(["one two", "two three"])
    model = keras.Sequential([keras.Input((1,), dtype="string"), words, keras.layers.Embedding(10, 3), keras.layers.Flatten()])
    with pytest.raises(ModelError, match=r"takes texts.*layer 'words'") as caught:
        from_keras3(model)
    advice = next(part for part in str(caught.value).split(", ") if part.startswith("keras.Model(model"))
    behind = eval(advice + ", model.outputs)", {"keras": keras, "model": model})
    assert from_keras3(behind).input_shape == (None, 4)
    model.save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match=r"holds the asset.*model behind it"):
        load_model(tmp_path / "model.keras")


def test_dropped_channels_are_layers_in_h5_files(tmp_path):
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.SpatialDropout2D(0.2), layers.Flatten()])
    same(model, tmp_path)


ARGUMENTS = {
    "units": 4, "filters": 4, "kernel_size": 3, "rate": 0.1, "stddev": 0.1, "n": 2, "target_shape": (4,), "dims": (2, 1),
    "input_dim": 5, "output_dim": 4, "num_heads": 2, "key_dim": 4, "factor": 0.1, "height_factor": 0.1, "width_factor": 0.1,
    "height": 4, "width": 4, "scale": 2.0, "activation": "relu", "axes": 1, "num_tokens": 4, "num_bins": 5, "max_tokens": 5,
    "equation": "ab,bc->ac", "output_shape": 3, "pool_size": 2, "size": 2, "padding": 1, "cropping": 1,
}  # fmt: skip
"""What constructors of layers ask for."""
LIKEWISE = {"InputLayer", "Lambda", "Layer", "Wrapper", "RandomCrop", "AbstractRNNCell", NORMALIZED}
"""Layers that are read in another way, or refused."""


def test_settings_of_every_layer_that_both_have_are_known():
    """As this release of Keras writes them where nothing is asked for; a new one with others fails here."""
    from keras_xaic._keras import layers as ours

    wanted = {"layer": keras.layers.LSTM(3), "cell": keras.layers.LSTMCell(3), "cells": [keras.layers.LSTMCell(3)]}
    tried = 0
    for name in sorted(set(dir(keras.layers)) & set(dir(ours)) - LIKEWISE):
        kind = getattr(keras.layers, name)
        if not isinstance(kind, type) or not issubclass(kind, keras.layers.Layer):
            continue
        asked = [one for one in inspect.signature(kind.__init__).parameters.values() if one.default is one.empty]
        given = {
            one.name: {**ARGUMENTS, **wanted}[one.name]
            for one in asked
            if one.kind is one.POSITIONAL_OR_KEYWORD and one.name != "self"
        }
        numbering = {"Discretization": {"num_bins": 4}, "IntegerLookup": {"vocabulary": [1, 2]}}
        extra = {"CategoryEncoding": {"num_tokens": 4}, **numbering}.get(name, {})
        layer = kind(**{**given, **extra})
        _Translation("a test").layer(keras.saving.serialize_keras_object(layer))
        tried += 1
    assert tried > 80


def masked(layers, behind):
    words = keras.Input((6,), dtype="int32")
    return keras.Model(words, layers.Flatten()(behind(layers.Embedding(9, 4, mask_zero=True)(words))))


MASKED = {
    "causal attention": lambda layers, z: layers.Attention()([z, z], use_causal_mask=True),
    "causal additive attention": lambda layers, z: layers.AdditiveAttention()([z, z], use_causal_mask=True),
    "causal heads": lambda layers, z: layers.MultiHeadAttention(2, 3)(z, z, use_causal_mask=True),
    "every step": lambda layers, z: layers.GRU(3)(layers.TimeDistributed(layers.Dense(4))(z)),
    "joined": lambda layers, z: layers.GRU(3)(layers.Concatenate()([z, layers.Dense(2)(z)])),
    "both ways": lambda layers, z: layers.Bidirectional(layers.LSTM(3, return_sequences=True))(z),
    "cells": lambda layers, z: layers.RNN([layers.LSTMCell(4), layers.GRUCell(5), layers.LSTMCell(3)])(z),
}


@pytest.mark.parametrize("kind", MASKED)
def test_masks_and_arguments_of_calls_are_kept(kind, tmp_path):
    """Masks are operations of their own in models of Keras 3, and layers of several inputs have arguments, too."""
    model = masked(keras.layers, lambda z: MASKED[kind](keras.layers, z))
    x = np.random.default_rng(0).integers(1, 9, (8, 6))
    x[::2, 4:] = 0
    wanted = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    for one in (as_model(model), load_model(tmp_path / "model.keras")):
        np.testing.assert_allclose(one.predict(x, verbose=0), wanted, atol=1e-5)


def test_relevance_of_recurrent_layers_with_masks():
    """Masks are tensors of their own in models of Keras 3, and have no relevance."""
    layers = keras.layers
    words = keras.Input((6,), dtype="int32")
    z = layers.Embedding(9, 4, mask_zero=True)(words)
    z = layers.LSTM(3, name="memory")(layers.Bidirectional(layers.GRU(3, return_sequences=True), name="both")(z))
    model = as_model(keras.Model(words, layers.Dense(2, name="head")(z)))
    x = np.random.default_rng(0).integers(1, 9, (8, 6))
    x[::2, 4:] = 0
    found = attribute(model, x, target=1).weights
    assert {"head", "memory/kernel", "both/forward_kernel"} <= set(found)


def test_masks_that_are_inputs():
    layers = keras.layers
    z, seen = keras.Input((5, 4)), keras.Input((5, 5), name="seen")
    model = keras.Model([z, seen], layers.MultiHeadAttention(2, 3)(z, z, attention_mask=seen))
    x, lower = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32), np.tril(np.ones((2, 5, 5), np.float32))
    np.testing.assert_allclose(as_model(model).predict([x, lower], verbose=0), model.predict([x, lower], verbose=0), atol=1e-5)
