"""Runs that take residual branches out: what is written down, resumed, verified and shown."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import keras_xaic as xaic
from keras_xaic._keras import keras, layers
from keras_xaic.bundle import Bundle
from keras_xaic.cli.app import app
from keras_xaic.models import remove_branches, remove_channels
from keras_xaic.pipeline.driver import in_original
from keras_xaic.planning import Plan, keep_masks


def block(x, filters, name):
    y = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_in")(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.BatchNormalization()(layers.Conv2D(x.shape[-1], 3, padding="same", use_bias=False, name=f"{name}_out")(y))
    return layers.ReLU()(layers.Add(name=name)([x, y]))


def make_model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((24, 24, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(inputs)
    x = block(x, 32, "early")
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="down")(x)
    x = layers.GlobalAveragePooling2D()(block(x, 16, "late"))
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x), name="residual")


def test_what_went_in_two_rounds_is_numbered_as_in_the_original():
    model = make_model()
    first = Plan(branches={"early": ["early_in", "early_out"]}, remove={"stem": [0, 5], "down": [1], "late_in": [2]})
    second = Plan(branches={"late": ["late_in", "late_out"]}, remove={"stem": [0], "down": [14]})
    both = in_original(second, first, model)
    assert both.branches == {**first.branches, **second.branches}
    assert both.remove == {"stem": [0, 1, 5], "down": [1, 15]}, "of what is not there any more nothing is left to say"
    left = model
    for plan in (first, second):
        left = remove_branches(left, plan.branches)
        left = remove_channels(left, keep_masks(left, plan.remove))
    at_once = remove_branches(model, both.branches)
    at_once = remove_channels(at_once, keep_masks(at_once, both.remove))
    x = np.random.default_rng(0).normal(size=(2, 24, 24, 3))
    np.testing.assert_allclose(left(x), at_once(x), atol=1e-6)


def make_data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 240)
    x = (0.4 * rng.normal(size=(3, 24, 24, 3))[y] + rng.normal(size=(240, 24, 24, 3))).astype(np.float32)
    return {"x_train": x[:180], "y_train": y[:180], "x_test": x[180:], "y_test": y[180:]}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["recover", "quantize"])
def test_an_interrupted_run_that_takes_a_branch_out_ends_with_the_same_bytes(tmp_path, stage):
    model = make_model()
    plan = xaic.plan(model, xaic.attribute(model, make_data()["x_train"], rule="magnitude"), xaic.Budget(max_slowdown=0.12))
    assert plan.branches
    assert plan.remove

    def run(out, progress):
        return xaic.compress(
            model,
            make_data(),
            recipe=plan,
            training=xaic.Training(epochs=4),
            device=xaic.Device(target="mobile", baselines=()),
            out=out,
            progress=progress,
        )

    def stop(name, done, total, note=""):
        if name.startswith(stage) and done == total - 1:
            stopped.append(name)
            raise KeyboardInterrupt

    stopped, seen = [], []
    run(tmp_path / "whole", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stop)
    run(tmp_path / "parts", lambda name, *_: seen.append(name))
    assert stopped
    assert "attribute" not in seen  # kept from the first time
    one, other = (Bundle(tmp_path / name) for name in ("whole", "parts"))
    assert one.model.read_bytes() == other.model.read_bytes()
    assert Plan.load(other.plan).branches == plan.branches


@pytest.mark.slow
def test_a_run_that_takes_a_branch_out_says_so_and_goes_on_from_its_plan(tmp_path):
    np.savez(tmp_path / "data.npz", **make_data())
    make_model().save(tmp_path / "model.keras")
    command = ["compress", str(tmp_path / "model.keras"), "--data", str(tmp_path / "data.npz"), "--max-drop", "100"]
    command += ["--epochs", "1", "--baselines", "", "--target", "mobile"]
    run = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out"), "--max-slowdown", "0.5"])
    assert run.exit_code in (0, 3), run.output  # 3: a busy machine may measure more time
    bundle = Bundle(tmp_path / "out")
    plan, report = Plan.load(bundle.plan), json.loads(bundle.report.read_text())
    assert plan.branches["early"] == ["early_in", "early_out"]
    rows = {row["name"]: row for row in report["layers"]}
    assert list(rows) == ["stem", "early_in", "early_out", "down", "late_in", "late_out", "head"]
    for name, size in (("early_in", 32), ("early_out", 16)):
        assert (rows[name]["filters"], rows[name]["filters_kept"], rows[name]["weights"]) == (size, 0, 0)
        assert (rows[name]["flash_bytes"], rows[name]["bits"]) == (0, None)
    assert sum(row["relevance"] or 0.0 for row in report["layers"]) == pytest.approx(1, abs=1e-6)
    kept = xaic.load_model(bundle.keras_model)
    assert not {"early_in", "early_out"} & {layer.name for layer in kept.layers}
    assert "early_out" in (bundle.path / "report.html").read_text()

    assert CliRunner().invoke(app, ["verify", str(bundle.path), "--data", str(tmp_path / "data.npz")]).exit_code == 0
    again = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "again"), "--plan", str(bundle.plan), "--quiet"])
    assert again.exit_code in (0, 3), again.output
    assert Plan.load(tmp_path / "again" / "plan.json") == plan
    exported = ["export", str(bundle.path), "--data", str(tmp_path / "data.npz"), "--out", str(tmp_path / "export"), "--quiet"]
    assert CliRunner().invoke(app, exported).exit_code == 0
    assert (tmp_path / "export" / "model.tflite").read_bytes() == bundle.model.read_bytes()
