"""What a drop is measured against where an interpreter computes the float32 original wrongly."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic import edge
from keras_xaic._keras import keras, layers
from keras_xaic.bundle import Bundle
from keras_xaic.edge import running
from keras_xaic.errors import EdgeError
from keras_xaic.pipeline.measuring import Measuring
from keras_xaic.pipeline.reference import largest_deviations
from keras_xaic.planning import Budget
from keras_xaic.tflite.flatbuffer import TensorType, constant, load, operators, pack, set_constant
from tests.grouped import grouped


def make_job(stride):
    """A convolution whose kernel is smaller than its stride: a kind that tflite-runtime 2.14 computed wrongly with XNNPACK."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((12, 13, 4))
    x = layers.Conv2D(5, 3, strides=stride, padding="same", name="far")(inputs)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(layers.Flatten()(x)), name="strided")
    x = np.random.default_rng(0).normal(size=(160, 12, 13, 4)).astype(np.float32)
    y = model.predict(x, verbose=0).argmax(axis=-1)
    return model, {"x_train": x[:100], "y_train": y[:100], "x_test": x[100:], "y_test": y[100:]}


@pytest.fixture(scope="module")
def strided():
    return make_job(7)


@pytest.fixture
def wrong_interpreter(monkeypatch):
    """An interpreter that computes float convolutions as if they had other weights."""
    right = running.run_child

    def wrong(job, scratch, *args, **options):
        file = load(pathlib.Path(job["model"]).read_bytes())
        for one in operators(file):
            weights = constant(file, one.input(1)) if one.kind == "CONV_2D" else None
            if weights is not None and weights.dtype == np.float32:
                set_constant(file, one.input(1), weights[..., ::-1, ::-1, ::-1], TensorType.FLOAT32)
        spoilt = scratch / "model.tflite"
        spoilt.write_bytes(pack(file))
        return right({**job, "model": str(spoilt)}, scratch, *args, **options)

    monkeypatch.setattr(running, "run_child", wrong)


def run(job, out, **options):
    model, data = job
    settings = {"recipe": "int8", "budget": Budget(max_drop=5.0), "epochs": 0, "baselines": ("int8",), "target": "mobile"}
    return xaic.compress(model, data, out=out, **grouped(**{**settings, **options}))


def test_a_float_file_that_is_computed_wrongly_is_no_yardstick(strided, tmp_path, wrong_interpreter):
    _, data = strided
    report = run(strided, tmp_path / "out")
    assert report.reference == "keras"
    assert report.original.keras_accuracy == 1.0
    assert report.original.edge_accuracy < 0.8
    assert report.compressed.drop_pp == pytest.approx(100 * (1.0 - report.compressed.edge_accuracy))
    assert report.baselines["int8"].drop_pp == pytest.approx(100 * (1.0 - report.baselines["int8"].edge_accuracy))
    (warning,) = [one for one in report.warnings if "wrongly" in one]
    assert edge.judge() in warning
    assert "the first layer that does is 'far'" in warning
    assert not any("--activations float32" in one for one in report.warnings), "no advice from a wrong file"
    assert "against the Keras original" in report.verdict
    page = Bundle(tmp_path / "out").html.read_text()
    assert 'original in Keras <data value="1.0" data-json="/original/keras_metric">100.00 %' in page
    assert xaic.verify(tmp_path / "out", data).edge_accuracy == report.compressed.edge_accuracy


def test_a_float_file_that_is_right_stays_the_yardstick(tmp_path):
    report = run(make_job(2), tmp_path / "out")
    assert report.reference == "edge"
    assert report.original.edge_accuracy == report.original.keras_accuracy == 1.0
    assert not any("wrongly" in one for one in report.warnings)
    assert report.baselines["int8"].keras_metric == 1.0
    timing = edge.speed_judge()
    if timing is None:
        return
    for facts in (report.original, report.baselines["int8"], report.compressed):
        assert next(iter(facts.latency_ms)) == timing, "what users run comes first"
        told = facts.latency_ms[timing]
        assert told.delegated_macs == 1.0
        assert told.median > 0
        assert told.ratio_to_int8 == pytest.approx(told.least / report.baselines["int8"].latency_ms[timing].least)
    page = Bundle(tmp_path / "out").html.read_text()
    assert f'data-json="/compressed/latency_ms/{timing}/delegated_macs"' in page
    assert f'data-json="/compressed/latency_ms/{timing}/ratio_to_int8"' in page


def test_a_float_file_that_does_not_run_is_no_reason_to_give_up(strided, tmp_path, monkeypatch):
    ordinary = Measuring.run

    def refused(self, path, stage):
        if stage == "original":
            raise EdgeError(f"{edge.judge()} refused original.tflite: no such operator")
        return ordinary(self, path, stage)

    monkeypatch.setattr(Measuring, "run", refused)
    report = run(strided, tmp_path / "out", baselines=())
    assert report.reference == "keras"
    assert report.original.edge_accuracy is None
    assert report.compressed.drop_pp == pytest.approx(100 * (1.0 - report.compressed.edge_accuracy))
    assert any("no such operator" in one for one in report.warnings)


@pytest.mark.slow
def test_without_labels_a_wrong_float_file_is_told_too(strided, tmp_path, wrong_interpreter):
    model, data = strided
    report = run((model, {"x_train": data["x_train"]}), tmp_path / "out", baselines=())
    assert report.reference == "keras"
    assert report.compressed.agreement > 0.9, "the compressed file agrees with Keras, not with the wrong file"


def test_deviations_of_any_sample_count():
    expected = np.random.default_rng(0).normal(size=(1000, 3))
    given = expected + 1e-6
    assert largest_deviations(given, expected).max() < 1e-4
    given[17, 1] += 0.5
    assert np.flatnonzero(largest_deviations(given, expected) > 0.01).tolist() == [17]
    given[3, 0] = np.nan
    assert np.isinf(largest_deviations(given, expected)[3])
    assert np.isinf(largest_deviations(given[:, :2], expected)).all()
