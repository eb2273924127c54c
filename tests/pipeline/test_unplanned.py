"""Weights that plans do not reach are counted, and a report says so where they are many."""

from __future__ import annotations

import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.models.kernels import other_weights
from keras_xaic.pipeline.reporting import unplanned


@pytest.fixture(scope="module")
def text_model():
    words = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, name="words")(words)
    x = layers.Bidirectional(layers.LSTM(4), name="both")(layers.MultiHeadAttention(2, 3, name="heads")(x, x))
    return keras.Model(words, layers.Dense(2, name="head")(x))


def test_weights_in_matrices_of_other_layers_are_counted(text_model):
    heads = 3 * (8 * 2 * 3 + 2 * 3) + 2 * 3 * 8  # biases of query, key and value are matrices, too
    assert other_weights(text_model) == {
        "words (Embedding)": 160,
        "heads (MultiHeadAttention)": heads,
        "both (Bidirectional)": 2 * (8 * 16 + 4 * 16),
    }


def test_a_report_says_how_many_and_in_which_layers(text_model):
    (said,) = unplanned(text_model)
    assert said.startswith("754 of 770 weights get 8 bits or more and no zeros")
    assert "in both (Bidirectional), heads (MultiHeadAttention), words (Embedding)." in said
    (said,) = unplanned(text_model, {"words": 3, "both": 4})
    assert said.endswith("they were rounded; bits: words 3, both 4.")


def test_nothing_is_said_of_a_few(text_model):
    inputs = keras.Input((8,))
    assert unplanned(keras.Model(inputs, layers.Dense(2)(inputs))) == []
