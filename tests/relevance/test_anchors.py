"""Values computed by another library: zennit 0.5.1 on torch 2.13.0, for one small net with biases and inputs of both signs.

The net: Conv2D(4, 3), ReLU, Conv2D(5, 2, strides=2), ReLU, Flatten, Dense(3); all drawn from ``default_rng(7).normal(0, 0.5)``;
start relevance 1 at class 1. Stored: the input relevance at every eighth place, and its sum. Rules without a bias term were run
with ``zero_params="bias"``; zennit's epsilon is 1e-6 in absolute terms.

Ours is relative to the layer, and that alone makes 1.4e-5 of the largest value in plain LRP-epsilon. There the anchor is the
formula in float64 by NumPy with the relative one; with zennit's the same code is within 1.1e-6 of zennit.
"""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.relevance import Attribution

ANCHORS = {
    "lrp.epsilon": [
        -0.00666646,
        -0.07209581,
        0.48974443,
        0.5692089,
        -0.7468086,
        0.40558457,
        0,
        0.13306607,
        -0.07812808,
        -1.00823266,
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


BOTH = [
    (engine, rule)
    for engine in ("native", "innvestigate")
    for rule in ANCHORS
    if (engine, rule) != ("innvestigate", "lrp.gamma")
]
"""iNNvestigate has no gamma rule."""


@pytest.mark.parametrize(("engine", "rule"), BOTH)
def test_each_engine_agrees_with_the_anchors(engine, rule, record_property):
    if engine == "innvestigate":
        pytest.importorskip("innvestigate", reason="iNNvestigate is not installed")
    model, x = anchor_net()
    (relevance,) = Attribution(model, rule=rule, engine=engine).input_relevance(x, target=1)
    reference = np.array(ANCHORS[rule])
    found = np.append(relevance.reshape(-1)[::8], relevance.sum())
    deviation = np.abs(found - reference).max() / np.abs(reference).max()
    record_property("largest deviation", float(deviation))
    print(f"{engine} {rule}: deviates by {deviation:.1e} of the largest value")  # shown by pytest -rP
    assert deviation <= 1e-5
