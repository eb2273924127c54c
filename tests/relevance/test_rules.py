"""Every rule on every kind of weighted layer against its definition (tests/relevance/oracle.py)."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.relevance import Attribution, ZBox, ZPlus
from keras_xaic.relevance.rules import RULES
from tests.relevance import oracle

LAYERS = {
    "dense": ((7,), lambda: layers.Dense(5)),
    "dense on sequences": ((4, 3), lambda: layers.Dense(5)),
    "conv2d": ((5, 6, 2), lambda: layers.Conv2D(3, (3, 2), strides=2, padding="same")),
    "conv2d dilated": ((6, 5, 2), lambda: layers.Conv2D(3, 2, dilation_rate=(2, 1))),
    "conv2d groups": ((4, 4, 4), lambda: layers.Conv2D(6, 2, groups=2, padding="same")),
    "conv1d causal": ((7, 2), lambda: layers.Conv1D(3, 3, padding="causal", dilation_rate=2)),
    "conv1d strided": ((8, 2), lambda: layers.Conv1D(3, 3, padding="same", strides=3)),
    "depthwise2d": ((5, 5, 3), lambda: layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same")),
    "depthwise1d": ((8, 3), lambda: layers.DepthwiseConv1D(3, strides=2, padding="same")),
    "transposed2d": ((3, 4, 2), lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same")),
    "transposed2d valid": ((3, 3, 2), lambda: layers.Conv2DTranspose(2, 3, strides=(1, 2))),
    "transposed1d": ((4, 2), lambda: layers.Conv1DTranspose(3, 3, strides=2)),
}


def net(kind, seed=0):
    shape, make = LAYERS[kind]
    rng = np.random.default_rng(seed)
    inputs = keras.Input(shape)
    first, second = make(), layers.Dense(3, activation="softmax", name="second")
    first._name = "first"
    model = keras.Model(inputs, second(layers.Flatten()(layers.ReLU()(first(inputs)))))
    for layer in (first, second):
        layer.set_weights([rng.normal(0, 1, w.shape).astype(np.float32) for w in layer.get_weights()])
    x = rng.normal(0, 1, (4, *shape)).clip(-2.9, 2.9).astype(np.float32)
    return model, first, second, x, rng.integers(0, 3, 4)


@functools.cache
def forms(kind):
    _, first, second, x, _ = net(kind)
    kernel, bias = (w.astype(np.float64) for w in second.get_weights())
    places = np.eye(kernel.size).reshape(kernel.size, *kernel.shape)
    return oracle.dense_form(first, x.shape[1:]), (kernel, bias, places)


def expected(rule, kind):
    _, _, _, x, y = net(kind)
    outer = "lrp.z_plus" if rule == "lrp.z_box" else rule
    return [
        oracle.two_layers(rule, outer, sample.reshape(-1).astype(np.float64), *forms(kind), label)
        for sample, label in zip(x, y)
    ]


def close(found, reference):
    reference = np.asarray(reference)
    scale = np.abs(reference).max()
    np.testing.assert_allclose(np.reshape(found, reference.shape), reference, rtol=0, atol=1e-5 * scale)


QUICK = {"lrp.epsilon"}
QUICK_KINDS = {"conv2d", "dense on sequences"}
SAME = {"lrp.z": {"conv2d"}, "lrp.alpha_1_beta_0": {"conv2d"}}  # nearly the same code as another rule: once is enough
CASES = [
    pytest.param(rule, kind, marks=[] if rule in QUICK or kind in QUICK_KINDS - SAME.get(rule, set()) else [pytest.mark.slow])
    for rule in RULES
    for kind in LAYERS
]


@pytest.mark.parametrize(("rule", "kind"), CASES)
def test_rule_follows_its_definition(rule, kind):
    found = expected(rule, kind)
    model, first, _, x, y = net(kind)
    attribution = Attribution(model, rule={"first": ZBox(-3.0, 3.0), "*": ZPlus()} if rule == "lrp.z_box" else rule)
    (inputs,) = attribution.input_relevance(x, y)
    close(inputs, np.stack([r_in for r_in, _, _ in found]).reshape(x.shape))
    channels = first.get_weights()[1].size
    of_filters = [np.abs(r_h.reshape(-1, channels).sum(0)) for _, _, r_h in found]
    absolute, signed = attribution.run(x, y), attribution.run(x, y, reduce="sum")
    for i, name in enumerate(("first", "second")):
        each = np.stack([weights[i] for _, weights, _ in found])
        close(absolute.weights[name], np.abs(each).mean(0).reshape(absolute.weights[name].shape))
        close(signed.weights[name], each.sum(0).reshape(signed.weights[name].shape))
    close(absolute.filters["first"], np.mean(of_filters, axis=0))


def test_samples_are_brought_together_as_documented():
    x, y = net("conv2d")[3:]
    each = np.stack([weights[0] for _, weights, _ in expected("lrp.alpha_2_beta_1", "conv2d")]).reshape(4, 3, 2, 2, 3)
    attribution = Attribution(net("conv2d")[0], rule="lrp.alpha_2_beta_1")
    decay = 0.99 ** np.arange(3, -1, -1).reshape(4, 1, 1, 1, 1)
    wanted = {
        "mean_abs": np.abs(each).mean(0),
        "mean": each.mean(0),
        "sum": each.sum(0),
        "rms": np.sqrt((each**2).mean(0)),
        "momentum": (decay * each).sum(0) / decay.sum(),
    }
    for reduce, reference in wanted.items():
        for batch_size in (1, 3, 64) if reduce == "momentum" else (3,):
            close(attribution.run(x, y, reduce=reduce, batch_size=batch_size).weights["first"], reference)


@pytest.mark.parametrize("rule", ["deeplift.rescale", "deeplift.reveal_cancel"])
@pytest.mark.parametrize(
    "kind",
    ["dense on sequences", "conv2d", *(pytest.param(k, marks=pytest.mark.slow) for k in ("depthwise2d", "transposed1d"))],
)
def test_deeplift_follows_its_definition(rule, kind):
    model, first, _, x, y = net(kind)
    reference = np.random.default_rng(5).normal(0, 1, x.shape[1:]).astype(np.float32)
    found = [
        oracle.deeplift_two_layers(
            rule == "deeplift.reveal_cancel",
            sample.reshape(-1).astype(np.float64),
            reference.reshape(-1).astype(np.float64),
            *forms(kind),
            label,
        )
        for sample, label in zip(x, y)
    ]
    attribution = Attribution(model, rule=rule)
    (inputs,) = attribution.input_relevance(x, y, reference=reference)
    close(inputs, np.stack([c for c, _, _ in found]).reshape(x.shape))
    absolute = attribution.run(x, y, reference=reference)
    for i, name in enumerate(("first", "second")):
        each = np.stack([weights[i] for _, weights, _ in found])
        close(absolute.weights[name], np.abs(each).mean(0).reshape(absolute.weights[name].shape))
    channels = first.get_weights()[1].size
    close(absolute.filters["first"], np.mean([np.abs(c.reshape(-1, channels).sum(0)) for _, _, c in found], axis=0))
