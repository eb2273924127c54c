"""Small models of which it is known what they look at, or that learn in a second."""

from __future__ import annotations

import numpy as np

from keras_xaic._keras import keras, layers


def linear(weights, activation="softmax"):
    """Returns a model of one dense layer with these weights and no bias."""
    weights = np.asarray(weights, np.float32)
    model = keras.Sequential([keras.Input((len(weights),)), layers.Dense(weights.shape[1], activation, False, name="out")])
    model.set_weights([weights])
    return model


def learned(features: int, hidden: int, epochs: int, optimizer="adam"):
    """Returns a classifier of two dense layers, ``body`` and ``head``, and the 400 samples that it has learned."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    x = random.normal(size=(400, features)).astype(np.float32)
    y = (x @ random.normal(size=(features, 4))).argmax(1)
    stack = [keras.Input((features,)), layers.Dense(hidden, "relu", name="body"), layers.Dense(4, "softmax", name="head")]
    model = keras.Sequential(stack)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=epochs, verbose=0)
    return model, x, y


def saved(folder, epochs=0):
    """Saves a classifier of three classes in a folder, ``m.keras``, and 300 samples that it learns in ten epochs, ``d.npz``."""
    keras.utils.set_random_seed(0)
    y = np.arange(300) % 3
    x = (np.eye(12)[y * 4] + np.random.default_rng(0).normal(size=(300, 12)) * 0.3).astype(np.float32)
    model = keras.Sequential([keras.Input((12,)), layers.Dense(32, activation="relu"), layers.Dense(3, activation="softmax")])
    if epochs:
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x, y, epochs=epochs, verbose=0)
    model.save(folder / "m.keras")
    np.savez(folder / "d.npz", x_train=x, y_train=y)
