"""Your own steps: relevance and plan from the package, a plan edited by hand, your own Keras callbacks in the training."""

import pathlib

from digits import ready

import keras_xaic as xaic
from keras_xaic._keras import keras

model_path, data_path = ready()
model, data = xaic.load_model(model_path), xaic.load_data(data_path)
samples = data.calibration(256)

relevance = xaic.attribute(model, samples, samples.labels, rule="lrp.epsilon")
print(relevance)  # in a notebook: a table with bars

plan = xaic.plan(model, relevance, xaic.Budget(flash="24kB"))
layers = [layer.model_copy(update={"bits": 8, "storage": "int8"}) if layer.key == "digit" else layer for layer in plan.layers]
plan = plan.model_copy(update={"layers": layers})  # the last layer stays at 8 bits, whatever the planner thinks
plan.save("build/examples/my_plan.json")  # or edit this file and xaic.Plan.load it
print(plan)


class Losses(keras.callbacks.Callback):
    """Stands for TensorBoard, CSVLogger or whatever you use."""

    seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(logs["loss"])


small = xaic.apply(model, plan, data, relevance=relevance, training=xaic.Training(epochs=6, callbacks=[Losses()]))
small.model.summary(print_fn=lambda line, **_: None)  # an ordinary keras.Model, its weights on the planned grids
print("losses:", " ".join(f"{loss:.3f}" for loss in Losses.seen))

out = pathlib.Path("build/examples/own_loop")
bundle = xaic.export(small, out, calibration=samples, overwrite=True)
print(f"{bundle.model}: {bundle.model.stat().st_size:,} B, accuracy {xaic.verify(bundle, data).edge_accuracy:.4f}")
