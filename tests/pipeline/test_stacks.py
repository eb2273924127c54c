"""The same model and plan on every stack: the same integers in the file, the same samples right but one.

`anchor.json` beside the model and the plan says what the stack that made them wrote. To make them again:

    python tests/pipeline/test_stacks.py
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import sys
import tempfile

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic import edge
from keras_xaic._keras import keras, layers, tf
from keras_xaic.bundle import Bundle
from keras_xaic.tflite import read_grids

PLACE = pathlib.Path(__file__).parent / "fixtures" / "stacks"


def digits():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    return xaic.as_data(((x[order[:1297]], y[order[:1297]]), (x[order[1297:]], y[order[1297:]])))


def carried_out(place, out):
    """Compresses the model by the plan, without training, and returns what is compared, and the report."""
    device = xaic.Device(baselines=(), target="mobile")
    plan, training = xaic.Plan.load(place / "plan.json"), xaic.Training(epochs=0)
    report = xaic.compress(place / "digits.keras", digits(), out=out, recipe=plan, training=training, device=device)
    bundle = Bundle(out)
    kernels = [np.ascontiguousarray(one.integers.astype(np.int8)) for one in read_grids(bundle.model.read_bytes())]
    return {
        "integers": [hashlib.sha256(one.tobytes()).hexdigest() for one in kernels],
        "right": round(report.compressed.edge_accuracy * len(digits().test)),
        "tensorflow": tf.__version__,
        "judge": report.judge.model_dump(),
    }, report


@pytest.mark.slow
def test_the_same_plan_gives_the_same_integers_and_accuracy_on_every_stack(tmp_path, record_property):
    anchor = json.loads((PLACE / "anchor.json").read_text(encoding="utf-8"))
    found, report = carried_out(PLACE, tmp_path / "out")
    print(f"recorded: {anchor}\nhere:     {found}")  # shown by pytest -rP
    assert len(found["integers"]) == len(xaic.Plan.load(PLACE / "plan.json").layers) >= 3
    assert found["integers"] == anchor["integers"]
    assert abs(found["right"] - anchor["right"]) <= 1
    assert (report.judge.interpreter, report.judge.version) == (edge.judge(), edge.available_interpreters()[edge.judge()])


def record(place):
    """Trains a small model on digits, plans unequal bit-widths, and writes what this stack makes of them."""
    place.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1), name="image"),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv"),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(12, 3, activation="relu", name="conv_again"),
            layers.Flatten(name="flatten"),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="digits",
    )
    data = digits()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(data.train.x, data.train.y, epochs=12, batch_size=32, verbose=0)
    keras.models.Model(model.inputs, model.outputs, name="digits").save(place / "digits.keras")  # without the optimizer
    relevance = xaic.attribute(model, data.calibration(256, seed=0))
    xaic.plan(model, relevance, xaic.Budget(mean_bits=4.5)).save(place / "plan.json")
    with tempfile.TemporaryDirectory() as folder:
        found, _ = carried_out(place, pathlib.Path(folder) / "out")
    (place / "anchor.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else PLACE)
