"""Masks of attention and of pooling in integer files: what they leave is as fine as it would be without them."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.models.given import as_model
from keras_xaic.tflite import build_tflite
from keras_xaic.tflite.convert import Wish, converted
from keras_xaic.tflite.flatbuffer import operators
from keras_xaic.tflite.io_types import with_io
from tests.tflite.models import run

LENGTH, WORDS = 10, 30
NEAR = 0.08
"""Standard deviations of the outputs; masks that stay far leave 0.2 to 1.1."""


def padded_texts(count=120):
    random = np.random.default_rng(0)
    texts = random.integers(1, WORDS, (count, LENGTH)).astype(np.int32)
    for text in texts:
        text[random.integers(3, LENGTH + 1) :] = 0
    return texts


TEXTS = padded_texts()


def embedded(**options):
    texts = keras.Input((LENGTH,), dtype="int32")
    return texts, layers.Embedding(WORDS, 8, embeddings_initializer=keras.initializers.RandomNormal(0, 0.7), **options)(texts)


def head(inputs, x):
    return keras.Model(inputs, layers.Dense(3)(x))


def attended(x, mask):
    scores = tf.matmul(layers.Dense(8)(x), layers.Dense(8)(x), transpose_b=True)
    return layers.Flatten()(tf.matmul(tf.nn.softmax(scores + mask), x))


def largest_of_words():
    texts, x = embedded()
    absent = tf.cast(tf.equal(texts, 0), tf.float32)[..., None]
    return head(texts, tf.reduce_max(x + absent * -1e9, axis=1))


def chosen_scores():
    texts, x = embedded()
    scores = tf.where(tf.equal(texts, 0)[..., None], tf.constant(-1e9), layers.Dense(1)(x))
    return head(texts, tf.reduce_sum(tf.nn.softmax(scores, axis=1) * x, 1))


def gated_words():
    """Each word by itself."""
    texts, x = embedded()
    gates = tf.sigmoid(layers.Dense(8)(x) + tf.cast(tf.equal(texts, 0), tf.float32)[..., None] * -1e9)
    return head(texts, layers.Flatten()(tf.nn.relu(tf.where(tf.equal(texts, 0)[..., None], -1e9, x)) + gates))


def future(value):
    def make():
        texts, x = embedded()
        return head(texts, attended(x, np.triu(np.full((1, LENGTH, LENGTH), value, np.float32), 1)))

    return make


def layer_of_keras(**options):
    def make():
        texts, x = embedded()
        return head(texts, layers.Flatten()(layers.MultiHeadAttention(2, 4)(x, x, **options)))

    return make


def padded_rows():
    """Rows of words that are not there are masked entirely: all of these weigh alike there."""
    texts, x = embedded(mask_zero=True)
    return head(texts, layers.Reshape((LENGTH * 8,))(layers.MultiHeadAttention(2, 4)(x, x)))


def mask_given():
    """As BERT has it."""
    texts, x = embedded()
    mask = keras.Input((LENGTH,))
    return head([texts, mask], attended(x, (1.0 - mask[:, None, :]) * -10_000.0))


KINDS = {
    "largest": largest_of_words,
    "where": chosen_scores,
    "one by one": gated_words,
    "least number": future(np.finfo(np.float32).min),
    "infinite": future(-np.inf),
    "causal": layer_of_keras(use_causal_mask=True),
    "padded rows": padded_rows,
    "mask given": mask_given,
}


def made(kind):
    keras.utils.set_random_seed(2)
    return as_model(KINDS[kind]())


def inputs_of(model):
    return [TEXTS, (TEXTS > 0).astype(np.float32)][: len(model.inputs)]


def deviation(model, arrays, precision="int8"):
    """Returns how far a file is from Keras, as a share of the outputs' standard deviation."""
    content, wanted = with_io(build_tflite(model, arrays, precision=precision), "float32"), model.predict(arrays, verbose=0)
    return float(np.sqrt(np.mean((run(content, arrays)[0] - wanted) ** 2)) / wanted.std())


@pytest.mark.parametrize("kind", KINDS)
def test_integer_files_of_masks_are_near_keras(kind):
    model = made(kind)
    assert deviation(model, inputs_of(model)) < NEAR


@pytest.mark.parametrize(("precision", "most"), [("int16", NEAR / 2), ("float32", 1e-5)])
def test_other_files_too(precision, most):
    model = made("mask given")
    assert deviation(model, inputs_of(model), precision) < most


def test_masks_that_no_calibration_data_needs():
    model = made("where")
    assert deviation(model, [np.where(TEXTS == 0, 1, TEXTS)]) < NEAR


def test_large_constants_that_decide_nothing_are_left_alone():
    texts, x = embedded()
    model = keras.Model(texts, layers.Dense(3, "softmax")(layers.Flatten()(x)) * 20_000.0)
    assert not {one.kind for one in operators(converted(model, Wish("int8"), [TEXTS]))} & {"MAXIMUM"}
    assert deviation(model, [TEXTS]) < NEAR
