"""A model that TensorFlow Lite Micro cannot run costs the user no training, and no mobile bundle."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import keras_xaic as xaic
from keras_xaic import edge
from keras_xaic._keras import keras, layers
from keras_xaic.bundle import Bundle
from keras_xaic.cli.app import app
from keras_xaic.edge.marking import verify
from keras_xaic.errors import EdgeError, XaicWarning
from keras_xaic.pipeline import export, preview, proving
from keras_xaic.planning import Budget
from tests.grouped import grouped

needs_tflm = pytest.mark.skipif("tflm" not in edge.available_interpreters(), reason="tflite-micro is not installed")
NOT_WRITTEN = "micro/ was not written: TensorFlow Lite Micro cannot run this model: it has no operator GELU"


def _job(folder, activation):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((6,), name="table")
    hidden = layers.Dense(12, activation=activation, name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(hidden), name="small")
    x = np.random.default_rng(0).normal(size=(90, 6)).astype(np.float32)
    y = model.predict(x, verbose=0).argmax(-1)
    model.save(folder / "small.h5")
    np.savez(folder / "data.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    return folder


@pytest.fixture(scope="module")
def gelu(tmp_path_factory):
    return _job(tmp_path_factory.mktemp("gelu"), "gelu")


@pytest.fixture(scope="module")
def relu(tmp_path_factory):
    return _job(tmp_path_factory.mktemp("relu"), "relu")


def run(job, out, **options):
    settings = {"recipe": "deeplift-mixed", "epochs": 0, "baselines": (), "budget": Budget(mean_bits=6.0, max_drop=100.0)}
    return xaic.compress(job / "small.h5", job / "data.npz", out=out, **grouped(**{**settings, **options}))


@pytest.fixture(scope="module")
def finished(relu, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "out"
    run(relu, out, target="mobile")
    return out


@pytest.fixture
def mobile(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "out")
    return Bundle(tmp_path / "out")


@pytest.fixture
def no_work(monkeypatch):
    def never(*_args, **_options):
        raise AssertionError("work was begun")

    monkeypatch.setattr("keras_xaic.pipeline.job.apply", never)
    monkeypatch.setattr("keras_xaic.pipeline.job.attribute", never)


def test_both_writes_and_proves_mobile_and_says_why_micro_is_missing(gelu, tmp_path):
    report = run(gelu, tmp_path / "out")
    bundle = Bundle(tmp_path / "out")
    assert report.budget.met
    assert not bundle.micro.exists()
    assert not bundle.unverified.exists()
    assert report.compressed.micro_flash_bytes is None
    (said,) = [one for one in report.warnings if "micro/" in one]
    assert said.startswith(NOT_WRITTEN)
    assert "Replace these layers" in said
    assert "it has no operator GELU" in bundle.html.read_text()
    assert "it has no operator GELU" in bundle.report.read_text()
    verify(bundle.path, gelu / "data.npz", interpreter="all")
    assert not bundle.unverified.exists()


def test_micro_stops_before_any_work(gelu, tmp_path, no_work):
    for options in ({"target": "micro"}, {"interpreters": ("tflm",)}):
        with pytest.raises(EdgeError, match=r"it has no operator GELU\. The target mobile works") as caught:
            run(gelu, tmp_path / "out", **options)
        assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_it_in_one_line(gelu, tmp_path, no_work):
    command = ["compress", str(gelu / "small.h5"), "--data", str(gelu / "data.npz"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, "--target", "micro"])
    assert done.exit_code == 4
    assert "GELU" in done.output
    assert "--target mobile" in done.output
    assert "Traceback" not in done.output


@pytest.mark.slow
def test_a_ram_budget_that_nobody_can_measure_is_not_met(gelu, tmp_path):
    report = run(gelu, tmp_path / "out", budget=Budget(mean_bits=6.0, max_drop=100.0, ram="20kB"))
    assert not report.budget.met
    assert "RAM was not measured" in report.verdict


def test_export_writes_mobile_and_warns(gelu, tmp_path):
    with pytest.warns(XaicWarning, match=NOT_WRITTEN):
        bundle = export(gelu / "small.h5", tmp_path / "out", calibration=gelu / "data.npz")
    assert not bundle.micro.exists()
    assert not bundle.unverified.exists()
    with pytest.raises(EdgeError, match=r"GELU.*target='mobile'"):
        export(gelu / "small.h5", tmp_path / "micro", calibration=gelu / "data.npz", target="micro")
    done = CliRunner().invoke(
        app, ["export", str(gelu / "small.h5"), "--data", str(gelu / "data.npz"), "--out", str(tmp_path / "again")]
    )
    assert done.exit_code == 0
    assert "it has no operator GELU" in done.output.replace("\n", " ")


@pytest.mark.parametrize("precision", ["float16", "dynamic-range", "weight-only"])
def test_export_of_a_precision_that_is_not_for_micro_writes_mobile(relu, tmp_path, precision):
    with pytest.warns(XaicWarning, match=r"micro/ was not written.*int8 activations"):
        bundle = export(relu / "small.h5", tmp_path / "out", calibration=relu / "data.npz", precision=precision)
    assert not bundle.micro.exists()


def test_plan_says_it_with_and_without_data(gelu, relu, tmp_path):
    for job, expected in ((gelu, True), (relu, False)):
        relevance = xaic.attribute(
            xaic.load_model(job / "small.h5"), xaic.load_data(job / "data.npz").train.x, rule="magnitude"
        )
        (tmp_path / "relevance.npz").unlink(missing_ok=True)
        relevance.save(tmp_path / "relevance.npz")
        for data in (None, job / "data.npz"):
            (tmp_path / "plan.json").unlink(missing_ok=True)
            found = preview(job / "small.h5", tmp_path, out=tmp_path / "plan.json", data=data)
            assert (found.without_micro is not None and "GELU" in found.without_micro) is expected


@needs_tflm
@pytest.mark.parametrize("target", ["both", pytest.param("micro", marks=pytest.mark.slow)])
def test_a_micro_file_that_fails_in_the_end_takes_only_itself_away(relu, tmp_path, monkeypatch, target):
    right = edge.measure_agreement

    def disagreeing(bundle, name, path=None):
        found = right(bundle, name, path)
        wrong = tuple(edge.Deviation(one.name, 9.0) for one in found.outputs)
        return edge.Agreement(name, wrong, found.layers) if name == "tflm" else found

    monkeypatch.setattr(proving.edge, "measure_agreement", disagreeing)
    bundle = Bundle(tmp_path / "out")
    if target == "micro":
        with pytest.raises(EdgeError, match="tflm disagrees"):
            run(relu, bundle.path, target=target)
        assert "tflm disagrees" in bundle.unverified.read_text()
        return
    report = run(relu, bundle.path, target=target)
    assert not bundle.micro.exists()
    assert not bundle.unverified.exists()
    assert report.compressed.arena_bytes is None
    assert any("micro/ was not written: tflm disagrees" in one for one in report.warnings)


@pytest.mark.slow
@needs_tflm
def test_small_dense_nets_get_an_arena(relu, tmp_path):
    report = run(relu, tmp_path / "out")
    assert 1000 < report.compressed.arena_bytes < 10_000
    assert f"{report.compressed.arena_bytes:,} bytes of RAM" in (tmp_path / "out" / "micro" / "README.md").read_text()
    assert "tflm" in report.model_dump()["agreement_with_keras"]
    assert set(report.sha256) == {"model.tflite", "model.xaic", "model.keras", "grids.npz", "micro/model.tflite"}


def test_verify_marks_a_bundle_only_for_what_it_is_made_for(relu, mobile, tmp_path, monkeypatch):
    bundle, right = mobile, edge.verification.run_file

    def refusing(path, x, *, interpreter, **options):
        if interpreter == "builtin-ref":
            raise EdgeError("builtin-ref refused model.tflite")
        return right(path, x, interpreter=interpreter, **options)

    monkeypatch.setattr(edge.verification, "run_file", refusing)
    with pytest.raises(EdgeError, match="builtin-ref refused"):
        verify(bundle.path, relu / "data.npz", interpreter="builtin-ref")
    assert not bundle.unverified.exists()
    assert set(verify(bundle.path, relu / "data.npz", interpreter="all").runs) == set(edge.deployed_on(bundle))
    monkeypatch.setenv("XAIC_LITERT_PYTHON", str(tmp_path / "nowhere"))
    for name in ("litert", "all"):
        with pytest.raises(EdgeError, match="XAIC_LITERT_PYTHON names"):
            verify(bundle.path, relu / "data.npz", interpreter=name)
    assert not bundle.unverified.exists()


def test_an_interpreter_that_nobody_knows_is_one_line(relu, mobile):
    command = ["verify", str(mobile.path), "--data", str(relu / "data.npz"), "--interpreter"]
    done = CliRunner().invoke(app, [*command, "onnx"])
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "tflite-runtime, litert, tflm" in done.output
    assert not mobile.unverified.exists()
