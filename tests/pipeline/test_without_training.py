"""`--epochs 0`: every recipe, with and without labels, with and without test data, writes a bundle that is verified."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from keras_xaic._keras import keras, layers
from keras_xaic.bundle import Bundle
from keras_xaic.cli.app import app
from keras_xaic.recipes import RECIPES
from keras_xaic.report import Report

OF_OTHERS = {"int8", "magnitude", "cluster"}
"""Methods of others: they know no limits."""
LIMITS = {"none": [], "flash": ["--flash", "9kB"], "download": ["--download", "5kB"]}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(4, 8, 8, 1))
    y = rng.integers(0, 4, 300)
    x = (patterns[y] + rng.normal(size=(300, 8, 8, 1))).astype(np.float32)
    inputs = keras.Input((8, 8, 1), name="image")
    z = layers.Conv2D(12, 3, padding="same", use_bias=False, name="first")(inputs)
    z = layers.ReLU()(layers.BatchNormalization(name="norm")(z))
    z = layers.MaxPooling2D()(layers.Conv2D(16, 3, padding="same", activation="relu", name="second")(z))
    z = layers.Dense(24, activation="relu", name="hidden")(layers.Flatten()(z))
    model = keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(z), name="digits")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:200], y[:200], epochs=6, batch_size=32, verbose=0)
    model.save(folder / "digits.keras")
    np.savez(folder / "labelled.npz", x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    np.savez(folder / "unlabelled.npz", x_train=x[:200])
    np.savez(folder / "unlabelled_test.npz", x_train=x[:200], x_test=x[200:])
    np.savez(folder / "no_test.npz", x_train=x[:200], y_train=y[:200])
    return folder


def check(job, out, recipe, data, limits, *options):
    """Runs the command and what a user would look at after it."""
    command = ["compress", job / "digits.keras", "--data", job / f"{data}.npz", "--out", out, "--recipe", recipe]
    command += ["--epochs", "0", "--baselines", "", "--target", "mobile", "--quiet", *LIMITS[limits], *options]
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exit_code in (0, 3), result.output
    assert len(result.output.strip().splitlines()) == 1, result.output
    bundle, report = Bundle(out), Report.load(out)
    assert not bundle.unverified.exists()
    assert report.budget.met is (result.exit_code == 0)
    assert all(one.ran for one in report.interpreters.values())
    labelled = data in ("labelled", "no_test")
    assert (report.compressed.edge_accuracy is not None) is labelled
    assert report.compressed.agreement is not None
    assert report.compressed.part == ("train" if data in ("unlabelled", "no_test") else "test")
    assert sum(one.epochs for one in report.rounds) == 0
    if result.exit_code == 3:
        assert "budget missed: " in result.output
    lost = report.compressed.drop_pp if labelled else round(100 * (1 - report.compressed.agreement), 9)
    sizes = [(report.compressed.flash_bytes, report.budget.flash_bytes)]
    sizes += [(report.compressed.download_bytes, report.budget.download_bytes)]
    within = all(limit is None or size <= limit for size, limit in sizes)
    assert (result.exit_code == 0) is (within and lost <= report.budget.max_drop_pp)
    verified = CliRunner().invoke(app, ["verify", str(out), "--data", str(job / f"{data}.npz"), "--quiet"])
    assert verified.exit_code == 0, verified.output
    return report


@pytest.mark.slow
@pytest.mark.parametrize("data", ["labelled", "unlabelled"])
def test_the_default_recipe_without_limits(job, tmp_path, data):
    report = check(job, tmp_path / "out", "auto", data, "none", "--max-drop", "3")
    assert report.rounds
    chosen = next(one for one in report.rounds if one.download_bytes == report.compressed.download_bytes)
    assert chosen.drop_pp <= 3
    smaller = [one for one in report.rounds if one.download_bytes < chosen.download_bytes]  # flash is packed for micro alone
    assert all(one.drop_pp > max(1.0, chosen.drop_pp) for one in smaller), (
        "left only for drops near the limit: two standard errors count"
    )


@pytest.mark.slow
def test_the_default_recipe_where_no_filter_goes(job, tmp_path):
    report = check(job, tmp_path / "out", "auto", "unlabelled", "flash", "--flash", "40kB")
    assert report.budget.met, "all fits: plain bits are enough"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_under_a_limit(job, tmp_path, recipe):
    check(job, tmp_path / "out", recipe, "labelled", "flash")


@pytest.mark.exhaustive
@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("data", ["labelled", "unlabelled", "unlabelled_test", "no_test"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe(job, tmp_path, recipe, data, limits):
    if limits != "none" and recipe in OF_OTHERS:
        pytest.skip("a method of others knows no limits")
    check(job, tmp_path / "out", recipe, data, limits)


def test_interrupted_between_bundle_and_report_the_same_command_continues(job, monkeypatch, tmp_path):
    words = ["compress", job / "digits.keras", "--data", job / "labelled.npz", "--out", tmp_path / "out", "--epochs", "0"]
    words += ["--recipe", "lrp-mixed", "--max-drop", "100", "--baselines", "", "--target", "mobile", "--quiet"]
    words = [str(word) for word in words]

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("keras_xaic.pipeline.job.compare_models", interrupted)
        assert CliRunner().invoke(app, words).exit_code == 130
    assert (tmp_path / "out.partial" / "bundle" / "relevance.npz").is_file()  # added after the bundle was marked
    again = CliRunner().invoke(app, words)
    assert again.exit_code in (0, 3), again.output
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
