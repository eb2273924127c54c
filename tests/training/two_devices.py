"""Trains the same plans on one device and on two, in a process that has two, and writes what came out as JSON."""

from __future__ import annotations

import json
import pathlib
import sys

import numpy as np
from typer.testing import CliRunner

import keras_xaic as xaic
from keras_xaic._keras import keras, tf
from keras_xaic.cli.app import app
from keras_xaic.models.channels import channel_groups
from tests.nets import learned, saved

CASES = {"masks": ("uniform", 0.5), "codebook": ("codebook", 0.0), "ecqx": ("ecqx", 0.0), "filters": ("uniform", 0.0)}


class Replicas(keras.callbacks.Callback):
    """Notes on how many devices every epoch was trained, and how often it was judged by labels."""

    def __init__(self):
        super().__init__()
        self.seen, self.logs = set(), []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.add(self.model.distribute_strategy.num_replicas_in_sync)
        self.logs.append(float(logs["val_loss"]))


def plan_of(model, case):
    grid, sparsity = CASES[case]
    layers = [
        {
            "key": layer.name,
            "kind": "dense",
            "weights": int(layer.kernel.shape.num_elements()),
            "bits": 4,
            "granularity": "tensor",
        }
        for layer in model.layers
    ]
    remove = {next(iter(channel_groups(model))): [0, 3]} if case == "filters" else {}
    return xaic.Plan(layers=[{**one, "storage": "int8", "grid": grid, "sparsity": sparsity} for one in layers], remove=remove)


def trained(model, x, y, case, strategy):
    notes = Replicas()
    training = xaic.Training(epochs=4, seed=1, batch_size=66, strategy=strategy, callbacks=[notes])
    small = xaic.apply(model, plan_of(model, case), (x, y), training=training)
    return {
        "integers": {key: kernel.integers.ravel().tolist() for key, kernel in small.kernels.items()},
        "losses": [epoch.loss for epochs in small.history.values() for epoch in epochs],
        "validation": notes.logs,
        "accuracy": float(np.mean(np.asarray(small.model(x)).argmax(1) == y)),
        "replicas": sorted(notes.seen),
    }


def main(out: pathlib.Path) -> None:
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    model, x, y = learned(8, 16, epochs=10)
    found = {case: [trained(model, x, y, case, strategy) for strategy in (None, "mirrored")] for case in CASES}
    saved(out, epochs=10)
    words = [out / "m.keras", "--data", out / "d.npz", "--out", out / "bundle", "--epochs", "2", "--strategy", "mirrored"]
    result = CliRunner().invoke(app, ["compress", *map(str, words), "--target", "mobile", "--baselines", ""])
    found["command"] = [result.exit_code, result.output]
    (out / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
