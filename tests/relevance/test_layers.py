"""Conservation: without biases, what goes in at the output comes out at the inputs, through every kind of layer."""

from __future__ import annotations

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.relevance import Attribution

L = layers


def image(*steps, shape=(8, 8, 3)):
    def build():
        x = inputs = keras.Input(shape)
        for step in steps:
            x = step(x)
        x = x if x.shape.rank == 2 else L.Flatten()(x)
        return keras.Model(inputs, L.Dense(4, use_bias=False, activation="softmax")(x))

    return build


def sequence(*steps, shape=(7, 5)):
    return image(*steps, shape=shape)


def conv(filters=6, size=3, **options):
    return L.Conv2D(filters, size, use_bias=False, padding="same", **options)


def gated(x):
    g = L.GlobalAveragePooling2D(keepdims=True)(x)
    g = L.Dense(x.shape[-1], activation="sigmoid", use_bias=False, name="squeeze")(g)
    return L.Multiply()([x, g])


def hard_swish(x):
    return L.Multiply()([x, L.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)])


def branches(join):
    return lambda x: join([conv()(x), conv()(x)])


def shared(x):
    layer = conv(3, name="shared")
    return layer(L.ReLU()(layer(x)))


def nested(x):
    inner = keras.Sequential([keras.Input(x.shape[1:]), conv(5), L.ReLU(), conv(4)], name="inner")
    return inner(x)


def attend(x):
    return L.MultiHeadAttention(2, 3, use_bias=False, name="attention")(x, x)


CASES = {
    "relu layer": image(conv(), L.ReLU()),
    "relu6 saturated": image(conv(), L.Rescaling(9.0), L.ReLU(6.0), conv()),
    "leaky": image(conv(), L.LeakyReLU(0.3), conv(), L.PReLU(alpha_initializer="normal"), conv(), L.ELU()),
    "activations": image(
        conv(activation="swish"), conv(activation="tanh"), conv(), L.Activation("sigmoid"), conv(activation="gelu")
    ),
    "layer as activation": image(conv(activation=L.LeakyReLU(0.2)), conv()),
    "relu6 function": image(conv(activation=tf.nn.relu6), conv()),
    "strides dilation groups": image(conv(strides=2), L.ReLU(), conv(dilation_rate=2), conv(groups=3)),
    "depthwise": image(
        L.DepthwiseConv2D(3, use_bias=False, depth_multiplier=2), L.ReLU(), L.DepthwiseConv2D(3, strides=2, use_bias=False)
    ),
    "separable": image(L.SeparableConv2D(6, 3, use_bias=False, depth_multiplier=2, padding="same"), L.ReLU()),
    "transposed": image(L.Conv2DTranspose(4, 3, strides=2, use_bias=False), L.ReLU()),
    "add": image(branches(L.Add())),
    "subtract": image(branches(L.Subtract())),
    "average": image(branches(L.Average())),
    "concatenate": image(branches(L.Concatenate())),
    "operators": image(branches(lambda xs: xs[0] + xs[1]), branches(lambda xs: xs[0] - xs[1])),
    "same twice": image(conv(), lambda x: L.Add()([x, x]), lambda x: x + x),
    "constants": image(lambda x: x * 2.0, conv(), lambda x: x / 3.0),
    "gate": image(conv(), gated, conv()),
    "hard swish": image(conv(), hard_swish, conv()),
    "product of signals": image(branches(L.Multiply())),
    "maximum": image(branches(L.Maximum()), branches(L.Minimum())),
    "pools": image(conv(), L.MaxPooling2D(2), conv(), L.AveragePooling2D(2), conv(), L.GlobalAveragePooling2D()),
    "overlapping pools": image(
        conv(), L.MaxPooling2D(3, 2, "same"), conv(), L.AveragePooling2D(3, 1, "same"), L.GlobalMaxPooling2D()
    ),
    "shapes": image(
        L.ZeroPadding2D(1), conv(), L.Cropping2D(1), L.Permute((2, 1, 3)), L.Reshape((4, 16, 6)), L.UpSampling2D(2)
    ),
    "bilinear": image(conv(), L.UpSampling2D(2, interpolation="bilinear"), conv()),
    "slices": image(conv(), lambda x: tf.concat([x[:, :4], x[:, 4:]], axis=-1), lambda x: tf.reduce_mean(x, axis=[1, 2])),
    "dropout": image(conv(), L.Dropout(0.5), L.SpatialDropout2D(0.5), L.GaussianNoise(1.0)),
    "rescaling": image(L.Rescaling(1 / 127.5), conv()),
    "normalization": image(L.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]), conv()),
    "shared": image(shared),
    "nested": image(nested),
    "conv1d": sequence(L.Conv1D(6, 3, padding="causal", use_bias=False, dilation_rate=2), L.ReLU(), L.MaxPooling1D(2)),
    "separable1d": sequence(L.SeparableConv1D(6, 3, padding="causal", use_bias=False), L.ReLU(), L.AveragePooling1D(2)),
    "sequence layers": sequence(
        L.Dense(6, use_bias=False), L.ReLU(), L.DepthwiseConv1D(3, use_bias=False), L.GlobalMaxPooling1D()
    ),
    "repeat": sequence(L.GlobalAveragePooling1D(), L.RepeatVector(3), L.Conv1DTranspose(4, 3, use_bias=False)),
    "layer norm": sequence(L.Dense(6, use_bias=False), L.LayerNormalization()),
    "attention": sequence(attend, L.Dense(6, use_bias=False)),
    "lstm": sequence(L.LSTM(6, use_bias=False)),
    "lstm sequences": sequence(L.LSTM(6, use_bias=False, return_sequences=True, go_backwards=True)),
    "gru": sequence(L.GRU(6, use_bias=False)),
    "gru before": sequence(L.GRU(6, use_bias=False, reset_after=False, return_sequences=True)),
    "rnn": sequence(L.SimpleRNN(6, use_bias=False, return_sequences=True)),
    "bidirectional": sequence(L.Bidirectional(L.LSTM(4, use_bias=False, return_sequences=True))),
    "bidirectional sum": sequence(L.Bidirectional(L.GRU(4, use_bias=False), merge_mode="sum")),
    "masked": sequence(L.Masking(0.5), L.LSTM(6, use_bias=False)),
}
NO_DEEPLIFT = {
    name for name in CASES if any(word in name for word in ("norm", "attention", "lstm", "gru", "rnn", "bidir", "masked"))
}
NO_DEEPLIFT -= {"normalization"}


def draw(build, seed=0, count=4):
    keras.utils.set_random_seed(seed)
    model = build()
    rng = np.random.default_rng(seed)
    xs = [rng.normal(0, 1, (count, *t.shape[1:])).astype(np.float32) for t in model.inputs]
    return model, xs, rng.integers(0, 4, count)


SAME_WAY = {  # the treatment of another one, by another class or with other settings
    "relu layer", "layer as activation", "relu6 function", "add", "average", "operators", "constants", "dropout", "rescaling",
    "separable1d", "conv1d", "lstm", "gru before", "rnn", "bidirectional sum", "product of signals", "pools", "nested",
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SAME_WAY else ()) for n in CASES])
def test_relevance_is_conserved(name):
    model, xs, y = draw(CASES[name])
    attribution = Attribution(model, rule="lrp.epsilon:1e-9")
    inputs = attribution.input_relevance(xs, y)
    total = sum(r.reshape(len(y), -1).sum(1) for r in inputs)
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=1e-4)
    complete(attribution.run(xs, y, reduce="sum"))


def complete(signed):
    """Weights and biases of every layer add up to what arrives at its output."""
    for path, scores in signed.filters.items():
        keys = [key for key in signed.weights if key == path or key.startswith(path + "/")]
        if path.endswith("/depthwise_kernel") or any(key.endswith("/depthwise_kernel") for key in keys):
            keys = [path if path.endswith("_kernel") else path + "/pointwise_kernel"]
        if len(keys) > 1:
            continue  # several kernels one behind the other: each sees the relevance again
        given = signed.weights[keys[0]].sum() + signed.biases.get(path, np.zeros(1)).sum()
        assert abs(given - scores.sum()) <= 1e-4 * max(np.abs(scores).sum(), 1e-30), path


QUICK = ["relu6 saturated", "leaky", "activations", "separable", "add", "gate", "maximum", "overlapping pools", "shared"]
DEEPLIFT = [
    pytest.param(name, rule, marks=[] if name in QUICK and rule == "deeplift.rescale" else pytest.mark.slow)
    for name in sorted(set(CASES) - NO_DEEPLIFT)
    for rule in ("deeplift.rescale", "deeplift.reveal_cancel")
]


@pytest.mark.parametrize(("name", "rule"), DEEPLIFT)
def test_deeplift_sums_to_the_difference(name, rule):
    model, xs, _ = draw(CASES[name])
    rng = np.random.default_rng(1)
    references = [rng.normal(0, 0.5, x.shape[1:]).astype(np.float32) for x in xs]
    attribution = Attribution(model, rule=rule)
    inputs = attribution.input_relevance(xs, target=1, reference=references)
    logits = keras.Model(model.inputs, attribution.program.canonical.model(model.inputs))
    delta = logits(xs).numpy()[:, 1] - logits([r[None] for r in references]).numpy()[:, 1]
    total = sum(r.reshape(len(delta), -1).sum(1) for r in inputs)
    np.testing.assert_allclose(total, delta, rtol=0, atol=1e-4 * np.abs(delta).max())
