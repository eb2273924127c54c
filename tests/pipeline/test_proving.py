"""Bundles that do not compute what the model does: named, marked, and never handed over silently."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from typer.testing import CliRunner

import keras_xaic as xaic
from keras_xaic import edge, tflite
from keras_xaic._keras import keras, layers
from keras_xaic.cli.app import app
from keras_xaic.edge import measure_agreement
from keras_xaic.errors import DataError, EdgeError
from keras_xaic.pipeline import export
from keras_xaic.relevance.magnitude import magnitude
from keras_xaic.tflite import build_tflite
from keras_xaic.tflite.flatbuffer import TensorType, constant, load, operators, pack, set_constant


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(6, 3, activation="relu", name="one")(x)
    x = layers.ReLU(name="clip")(layers.Conv2D(6, 3, name="two")(x))
    x = layers.Dense(12, activation="relu", name="three")(layers.Flatten(name="flat")(x))
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="four")(x))


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 8, 8, 1)).astype(np.float32)
    return {"x_train": x, "y_train": random.integers(0, 4, 80), "x_test": x[:16], "y_test": random.integers(0, 4, 16)}


@pytest.fixture
def bundle(model, data, tmp_path):

    return export(model, tmp_path / "out", calibration=data)


@pytest.mark.parametrize("missing", ["plan.json", "grids.npz"])
def test_a_bundle_of_which_a_part_is_missing_is_not_exported_on_other_grids(model, data, tmp_path, missing):
    plan = xaic.plan(model, magnitude(model), xaic.Budget(mean_bits=4))
    small = xaic.apply(model, plan, data, training=xaic.Training(epochs=0))
    made = export(small, tmp_path / "out", calibration=data, target="mobile", prove=False)
    assert xaic.CompressedModel.load(made).kernels.keys() == {"one", "two", "three", "four"}
    (made.path / missing).unlink()
    with pytest.raises(DataError, match=r"plan\.json and grids\.npz disagree on the kernel 'one'"):
        export(made, tmp_path / "again", calibration=data)


def _spoil(content: bytes, place: int) -> bytes:
    """Turns round the weights of one operator."""
    loaded = load(content)
    tensor = [one for one in operators(loaded) if one.kind in ("CONV_2D", "FULLY_CONNECTED")][place].input(1)
    set_constant(loaded, tensor, -constant(loaded, tensor)[..., ::-1], TensorType.INT8)
    return pack(loaded)


def _interpreters() -> list[str]:
    return [name for name in edge.available_interpreters() if name != "builtin-ref"]


def test_a_good_bundle_is_verified(bundle):
    assert not bundle.unverified.exists()
    for name in _interpreters():
        agreement = measure_agreement(bundle, name, bundle.micro / "model.tflite" if name == "tflm" else None)
        assert [one.name for one in agreement.layers] == ["one", "two", "three", "four", "four"]
        assert max(one.value for one in (*agreement.layers, *agreement.outputs)) < 0.2
        assert agreement.first_deviating_layer is None


@pytest.mark.parametrize(
    ("place", "name"),
    [(0, "one"), (3, "four"), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((1, "two"), (2, "three")))],
)
def test_the_first_layer_that_deviates_is_named(place, name, bundle):
    bundle.model.write_bytes(_spoil(bundle.model.read_bytes(), place))
    for interpreter in (edge.judge(), "builtin-ref", "tflm"):
        if interpreter not in edge.available_interpreters():
            continue
        agreement = measure_agreement(bundle, interpreter)
        assert agreement.first_deviating_layer == name
        with pytest.raises(EdgeError, match=f"disagrees with the Keras model.*'{name}'"):
            agreement.require("model.tflite")


@pytest.mark.parametrize("precisions", [("int8",), pytest.param(("float32", "int16"), marks=pytest.mark.slow)])
def test_no_layer_is_blamed_where_operators_write_over_what_they_read(precisions, tmp_path):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6, 6, 3))
    x = layers.Rescaling(7.0, name="scaled")(inputs)
    x = layers.Add(name="added")([x, layers.Conv2D(3, 1, name="one")(x)])
    x = layers.Multiply(name="gated")([x, layers.Activation("sigmoid", name="gate")(layers.Conv2D(3, 1, name="two")(x))])
    x = layers.Subtract(name="less")([x, layers.Activation("tanh", name="bent")(layers.Conv2D(3, 1, name="three")(x))])
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))
    samples = np.random.default_rng(0).normal(size=(40, 6, 6, 3)).astype(np.float32)
    for precision in precisions:
        made = tflite.export(model, tmp_path / precision, calibration=samples, precision=precision)
        kept = {name.split(" ", 1)[1]: values for name, values in np.load(made.check / "layers.npz").items()}
        checked = np.load(made.check / "inputs.npz")["x0"][:4]
        for name in ("scaled", "one", "added", "two", "gate", "gated", "three", "bent", "less", "head"):
            right = keras.Model(inputs, model.get_layer(name).output).predict(checked, verbose=0)
            np.testing.assert_allclose(kept[name].reshape(right.shape), right, rtol=1e-4, atol=1e-5)
        for name in _interpreters():
            agreement = measure_agreement(made, name, made.micro / "model.tflite" if name == "tflm" else None)
            assert len(agreement.layers) == len(kept)
            assert agreement.first_deviating_layer is None
            assert max(one.value for one in agreement.layers) < 0.06


def test_scales_that_are_far_too_coarse_are_no_excuse(bundle, model, data):
    bundle.model.write_bytes(build_tflite(model, 30.0 * data["x_train"]))
    for interpreter in [name for name in _interpreters() if name != "tflm"]:
        agreement = measure_agreement(bundle, interpreter)
        assert agreement.outputs[0].value < 0.6, "not just any values, which deviate by 1.1"
        with pytest.raises(EdgeError, match="disagrees with the Keras model"):
            agreement.require("model.tflite")


def test_a_bundle_that_disagrees_is_marked_and_named(model, data, tmp_path, monkeypatch):
    module = importlib.import_module("keras_xaic.tflite.export")  # the package's attribute of that name is the function
    right = module.build_file
    monkeypatch.setattr(module, "build_file", lambda *a, **k: load(_spoil(pack(right(*a, **k)), 2)))
    with pytest.raises(EdgeError, match="'three'") as caught:
        export(model, tmp_path / "out", calibration=data)
    assert caught.value.exit_code == 4
    assert "Do not use" in (tmp_path / "out" / "UNVERIFIED.txt").read_text()
    assert (tmp_path / "out" / "model.tflite").is_file()


def test_a_bundle_that_crashes_an_interpreter_is_marked_by_verify(bundle, data):
    from keras_xaic.data import as_data
    from keras_xaic.edge.marking import verify

    whole = bundle.model.read_bytes()
    bundle.model.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EdgeError):
        verify(bundle.path, as_data(data))
    assert "model.tflite" in bundle.unverified.read_text()
    bundle.model.write_bytes(whole)
    verify(bundle.path, as_data(data), interpreter="all")
    assert not bundle.unverified.exists()


def test_verify_finds_again_that_a_bundle_disagrees_and_the_mark_stays(bundle, data):
    """Without a report, and with outputs that no label tells from right ones."""
    from keras_xaic.edge.marking import verify

    samples, whole = (data["x_test"], None), bundle.model.read_bytes()
    bundle.model.write_bytes(_spoil(whole, 2))
    found = verify(bundle.path, samples)
    assert found.error.exit_code == 4
    assert "disagrees with the Keras model on model.tflite" in str(found.error)
    assert found.as_dict()["faults"][0] == str(found.error)
    assert "'three'" in bundle.unverified.read_text()
    verify(bundle.path, samples, interpreter="all")
    assert bundle.unverified.exists()
    bundle.model.write_bytes(whole)
    assert verify(bundle.path, samples, interpreter="all").error is None
    assert not bundle.unverified.exists()
    for name in (name for name in ("micro/model.tflite",) if "tflm" in _interpreters()):
        (bundle.path / name).write_bytes(_spoil((bundle.path / name).read_bytes(), 2))
        assert "micro/model.tflite" in str(verify(bundle.path, samples, interpreter="all").error)


def test_verify_names_files_that_were_not_written_together_after_what_it_measured(bundle, data):
    bundle.download.write_bytes(bundle.download.read_bytes()[:-5])
    np.savez(bundle.path.parent / "data.npz", **data)
    command = ["verify", str(bundle.path), "--data", str(bundle.path.parent / "data.npz")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "on 16 samples" in done.output
    assert done.output.splitlines()[-1].startswith(
        "xaic: model.xaic is damaged or cut short. Expected a bundle as it was written"
    )
    assert "model.xaic is damaged" in bundle.unverified.read_text()
