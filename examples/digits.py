"""A small digit classifier and its data, for the other examples: made in seconds, nothing to download."""

import pathlib

import numpy as np
from sklearn.datasets import load_digits

WORK = pathlib.Path("build/examples")
MODEL, DATA = WORK / "digits.keras", WORK / "digits.npz"


def make_data():
    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8, 1) / 16).astype("float32")
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:1297], order[1297:]
    np.savez(DATA, x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test])


def make_model(epochs=20):
    from keras_xaic._keras import keras, layers

    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((8, 8, 1), name="image")], name="digits")
    for number, filters in enumerate((32, 64)):
        model.add(layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv_{number}"))
        model.add(layers.BatchNormalization(name=f"norm_{number}"))
        model.add(layers.ReLU(name=f"relu_{number}"))
        model.add(layers.MaxPooling2D(name=f"pool_{number}"))
    model.add(layers.Flatten(name="flatten"))
    model.add(layers.Dense(64, activation="relu", name="hidden"))
    model.add(layers.Dense(10, activation="softmax", name="digit"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    data = np.load(DATA)
    model.fit(data["x_train"], data["y_train"], epochs=epochs, batch_size=32, verbose=0)
    model.save(MODEL)


def ready(epochs=20):
    """Returns the paths of the model and the data; both are made the first time."""
    WORK.mkdir(parents=True, exist_ok=True)
    if not MODEL.exists():
        print("Training a small CNN on 1,297 handwritten digits ...", flush=True)
        make_data()
        make_model(epochs)
    return MODEL, DATA
