"""Accounts of whole networks: every layer's weights and biases add up to what arrives, DeepLIFT adds up to the difference."""

from __future__ import annotations

import numpy as np
import pytest
import test_engines

from keras_xaic._keras import keras, layers
from keras_xaic.relevance import Attribution


def mobile_net():
    """Depthwise and pointwise convolutions with BatchNorm and ReLU6, an inverted residual, a linear head."""
    keras.utils.set_random_seed(0)

    def step(x, filters, stride):
        y = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(x)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(filters, 1, use_bias=False)(y))
        return layers.Add()([x, y]) if stride == 1 and x.shape[-1] == filters else layers.ReLU(6.0)(y)

    x = inputs = keras.Input((16, 16, 3))
    for filters, stride in ((8, 1), (8, 1), (12, 2), (12, 1)):
        x = step(x, filters, stride)
    model = keras.Model(inputs, layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    test_engines.settle(model)
    return model


def application(name):
    def build():
        keras.utils.set_random_seed(0)
        model = getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3), classes=10)
        test_engines.settle(model)
        return model

    return build


MODELS = {
    "residual net": lambda: test_engines.residual_net()[0],
    "mobile net": mobile_net,
    "auto-encoder": lambda: test_engines.auto_encoder()[0],
    "MobileNetV2": application("MobileNetV2"),
    "EfficientNetB0": application("EfficientNetB0"),
}
RULES = ["lrp.epsilon", "deeplift.rescale", "deeplift.reveal_cancel"]
CASES = [
    pytest.param(name, rule, marks=pytest.mark.slow if "Net" in name else [], id=f"{name} {rule}")
    for name in MODELS
    for rule in RULES
    if (name, rule) != ("EfficientNetB0", "deeplift.reveal_cancel")
]


@pytest.mark.parametrize(("name", "rule"), CASES)
def test_every_layer_accounts_for_its_relevance(name, rule):
    model = MODELS[name]()
    rng = np.random.default_rng(4)
    x = rng.normal(0, 1, (8, *model.input_shape[1:])).astype(np.float32)
    classes = model.output_shape[-1]
    y = None if name == "auto-encoder" else np.arange(8) % classes
    attribution = Attribution(model, rule=rule)
    relevance = attribution.run(x, y, reduce="sum", batch_size=8)
    for path, scores in relevance.filters.items():
        key = path if path in relevance.weights else path + "/pointwise_kernel"
        total = relevance.weights[key].sum(dtype=np.float64) + relevance.biases.get(path, np.zeros(1)).sum(dtype=np.float64)
        assert abs(total - scores.sum(dtype=np.float64)) <= 1e-4 * max(np.abs(scores).sum(), 1e-30), path
    if rule.startswith("deeplift"):
        reference = x.mean(0, keepdims=True)
        found = attribution.input_relevance(x, target=1, reference=reference[0])[0].reshape(8, -1).sum(1, dtype=np.float64)
        logits = attribution.program.canonical.model
        difference = logits(x).numpy()[:, 1] - logits(reference).numpy()[:, 1]
        np.testing.assert_allclose(found, difference, rtol=0, atol=1e-4 * np.abs(difference).max())
