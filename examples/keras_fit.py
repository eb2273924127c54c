"""In your own model.fit: a callback of twelve lines prunes, our schedule says how much of which layer, and when."""

import numpy as np
from digits import ready

import keras_xaic as xaic
from keras_xaic._keras import keras
from keras_xaic.pruning import relevance_schedules

model_path, data_path = ready()
model, data = xaic.load_model(model_path), np.load(data_path)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
before = model.evaluate(data["x_test"], data["y_test"], verbose=0)[1]

relevance = xaic.attribute(model, data["x_train"][:256], data["y_train"][:256])
epochs, steps = 6, -(-len(data["x_train"]) // 64)  # the last two epochs train with the final masks
schedules = relevance_schedules(relevance.weights, final_sparsity=0.8, end_step=(epochs - 2) * steps, frequency=10)


class Prune(keras.callbacks.Callback):
    """Keeps the least relevant weights of each layer at zero, as many as its schedule says."""

    step, masks = 0, {}

    def on_train_batch_end(self, batch, logs=None):
        for name, schedule in schedules.items():
            update, sparsity = schedule(self.step)
            if update:
                score = np.abs(relevance.weights[name])
                rank = score.ravel().argsort().argsort().reshape(score.shape)
                self.masks[name] = rank >= round(float(sparsity) * score.size)
            kernel = self.model.get_layer(name).kernel
            kernel.assign(kernel * self.masks[name].astype("float32"))
        self.step += 1


model.fit(data["x_train"], data["y_train"], epochs=epochs, batch_size=64, verbose=0, callbacks=[Prune()])
after = model.evaluate(data["x_test"], data["y_test"], verbose=0)[1]
kernels = {name: model.get_layer(name).kernel.numpy() for name in schedules}
for name, kernel in kernels.items():
    print(f"{name}: {np.mean(kernel == 0):.1%} zeros")
zeros = sum(np.sum(kernel == 0) for kernel in kernels.values()) / sum(kernel.size for kernel in kernels.values())
print(f"together: {zeros:.1%} zeros, accuracy {before:.1%} before, {after:.1%} after")
model.save("build/examples/pruned.keras")  # an ordinary Keras model; `xaic compress` takes it, too
