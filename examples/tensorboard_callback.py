"""Training of `xaic.compress` in TensorBoard: tensorboard --logdir build/examples/logs"""

from digits import ready

import keras_xaic as xaic
from keras_xaic._keras import keras

model, data = ready()
training = xaic.Training(epochs=2, callbacks=[keras.callbacks.TensorBoard("build/examples/logs")])
report = xaic.compress(
    model, data, budget=xaic.Budget(flash="16kB"), training=training, out="build/examples/board", overwrite=True
)
print("accuracy of the file:", report.compressed.edge_accuracy)
