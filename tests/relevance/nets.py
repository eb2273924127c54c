"""Small networks of the kinds that people compress, with BatchNorm statistics that fit."""

from __future__ import annotations

import numpy as np

from keras_xaic._keras import keras, layers


def residual_net():
    """A small ResNet with everything that iNNvestigate alone gets wrong: BatchNorm, ReLU6, an operator, a nested model."""
    keras.utils.set_random_seed(0)

    def block(x, filters, stride):
        y = layers.Conv2D(filters, 3, stride, padding="same")(x)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(y))
        short = x if stride == 1 else layers.Conv2D(filters, 1, stride)(x)
        return layers.ReLU()(layers.Add()([short, y]))

    inputs = keras.Input((12, 12, 3))
    stem = keras.Sequential([keras.Input((12, 12, 3)), layers.Conv2D(6, 3, padding="same"), layers.ReLU()], name="stem")
    x = block(block(stem(inputs), 6, 1), 8, 2)
    model = keras.Model(inputs, layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    settle(model)
    return model, np.random.default_rng(2).normal(0, 1, (8, 12, 12, 3)).astype(np.float32), np.arange(8) % 4


def auto_encoder():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((20,))
    for units in (16, 4, 16):
        x = layers.Activation("relu")(layers.BatchNormalization()(layers.Dense(units)(x)))
    model = keras.Model(inputs, layers.Dense(20)(x))
    settle(model)
    return model, np.random.default_rng(2).normal(0, 1, (8, 20)).astype(np.float32), None


def settle(model):
    """BatchNorm statistics of random data, so that activations are neither dead nor huge."""
    x = np.random.default_rng(1).normal(0, 1, (32, *model.input_shape[1:])).astype(np.float32)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(x, training=True)


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
    settle(model)
    return model
