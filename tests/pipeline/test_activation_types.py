"""Runs that compute with other activations than int8."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

import keras_xaic as xaic
import keras_xaic.pipeline.job
from keras_xaic._keras import keras, layers
from keras_xaic.bundle import Bundle
from keras_xaic.cli.app import app
from keras_xaic.errors import EdgeError, PlanError
from keras_xaic.grids import load_kernels
from keras_xaic.pipeline import export
from keras_xaic.planning import Budget
from keras_xaic.tflite import match_stored, precision_without_micro
from tests.grouped import grouped


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A model and its data, as files."""
    folder = tmp_path_factory.mktemp("job")
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(12, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, strides=2, name="depthwise", activation="relu")(x)
    x = layers.Dense(24, activation="relu", name="hidden")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(x), name="tiny")
    model.save(folder / "tiny.h5")
    x = np.random.default_rng(0).normal(size=(120, 8, 8, 2)).astype(np.float32)
    y = model.predict(x, verbose=0).argmax(-1)
    np.savez(folder / "data.npz", x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])
    return folder


def run(job, out, **options):
    settings = {"epochs": 0, "baselines": (), "budget": Budget(mean_bits=5.0, max_drop=100.0), "calibration": 64}
    how = grouped(**{"recipe": "deeplift-mixed", **settings, **options})
    return xaic.compress(job / "tiny.h5", job / "data.npz", out=out, **how)


@pytest.mark.slow  # on files alone, fast: tests/tflite/test_weight_only.py
def test_float_activations_give_a_mobile_bundle_with_the_planned_grids(job, tmp_path):
    report = run(job, tmp_path / "out", activations="float32")
    bundle = Bundle(tmp_path / "out")
    kernels, plan = load_kernels(bundle.grids), xaic.Plan.load(bundle.plan)
    assert plan.activations == "float32"
    assert not bundle.micro.exists()
    assert precision_without_micro("weight-only") in report.warnings
    packed = [layer.kind == "dense" and layer.bits <= 4 for layer in plan.layers]
    assert [layer.storage for layer in report.layers] == ["int4" if one else "int8" for one in packed]
    assert any(packed)
    assert [layer.bits for layer in report.layers] == [layer.bits for layer in plan.layers]
    stored = match_stored(bundle.model.read_bytes(), xaic.load_model(bundle.keras_model))
    assert set(stored) == set(kernels)
    for key, (written,) in stored.items():
        assert sorted(written.values.ravel()) == sorted(kernels[key].values.ravel())
    assert report.compressed.keras_accuracy == report.compressed.edge_accuracy
    again = export(bundle.path, tmp_path / "again", calibration=job / "data.npz")
    assert again.model.read_bytes() == bundle.model.read_bytes()


@pytest.mark.slow
def test_int16_activations_reach_the_files_for_both_targets(job, tmp_path):
    report = run(job, tmp_path / "out", activations="int16")
    assert {layer.storage for layer in report.layers} == {"int8"}
    assert report.compressed.micro_flash_bytes is not None
    assert b"int16" in (tmp_path / "out" / "micro" / "README.md").read_bytes()


@pytest.mark.slow  # that the driver itself goes on, fast: test_driver.py
def test_a_bundle_that_is_refused_is_tried_with_the_next_type_of_activations(job, tmp_path, monkeypatch):
    real, seen = keras_xaic.pipeline.job.check_agreement, []

    def check(bundle):
        seen.append(xaic.Plan.load(bundle.plan).activations)
        if seen[-1] == "int8":
            raise EdgeError("layer 'hidden' differs", "", "")
        return real(bundle)

    monkeypatch.setattr(keras_xaic.pipeline.job, "check_agreement", check)
    report = run(job, tmp_path / "out", recipe="auto", target="mobile")
    assert seen == ["int8", "int16"]
    assert xaic.Plan.load(tmp_path / "out" / "plan.json").activations == "int16"
    assert any("with int8 activations was refused (layer 'hidden' differs)" in one for one in report.warnings)
    assert not Bundle(tmp_path / "out").unverified.exists()
    with pytest.raises(EdgeError, match="differs"):  # who insists on them hears why not
        run(job, tmp_path / "insists", recipe="auto", target="mobile", activations="int8")
    assert Bundle(tmp_path / "insists").unverified.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "micro"}, "the target micro with float32 activations"),
        ({"budget": Budget(ram="20kB")}, "a RAM budget with float32 activations"),
        ({"interpreters": ("tflm",)}, "the interpreter tflm with float32 activations"),
        ({"activations": "bfloat16"}, "activations: Input should be 'auto', 'int8', 'int16' or 'float32'"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_work(job, tmp_path, options, words):
    seen = []
    with pytest.raises(PlanError, match=words):
        run(job, tmp_path / "out", **{"activations": "float32", "progress": lambda *a: seen.append(a[0]), **options})
    assert set(seen) <= {"load"}
    assert not (tmp_path / "out.partial").exists()


def test_a_plan_is_carried_out_as_it_is_or_not_at_all(job, tmp_path):
    xaic.Plan().save(tmp_path / "plan.json")
    arguments = ["compress", str(job / "tiny.h5"), "--data", str(job / "data.npz"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "--plan", str(tmp_path / "plan.json"), "--activations", "float32"])
    assert result.exit_code == 2
    assert "--plan together with --activations" in result.output
    assert not (tmp_path / "out").exists()


def test_baselines_compute_as_they_do(job, tmp_path):
    with pytest.raises(PlanError, match="activations float32 for the recipe 'int8'"):
        xaic.compress(job / "tiny.h5", job / "data.npz", out=tmp_path / "out", **grouped(recipe="int8", activations="float32"))


def test_the_command_line_plans_with_them(job, tmp_path):
    x = np.load(job / "data.npz")["x_train"]
    xaic.attribute(keras.models.load_model(job / "tiny.h5"), x, target="predicted").save(tmp_path / "relevance.npz")
    arguments = ["plan", str(job / "tiny.h5"), "--relevance", str(tmp_path), "--out", str(tmp_path / "plan.json")]
    result = CliRunner().invoke(app, [*arguments, "--activations", "float32"])
    assert result.exit_code == 0, result.output
    assert xaic.Plan.load(tmp_path / "plan.json").activations == "float32"
