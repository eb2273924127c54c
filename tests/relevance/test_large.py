"""Accounts of whole networks: every layer's weights and biases add up to what arrives, DeepLIFT adds up to the difference."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras
from keras_xaic.relevance import Attribution
from tests.relevance.nets import auto_encoder, mobile_net, residual_net, settle


def application(name):
    def build():
        keras.utils.set_random_seed(0)
        model = getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3), classes=10)
        settle(model)
        return model

    return build


MODELS = {
    "residual net": lambda: residual_net()[0],
    "mobile net": mobile_net,
    "auto-encoder": lambda: auto_encoder()[0],
    "MobileNetV2": application("MobileNetV2"),
    "EfficientNetB0": application("EfficientNetB0"),
}
RULES = ["lrp.epsilon", "deeplift.rescale", "deeplift.reveal_cancel"]
CASES = [
    pytest.param(name, rule, marks=pytest.mark.slow if "Net" in name or "cancel" in rule else [], id=f"{name} {rule}")
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
