"""Sequences with padding, whose positions `mask_zero` hides from what follows."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic._keras import keras, layers, tf
from keras_xaic.errors import XaicWarning
from keras_xaic.metrics import Task
from keras_xaic.models import canonicalize, weighted_kernels
from keras_xaic.models.given import as_model
from keras_xaic.models.losses import Targets
from keras_xaic.pruning.apply import prune_by_relevance
from keras_xaic.quantization.apply import quantize_by_plan
from keras_xaic.relevance.program import Program
from tests.plans import plan_for

TOKENS, LENGTH, TAGS = 12, 8, 3


def make_data(count=96):
    """Words and their tags; padding has word 0, and a tag that does not count."""
    rng = np.random.default_rng(0)
    x = rng.integers(1, TOKENS, (count, LENGTH))
    y = x % TAGS
    for row, length in enumerate(rng.integers(3, LENGTH, count)):
        x[row, length:], y[row, length:] = 0, -1
    return x, y


X, Y = make_data()


def tagger(kind):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((LENGTH,), dtype="int32", name="words")
    drawn = keras.initializers.RandomNormal(seed=0, stddev=1.0)
    z = layers.Embedding(TOKENS, 8, drawn, mask_zero=True, name="embedding")(inputs)
    if kind == "dense in front":
        z = layers.Dense(8, activation="relu", name="hidden")(z)
    z = layers.GRU(8, return_sequences=True, name="memory")(z)
    head = layers.Dense(TAGS, activation="softmax", name="head")
    return keras.Model(inputs, (layers.TimeDistributed(head, name="head") if kind == "time distributed" else head)(z))


KINDS = ("dense behind", "dense in front", "time distributed")


@pytest.mark.parametrize("kind", KINDS)
def test_masks_pass_wrappers_for_training(kind):
    flat = canonicalize(as_model(tagger(kind))).model
    wanted = flat.predict(X, verbose=0)
    grids = quantize_by_plan(flat, plan_for(flat, 8))
    relevance = {kernel.key: np.ones(kernel.shape, np.float32) for kernel in weighted_kernels(flat)}
    pruned = prune_by_relevance(flat, dict.fromkeys(relevance, 1e-06), relevance, 10)
    assert {kernel.path for kernel in weighted_kernels(flat)} == {"head", *(["hidden"] if "front" in kind else [])}
    for wrapped in (grids, pruned):
        np.testing.assert_allclose(wrapped.predict(X, verbose=0), wanted, atol=0.02)
    assert np.abs(flat.predict(np.where(X == 0, 1, X), verbose=0) - wanted).max() > 0.02, "masks make a difference here"


def test_relevance_sees_masks_behind_dense_layers():
    inputs = keras.Input((LENGTH,), dtype="int32")
    z = layers.Dense(6, name="hidden")(layers.Embedding(TOKENS, 8, mask_zero=True)(inputs))
    model = keras.Model(inputs, layers.Dense(TAGS, name="head")(layers.GlobalAveragePooling1D()(z)))
    program = Program(model)
    tensors = program.forward([tf.constant(X)])
    np.testing.assert_allclose(tensors[program.operations.outputs[0]], model.predict(X, verbose=0), atol=1e-6)


def test_a_dense_layer_at_every_position_is_a_dense_layer():
    model = tagger("time distributed")
    plain = as_model(model)
    assert type(plain.get_layer("head")) is layers.Dense
    np.testing.assert_allclose(plain.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-6)
    assert as_model(plain) is plain


def test_positions_that_do_not_count():
    task = Task("segmentation", 3, "softmax")
    outputs = np.eye(3)[np.array([[0, 1, 2, 2]])] * 0.9
    assert task.score(outputs, np.array([[0, 1, -1, -1]])) == 1.0
    assert task.judged_by("pixel_accuracy").score(outputs, np.array([[0, 0, -1, 1]])) == pytest.approx(1 / 3)
    with pytest.raises(xaic.DataError, match="all positions have class -1"):
        task.score(outputs, np.full((1, 4), -1))
    both = Targets(task, xaic.Samples(outputs, np.array([[0, 1, -1, 2]])), None)[:1]
    assert both[0, 0].reshape(4, 3).sum(axis=1).tolist() == [1, 1, 0, 1], "no class, and no loss"


def test_labels_outside_the_classes_are_refused_with_advice():
    model = tagger("dense behind")
    with pytest.raises(xaic.DataError, match=r"y_train\[0\] is class 7.*-1 where a position does not count"):
        xaic.compress(model, (X, np.where(Y == 1, 7, Y)), out="never")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", [-1, 0])
def test_taggers_are_compressed(tmp_path, kind, padding):
    model = tagger(kind)
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(X, np.maximum(Y, 0), epochs=15, verbose=0)
    device = xaic.Device(target="mobile", baselines=("int8", "magnitude", "cluster"))
    with (
        contextlib.nullcontext()
        if padding == -1
        else pytest.warns(XaicWarning, match="A mask .* hides positions of output head")
    ):
        report = xaic.compress(
            model,
            (X, np.where(Y == -1, padding, Y)),
            training=xaic.Training(epochs=1),
            device=device,
            options=xaic.DataOptions(metric="pixel_accuracy"),
            out=tmp_path / "out",
        )
    chosen = model.predict(X, verbose=0).argmax(-1)
    counted = Y != -1 if padding == -1 else np.ones(Y.shape, bool)
    assert report.original.keras_metric == pytest.approx(np.mean((chosen == np.maximum(Y, 0))[counted]))
    assert report.compressed.edge_metric > 0.9 or padding == 0
    assert set(report.baselines) == {"int8", "magnitude", "cluster"}
    xaic.verify(tmp_path / "out", (X, np.where(Y == -1, padding, Y)))
