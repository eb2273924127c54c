"""One piece for a TFMOT script of your own: schedules that spend sparsity where relevance is thin. Nothing else changes."""

import numpy as np
import tensorflow_model_optimization as tfmot
from sklearn.datasets import load_digits
from tensorflow import keras

from keras_xaic import attribute
from keras_xaic.pruning import relevance_schedules

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
train, test = slice(0, 1297), slice(1297, None)

keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(128, "relu"), keras.layers.Dense(64, "relu")])
model.add(keras.layers.Dense(10, "softmax"))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x[train], y[train], epochs=20, verbose=0)
before = model.evaluate(x[test], y[test], verbose=0)[1]

relevance = attribute(model, x[:256], y[:256])  # how much every weight matters
schedules = relevance_schedules(relevance.weights, final_sparsity=0.9, end_step=500)  # layer name -> PruningSchedule


def prune(layer):
    return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedules[layer.name])


pruned = keras.models.clone_model(model, clone_function=prune)
pruned.build((None, 64))
for wrapper, layer in zip(pruned.layers, model.layers):
    wrapper.layer.set_weights(layer.get_weights())
pruned.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
pruned.fit(x[train], y[train], epochs=20, verbose=0, callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])
stripped = tfmot.sparsity.keras.strip_pruning(pruned)

stripped.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
after = stripped.evaluate(x[test], y[test], verbose=0)[1]
for layer in stripped.layers:
    print(f"{layer.name}: {np.mean(layer.kernel.numpy() == 0):.1%} zeros")
print(f"accuracy {before:.1%} before, {after:.1%} after")
