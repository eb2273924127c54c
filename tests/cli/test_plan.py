"""`xaic plan`: its sizes are those of written files, and it plans what the recipe would do."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

import keras_xaic as xaic
from keras_xaic import tflite
from keras_xaic._keras import keras, layers
from keras_xaic.cli.app import app
from keras_xaic.data import as_data
from keras_xaic.models import load_model
from keras_xaic.planning import Plan
from keras_xaic.relevance import Relevance, attribute


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A dense net whose first 40 inputs say nothing, trained, with its relevance: zeros will lie in rows."""
    folder = tmp_path_factory.mktemp("plan")
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    y = np.arange(600) % 3
    x = np.concatenate([np.zeros((600, 40)), rng.normal(0.5 * y[:, None], 1.0, (600, 60))], axis=1).astype(np.float32)
    model = keras.Sequential([keras.Input((100,)), layers.Dense(96, activation="relu"), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=3, verbose=0)
    model.save(folder / "m.keras")
    np.savez(folder / "d.npz", x_train=x[:500], y_train=y[:500], x_test=x[500:], y_test=y[500:])
    attribute(model, x[:64], y[:64], rule="lrp.epsilon").save(folder / "relevance.npz")
    return folder


def planned(place, out, *options):
    command = ["plan", str(place / "m.keras"), "--relevance", str(place), "--out", str(out), *options]
    result = CliRunner().invoke(app, command, terminal_width=140)
    assert result.exit_code == 0, result.output
    return Plan.load(out), result.output


@pytest.mark.parametrize("with_data", [False, True])
def test_predicted_sizes_are_those_of_the_file(place, tmp_path, with_data):
    options = ["--data", str(place / "d.npz")] if with_data else []
    plan, output = planned(place, tmp_path / "plan.json", "--download", "3kB", *options)
    assert plan.sparsity > 0.2
    data, model = as_data(place / "d.npz"), load_model(place / "m.keras")
    small = xaic.apply(model, plan, data, relevance=Relevance.load(place / "relevance.npz"), training=xaic.Training(epochs=0))
    content = tflite.build_tflite(small, data.calibration())
    assert plan.predicted_flash_bytes == pytest.approx(len(content), rel=0.02)
    assert plan.predicted_download_bytes == pytest.approx(len(tflite.pack_download(content)), rel=0.02)
    assert plan.predicted_download_bytes <= 3000
    assert f"{plan.predicted_download_bytes:,} B download" in output.splitlines()[-1]
    assert ("before any training" in output) is with_data


@pytest.mark.parametrize(
    ("recipe", "field", "value"),
    [("ecqx", "grid", "ecqx"), ("deeplift-codebook", "grid", "codebook"), ("lrp-mixed", "sensitivity", "mean_score")],
)
def test_plans_what_the_recipe_does(place, tmp_path, recipe, field, value):
    reduced = attribute(load_model(place / "m.keras"), as_data(place / "d.npz").train.x[:64], target="predicted", reduce="mean")
    reduced.save(tmp_path / "signed.npz")
    plan, _ = planned(
        place, tmp_path / "plan.json", "--recipe", recipe, "--mean-bits", "4", "--relevance", str(tmp_path / "signed.npz")
    )
    found = {getattr(layer, field) for layer in plan.layers} if field == "grid" else {plan.sensitivity}
    assert found == {value}


def test_a_plan_that_came_there_meanwhile_is_not_replaced(place, tmp_path):
    out = tmp_path / "plan.json"

    def finding(bundle, *_):
        xaic.planning.Plan().save(out)
        return bundle

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_xaic.pipeline.previewing.check_names", finding)
        with pytest.raises(xaic.XaicError, match=r"plan\.json exists"):
            xaic.plan(place / "m.keras", place, xaic.Budget(mean_bits=4), out=out)
    assert Plan.load(out) == Plan()


def test_without_relevance_it_says_what_makes_it(place, tmp_path):
    result = CliRunner().invoke(
        app, ["plan", str(place / "m.keras"), "--relevance", str(tmp_path), "--out", str(tmp_path / "p")]
    )
    assert result.exit_code == 2
    assert "xaic explain" in result.output
    assert not (tmp_path / "p").exists()


def test_a_file_that_is_no_plan_is_never_replaced_and_a_plan_on_request_only(place, tmp_path):
    out = tmp_path / "plan.json"
    command = ["plan", str(place / "m.keras"), "--relevance", str(place), "--out", str(out), "--download", "3kB"]
    out.write_text("my notes")
    for options in ([], ["--overwrite"]):
        result = CliRunner().invoke(app, [*command, *options], terminal_width=140)
        assert result.exit_code == 2, result.output
        assert "is not a plan" in result.output
    assert out.read_text() == "my notes"
    out.unlink()
    assert CliRunner().invoke(app, command).exit_code == 0
    written = out.read_text()
    result = CliRunner().invoke(app, [*command, "--seed", "1"], terminal_width=140)
    assert result.exit_code == 2, result.output
    assert "--overwrite" in result.output
    assert out.read_text() == written
    assert CliRunner().invoke(app, [*command, "--seed", "1", "--overwrite"]).exit_code == 0
    assert Plan.load(out).seed == 1
