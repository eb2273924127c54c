"""Attention and recurrent layers against plain loops in float64, biases included."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.relevance import Attribution

EPSILON = 1e-6


def ratio(relevance, z):
    z = z + np.where(z >= 0, 1.0, -1.0) * EPSILON * np.abs(z).mean()
    return relevance / z


def drawn(model, seed=0):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, 0.7, w.shape).astype(np.float32) for w in model.get_weights()])
    return model, rng.normal(0, 1, (1, *model.input_shape[1:])).astype(np.float32)


def head(model, features):
    """Relevance that arrives at the flat features of a dense head whose class 1 starts with 1."""
    kernel, bias = (w.numpy().astype(np.float64) for w in model.layers[-1].weights)
    z = features @ kernel + bias
    return features * (kernel @ ratio(np.array([0.0, 1.0]), z))


def close(found, reference):
    np.testing.assert_allclose(found, reference, rtol=0, atol=1e-5 * np.abs(reference).max())


def test_attention_with_constant_attention_weights():
    inputs = keras.Input((4, 3))
    x = layers.MultiHeadAttention(2, 5, name="mine")(inputs, inputs)
    model, sample = drawn(keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.Flatten()(x))))
    x = sample[0].astype(np.float64)
    wq, bq, wk, bk, wv, bv, wo, bo = (w.numpy().astype(np.float64) for w in model.get_layer("mine").weights)
    q, k, v = (np.einsum("ti,ihd->thd", x, w) + b for w, b in ((wq, bq), (wk, bk), (wv, bv)))
    scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(5)
    attention = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    context = np.einsum("hts,shd->thd", attention, v)
    y = np.einsum("thd,hdo->to", context, wo) + bo
    s = ratio(head(model, y.reshape(-1)).reshape(y.shape), y)
    of_context = context * np.einsum("to,hdo->thd", s, wo)
    of_v = v * np.einsum("thd,hts->shd", ratio(of_context, context), attention)
    s_v = ratio(of_v, v)
    attribution = Attribution(model)
    close(attribution.input_relevance(sample, target=1)[0][0], x * np.einsum("thd,ihd->ti", s_v, wv))
    weights = attribution.run(sample, target=1, reduce="sum").weights
    close(weights["mine/value_kernel"], wv * np.einsum("ti,thd->ihd", x, s_v))
    close(weights["mine/output_kernel"], wo * np.einsum("thd,to->hdo", context, s))
    assert not weights["mine/query_kernel"].any()
    absolute = attribution.run(np.repeat(sample, 3, 0), target=1).weights["mine/value_kernel"]
    close(absolute, np.abs(wv * np.einsum("ti,thd->ihd", x, s_v)))


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def test_lstm_with_constant_gates():
    model, sample = drawn(
        keras.Sequential([keras.Input((5, 3)), layers.LSTM(4, name="mine"), layers.Dense(2, activation="softmax")])
    )
    xs = sample[0].astype(np.float64)
    w, u, b = (v.numpy().astype(np.float64) for v in model.get_layer("mine").weights)
    h, c, steps = np.zeros(4), np.zeros(4), []
    for x in xs:
        i, f, z, o = np.split(x @ w + h @ u + b, 4)
        kept, added = sigmoid(f) * c, sigmoid(i) * np.tanh(z)
        steps.append((x, h, z, kept, added))
        c = kept + added
        h = sigmoid(o) * np.tanh(c)
    wc, uc = w[:, 8:12], u[:, 8:12]
    of_h, of_c = head(model, h), np.zeros(4)
    inputs, kernel, recurrent = [], np.zeros_like(w), np.zeros_like(u)
    for x, old, z, kept, added in reversed(steps):
        part = ratio(of_c + of_h, kept + added)
        s = ratio(added * part, z)
        inputs.insert(0, x * (wc @ s))
        kernel[:, 8:12] += wc * np.outer(x, s)
        recurrent[:, 8:12] += uc * np.outer(old, s)
        of_h, of_c = old * (uc @ s), kept * part
    attribution = Attribution(model)
    close(attribution.input_relevance(sample, target=1)[0][0], np.array(inputs))
    weights = attribution.run(sample, target=1, reduce="sum").weights
    close(weights["mine/kernel"], kernel)
    close(weights["mine/recurrent_kernel"], recurrent)


def test_gru_with_constant_gates():
    model, sample = drawn(
        keras.Sequential([keras.Input((5, 3)), layers.GRU(4, name="mine"), layers.Dense(2, activation="softmax")])
    )
    xs = sample[0].astype(np.float64)
    w, u, b = (v.numpy().astype(np.float64) for v in model.get_layer("mine").weights)
    h, steps = np.zeros(4), []
    for x in xs:
        (zx, rx, cx), (zh, rh, ch) = np.split(x @ w + b[0], 3), np.split(h @ u + b[1], 3)
        update, reset = sigmoid(zx + zh), sigmoid(rx + rh)
        z = cx + reset * ch
        kept, added = update * h, (1 - update) * np.tanh(z)
        steps.append((x, h, z, kept, added, reset))
        h = kept + added
    wc, uc = w[:, 8:], u[:, 8:]
    of_h, inputs, recurrent = head(model, h), [], np.zeros_like(u)
    for x, old, z, kept, added, reset in reversed(steps):
        part = ratio(of_h, kept + added)
        s = ratio(added * part, z)
        inputs.insert(0, x * (wc @ s))
        recurrent[:, 8:] += uc * np.outer(old, reset * s)
        of_h = old * (uc @ (reset * s)) + kept * part
    attribution = Attribution(model)
    close(attribution.input_relevance(sample, target=1)[0][0], np.array(inputs))
    close(attribution.run(sample, target=1, reduce="sum").weights["mine/recurrent_kernel"], recurrent)


def class_token(x):
    first = layers.Embedding(1, 3)(tf.zeros_like(x[:, :1, 0], tf.int32))
    tokens = layers.Concatenate(axis=1)([first, x]) + layers.Embedding(5, 3)(tf.range(5))[None]
    return layers.MultiHeadAttention(2, 5)(tokens, tokens)[:, 0]


def rows_as_numbers(x):
    rows = tf.reshape(tf.cast(tf.abs(x), tf.int32), (-1, 12))
    return layers.GlobalAveragePooling1D()(layers.Embedding(9, 6)(rows[:, :-1]))


@pytest.mark.parametrize("body", [class_token, rows_as_numbers])
@pytest.mark.parametrize("rule", ["lrp.epsilon", "lrp.gamma", "gradient_x_input", "deeplift.rescale"])
def test_whole_numbers_that_a_model_computes_end_no_run(body, rule):
    inputs = keras.Input((4, 3))
    model, sample = drawn(keras.Model(inputs, layers.Dense(2, activation="softmax")(body(inputs))))
    (found,) = Attribution(model, rule=rule, allow_approximate=True).input_relevance(3 * sample, target=1)
    assert np.isfinite(found).all()
    if rule.startswith("lrp"):
        assert found.any(axis=(0, 2)).all()
