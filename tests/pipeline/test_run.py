"""The whole way, on a model and data small enough for seconds."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import keras_xaic as xaic
from keras_xaic import edge
from keras_xaic._keras import keras, layers
from keras_xaic.bundle import Bundle
from keras_xaic.cli.app import app
from keras_xaic.errors import EdgeError
from keras_xaic.grids import load_kernels
from keras_xaic.models import canonicalize, remove_channels
from keras_xaic.pipeline.measuring import Measuring
from keras_xaic.planning import Budget, keep_masks
from keras_xaic.report import Report
from keras_xaic.tflite import match_stored
from keras_xaic.tflite.flatbuffer import pack_bits
from tests.grouped import grouped

CLASSES = 4


def make_model():
    inputs = keras.Input((12, 12, 2), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_norm")(x))
    y = layers.Conv2D(16, 3, padding="same", use_bias=False, name="branch")(x)
    y = layers.BatchNormalization(name="branch_norm")(y)
    x = layers.Activation("relu", name="joined")(layers.Add(name="add")([x, y]))
    x = layers.DepthwiseConv2D(3, strides=2, name="depthwise", activation="relu")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(48, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(CLASSES, activation="softmax", name="head")(x), name="tiny")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A trained model and its data, as files."""
    folder = tmp_path_factory.mktemp("job")
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(CLASSES, 12, 12, 2))

    def draw(count):
        y = rng.integers(0, CLASSES, count)
        return (patterns[y] + rng.normal(size=(count, 12, 12, 2)) * 1.5).astype(np.float32), y

    (x_train, y_train), (x_test, y_test) = draw(600), draw(200)
    model = make_model()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x_train, y_train, epochs=4, batch_size=32, verbose=0)
    model.save(folder / "tiny.h5")
    np.savez(folder / "data.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return folder


def run(job, out, **options):
    settings = {"budget": Budget("14kB", "9kB", None, 5.0), "epochs": 4, "baselines": ("int8",), "seed": 1}
    return xaic.compress(job / "tiny.h5", job / "data.npz", out=out, **grouped(**{**settings, **options}))


@pytest.fixture(scope="module")
def said(job, tmp_path_factory):
    """The same settings as those of `run`, on the command line: where the bundle is, and what was printed."""
    out = tmp_path_factory.mktemp("done") / "out"
    command = ["compress", str(job / "tiny.h5"), "--data", str(job / "data.npz"), "--out", str(out), "--json", "--seed", "1"]
    limits = ["--flash", "14kB", "--download", "9kB", "--max-drop", "5", "--epochs", "4", "--baselines", "int8"]
    return out, CliRunner().invoke(app, [*command, *limits])


@pytest.fixture(scope="module")
def done(said):
    out, result = said
    assert result.exit_code == 0, result.output
    return Bundle(out), Report.load(Bundle(out).report)


def test_the_report_holds_what_the_files_say(job, done):
    bundle, report = done
    assert report.compressed.flash_bytes == bundle.model.stat().st_size <= 14_000
    assert report.compressed.download_bytes == bundle.download.stat().st_size <= 9_000
    assert report.budget.met
    assert report.compressed.edge_accuracy > 0.85
    assert set(report.baselines) == {"int8"}
    assert report.baselines["int8"].edge_accuracy > 0.3
    assert report.baselines["int8"].flash_bytes > 14_000
    assert json.loads(bundle.report.read_text())["compressed"]["flash_bytes"] == report.compressed.flash_bytes
    assert bundle.html.is_file()
    assert not list(bundle.path.parent.glob("*.partial"))


def test_a_baseline_that_no_interpreter_runs_is_left_out_with_a_line(job, tmp_path, monkeypatch):
    """The run is about the user's model, and what others make of it may not end that."""
    own = Measuring.run

    def refuse(self, path, stage):
        if path.name == "baseline-int8.tflite":
            raise EdgeError(f"litert refused {path.name}")
        return own(self, path, stage)

    monkeypatch.setattr(Measuring, "run", refuse)
    report = run(job, tmp_path / "out", recipe="lrp-mixed", epochs=0, budget=Budget(max_drop=100), target="mobile")
    assert report.baselines == {}
    assert "Baseline int8 is left out: litert refused baseline-int8.tflite." in report.warnings


@pytest.mark.slow
def test_a_baseline_that_trains_is_in_the_report(job, tmp_path):
    report = run(job, tmp_path / "out", baselines=("int8", "magnitude"))
    assert set(report.baselines) == {"int8", "magnitude"}
    assert all(facts.edge_accuracy > 0.3 and facts.flash_bytes > 14_000 for facts in report.baselines.values())


def test_verify_reproduces_the_report(job, done):
    bundle, report = done
    verification = xaic.verify(bundle, xaic.load_data(job / "data.npz"))
    assert verification.edge_accuracy == report.compressed.edge_accuracy
    assert verification.changed is False


def test_the_written_integers_are_the_planned_grids(done):
    bundle, _ = done
    kernels, plan = load_kernels(bundle.grids), xaic.Plan.load(bundle.plan)
    model = xaic.load_model(bundle.keras_model)
    stored = match_stored(bundle.model.read_bytes(), model)
    assert set(stored) == set(kernels) == {layer.key for layer in plan.layers}
    for layer in plan.layers:
        grid, (written,) = kernels[layer.key], stored[layer.key]
        assert grid.bits == layer.bits
        assert written.storage in ({layer.storage, "lookup"} if layer.bits == 2 else {layer.storage})
        widening = 1 if layer.storage == "int4" else 2 ** (8 - layer.bits)
        assert sorted(written.integers.ravel().tolist()) == sorted((grid.integers.astype(int) * widening).ravel().tolist())
        assert grid.sparsity >= layer.sparsity - 2 / grid.integers.size


def test_download_unpacks_to_the_same_bytes(done, tmp_path):
    bundle, _ = done
    result = CliRunner().invoke(app, ["unpack", str(bundle.download), "--out", str(tmp_path / "m.tflite")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "m.tflite").read_bytes() == bundle.model.read_bytes()


@pytest.mark.slow
def test_same_seed_same_bytes(job, done, tmp_path):
    bundle, report = done
    again = run(job, tmp_path / "again", baselines=())
    assert (tmp_path / "again" / "model.tflite").read_bytes() == bundle.model.read_bytes()
    assert again.compressed.edge_accuracy == report.compressed.edge_accuracy


@pytest.mark.slow
def test_an_interrupted_run_continues_and_ends_the_same(job, done, tmp_path):
    bundle, _ = done
    seen = []

    def interrupt(stage, done, total, note=""):
        seen.append(stage)
        if stage == "quantize" and done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, tmp_path / "out", baselines=(), progress=interrupt)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial").is_dir()
    seen.clear()
    run(job, tmp_path / "out", baselines=(), progress=lambda stage, *_: seen.append(stage))
    assert "attribute" not in seen  # kept from the first time
    assert "prune" not in seen
    assert not (tmp_path / "out.partial").exists()
    assert (tmp_path / "out" / "model.tflite").stat().st_size == bundle.model.stat().st_size


def test_flipped_weights_change_the_answers_and_are_told(job, done, tmp_path):
    bundle, report = done
    shutil.copytree(bundle.path, tmp_path / "out")
    model = Bundle(tmp_path / "out").model
    content = bytearray(model.read_bytes())
    stored = match_stored(bytes(content), xaic.load_model(bundle.keras_model))["head"][0]
    packed = (pack_bits(stored.integers, 4) if stored.storage == "int4" else stored.integers.astype(np.int8)).tobytes()
    where = bytes(content).find(packed)
    assert where > 0
    for k in range(len(packed)):
        content[where + k] ^= 0x88  # the signs, of both weights where two share a byte
    model.write_bytes(bytes(content))
    verification = xaic.verify(tmp_path / "out", xaic.load_data(job / "data.npz"))
    assert verification.changed
    assert verification.edge_accuracy != report.compressed.edge_accuracy


def test_a_truncated_file_is_exit_code_4_in_the_interpreters_words(job, done, tmp_path):
    bundle, _ = done
    shutil.copytree(bundle.path, tmp_path / "out")
    model = Bundle(tmp_path / "out").model
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "out"), "--data", str(job / "data.npz")])
    assert result.exit_code == 4, result.output
    assert edge.judge() in result.output


@pytest.mark.slow
def test_a_budget_that_cannot_be_met_is_exit_code_3_with_the_best_bundle(job, tmp_path):
    command = [
        "compress",
        str(job / "tiny.h5"),
        "--data",
        str(job / "data.npz"),
        "--out",
        str(tmp_path / "out"),
        "--flash",
        "2kB",
    ]
    result = CliRunner().invoke(app, [*command, "--epochs", "1", "--baselines", "", "--quiet"])
    assert result.exit_code == 3, result.output
    assert "budget missed" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert (tmp_path / "out" / "model.tflite").is_file()


@pytest.mark.slow
def test_stages_one_by_one_give_what_run_gives(job, tmp_path):
    model, data = xaic.load_model(job / "tiny.h5"), xaic.load_data(job / "data.npz")
    samples = data.calibration(64)
    relevance = xaic.attribute(model, samples, samples.labels)
    plan = xaic.plan(model, relevance, Budget("16kB"))
    small = xaic.apply(model, plan, data, relevance=relevance, training=xaic.Training(epochs=2))
    bundle = xaic.export(small, tmp_path / "out", calibration=samples)
    assert bundle.model.stat().st_size <= 16_000
    assert xaic.verify(bundle, data).edge_accuracy > 0.85


@pytest.mark.slow
def test_a_plan_edited_by_hand_is_carried_out_as_it_is(job, tmp_path):
    model, data = xaic.load_model(job / "tiny.h5"), xaic.load_data(job / "data.npz")
    made = xaic.plan(model, xaic.attribute(model, data.calibration(64)), Budget("16kB"))
    content = json.loads(made.model_dump_json(by_alias=True))
    for layer in content["layers"]:
        layer.update({"bits": 5, "storage": "int8"} if layer["key"] == "hidden" else {})
    (tmp_path / "plan.json").write_text(json.dumps(content))
    command = ["compress", str(job / "tiny.h5"), "--data", str(job / "data.npz"), "--out", str(tmp_path / "out"), "--quiet"]
    result = CliRunner().invoke(app, [*command, "--plan", str(tmp_path / "plan.json"), "--epochs", "0", "--baselines", ""])
    assert result.exit_code in (0, 3), result.output
    assert load_kernels(tmp_path / "out" / "grids.npz")["hidden"].bits == 5
    assert json.loads((tmp_path / "out" / "plan.json").read_text()) == content


def test_export_of_a_bundle_writes_the_same_model_again(job, done, tmp_path):
    bundle, _ = done
    command = ["export", str(bundle.path), "--data", str(job / "data.npz"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "model.tflite").read_bytes() == bundle.model.read_bytes()


def test_json_is_the_report_and_nothing_else(said):
    out, result = said
    assert json.loads(result.stdout) == json.loads(Bundle(out).report.read_text())


@pytest.mark.slow
def test_deeplift_filters_removes_filters_and_writes_plain_int8(job, tmp_path):
    command = ["compress", str(job / "tiny.h5"), "--data", str(job / "data.npz"), "--out", str(tmp_path / "out")]
    options = ["--recipe", "deeplift-filters", "--epochs", "4", "--align", "4", "--protect", "hid*", "--max-drop", "5"]
    result = CliRunner().invoke(app, [*command, *options, "--baselines", "magnitude", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    bundle, original = Bundle(tmp_path / "out"), xaic.load_model(job / "tiny.h5")
    plan = xaic.Plan.load(bundle.plan)
    assert plan.recipe == "deeplift-filters"
    assert plan.filters.steps == 3
    assert plan.remove
    assert "hidden" not in plan.remove
    kept = {layer["name"]: layer["filters_kept"] for layer in report["layers"]}
    assert all(kept[name] == 16 - len(gone) and kept[name] % 4 == 0 for name, gone in plan.remove.items())
    assert {layer["storage"] for layer in report["layers"]} == {"int8"}
    assert report["compressed"]["macs"] <= report["model"]["macs"] / 2
    assert report["baselines"]["magnitude"]["edge_accuracy"] > 0.3
    assert sum(layer["relevance"] for layer in report["layers"]) == pytest.approx(1, abs=1e-6)
    small = xaic.load_model(bundle.keras_model)
    again = remove_channels(original, keep_masks(original, plan.remove))
    assert canonicalize(again).model.count_params() == small.count_params()


@pytest.mark.slow
def test_a_limit_of_multiply_accumulates_that_floors_do_not_allow_is_exit_code_3(job, tmp_path):
    command = ["compress", str(job / "tiny.h5"), "--data", str(job / "data.npz"), "--out", str(tmp_path / "out")]
    options = ["--recipe", "deeplift-filters", "--macs", "1k", "--epochs", "0", "--max-drop", "100", "--baselines", ""]
    result = CliRunner().invoke(app, [*command, *options, "--quiet"])
    assert result.exit_code == 3, result.output
    assert "multiply-accumulates are" in result.output
