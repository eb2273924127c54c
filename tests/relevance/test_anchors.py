"""Values computed by another library: zennit 0.5.1 on torch 2.13.0, for one small net with biases and inputs of both signs.

The net: Conv2D(4, 3), ReLU, Conv2D(5, 2, strides=2), ReLU, Flatten, Dense(3); all drawn from ``default_rng(7).normal(0, 0.5)``;
start relevance 1 at class 1. Stored: the input relevance at every eighth place, and its sum. Rules without a bias term were run
with ``zero_params="bias"``; zennit's epsilon is 1e-6 in absolute terms.
"""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.relevance import Attribution

ZENNIT = {
    "lrp.epsilon": [
        -0.006666467,
        -0.07209589,
        0.4897452,
        0.5692101,
        -0.7468232,
        0.4055903,
        0,
        0.1330677,
        -0.07812902,
        -1.008242,
    ],
    "lrp.z_plus": [0.001207718, 0, 0.01270701, 0.02173842, 0, 0.003173991, 0, 0, 0, 0.999998],
    "lrp.alpha_2_beta_1": [
        0.009669363,
        0.05680352,
        -0.3749982,
        -0.02864857,
        -0.5009413,
        -1.000184,
        0,
        -0.006933154,
        0.002787179,
        0.9999937,
    ],
    "lrp.gamma": [
        -0.002168983,
        -0.02979982,
        0.09878273,
        0.0515462,
        0.1508867,
        0.07169782,
        0,
        0.007321278,
        -0.006667274,
        0.03912699,
    ],
    "lrp.flat": [
        0.003472221,
        0.006944442,
        0.02083332,
        0.01041666,
        0.02083332,
        0.03124999,
        0.006944442,
        0.01388888,
        0.01041666,
        0.9999996,
    ],
    "lrp.w_square": [
        0.0003852789,
        0.003463038,
        0.01552242,
        0.01761333,
        0.01115346,
        0.03459047,
        0.01982071,
        0.01599037,
        0.02914803,
        0.9999993,
    ],
    "lrp.epsilon_plus": [-0.0007991628, 0, 0.01572873, -0.0143846, 0.09686594, 0.01597559, 0, 0.001129301, 0, 0.1439534],
    "lrp.epsilon_plus_flat": [
        -0.005988892,
        0.01605947,
        -0.02500201,
        -0.008762522,
        0.04339313,
        -0.0224056,
        0,
        0.005275465,
        0,
        0.1439534,
    ],
    "lrp.epsilon_alpha2_beta1_flat": [
        -0.0090679,
        0.02576744,
        -0.03845071,
        -0.002144427,
        0.0470952,
        -0.05877043,
        0,
        0.005275464,
        -0.004925205,
        0.1439538,
    ],
    "lrp.z_box:-4,4": [0.009853138, 0, 0.03114496, 0.01789238, 0, 0.04358271, 0, 0, 0, 0.9999982],
}


def anchor_net():
    rng = np.random.default_rng(7)

    def draw(*shape):
        return rng.normal(0, 0.5, shape).astype(np.float32)

    weights = [draw(3, 3, 2, 4), draw(4), draw(2, 2, 4, 5), draw(5), draw(20, 3), draw(3)]
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Conv2D(5, 2, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.set_weights(weights)
    return model, draw(1, 6, 6, 2) * 2


@pytest.mark.parametrize("rule", ZENNIT)
def test_agrees_with_zennit(rule):
    model, x = anchor_net()
    (relevance,) = Attribution(model, rule=rule).input_relevance(x, target=1)
    reference = np.array(ZENNIT[rule])
    found = np.append(relevance.reshape(-1)[::8], relevance.sum())
    np.testing.assert_allclose(found, reference, rtol=0, atol=2e-5 * np.abs(reference).max())
