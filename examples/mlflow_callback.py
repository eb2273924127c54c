"""A run of `xaic.compress` in MLflow: every epoch by a callback, then what was measured of the file."""

import mlflow
from digits import ready

import keras_xaic as xaic
from keras_xaic._keras import keras

model, data = ready()
mlflow.set_tracking_uri("sqlite:///build/examples/mlflow.db")
with mlflow.start_run(run_name="16 kB") as run:
    to_mlflow = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: mlflow.log_metrics(logs, step=epoch))
    training = xaic.Training(epochs=2, callbacks=[to_mlflow])
    report = xaic.compress(
        model, data, budget=xaic.Budget(flash="16kB"), training=training, out="build/examples/mlflow", overwrite=True
    )
    mlflow.log_metrics({"edge_accuracy": report.compressed.edge_accuracy, "flash_bytes": report.compressed.flash_bytes})
print(mlflow.get_run(run.info.run_id).data.metrics)
