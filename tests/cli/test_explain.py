from __future__ import annotations

import csv
import importlib.util
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from keras_xaic._keras import keras, layers
from keras_xaic.cli.app import app
from keras_xaic.relevance import Relevance


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(6, 3, name="second")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="relu")(x))
    keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x)).save(folder / "m.keras")
    rng = np.random.default_rng(0)
    np.savez(folder / "d.npz", x_train=rng.random((40, 8, 8, 3)), y_train=np.arange(40) % 3, x_test=rng.random((6, 8, 8, 3)))
    return folder


def explain(place, out, *options):
    command = ["explain", str(place / "m.keras"), "--data", str(place / "d.npz"), "--out", str(out), *options]
    return CliRunner().invoke(app, command, terminal_width=140)


def test_explain_writes_scores_table_and_pictures(place, tmp_path):
    result = explain(place, tmp_path / "why", "--cross-check", "--pictures", "2")
    assert result.exit_code == 0, result.output
    relevance = Relevance.load(tmp_path / "why" / "relevance.npz")
    assert relevance.weights["conv"].shape == (3, 3, 3, 4)
    rows = list(csv.DictReader((tmp_path / "why" / "layers.csv").open()))
    assert [row["name"] for row in rows] == ["conv", "second", "head"]
    assert [float(row["relevance"]) for row in rows] == pytest.approx([relevance.layers[row["name"]] for row in rows])
    assert max(one["relative"] for one in json.loads((tmp_path / "why" / "cross_check.json").read_text())) < 1e-4
    assert len(list((tmp_path / "why" / "pictures").glob("*.png"))) == 2
    assert "native against iNNvestigate" in result.output


@pytest.mark.parametrize("options", [["--cross-check"], ["--engine", "innvestigate"]])
def test_without_innvestigate_it_is_asked_for_before_any_work(place, tmp_path, monkeypatch, options):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "innvestigate" else found(name, *more))
    result = explain(place, tmp_path / "why", *options)
    assert result.exit_code == 2
    assert "iNNvestigate is not installed; the native engine works without it" in result.output
    assert "pip install --no-deps --ignore-requires-python 'innvestigate" in " ".join(result.output.split())
    assert not (tmp_path / "why").exists()
    assert not list(tmp_path.rglob("attribution.npz"))


def test_a_composite_from_a_file(place, tmp_path):
    (tmp_path / "mine.json").write_text('{"first": "lrp.flat", "conv": "lrp.z_plus", "*": "lrp.epsilon"}')
    result = explain(place, tmp_path / "why", "--rule", str(tmp_path / "mine.json"), "--pictures", "0", "--quiet")
    assert result.exit_code == 0, result.output
    assert len(result.output.strip().splitlines()) == 1
    assert "lrp.flat" in Relevance.load(tmp_path / "why" / "relevance.npz").rule


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rule", "lrp.magic"], "lrp.magic"),
        (["--target", "7"], "7"),
        (["--reduce", "median"], "median"),
        (["--engine", "steam"], "steam"),
        (["--rule", "none.json"], "none.json does not exist"),
    ],
)
def test_wrong_options_are_one_line(place, tmp_path, options, said):
    result = explain(place, tmp_path / "why", *options)
    assert result.exit_code == 2, result.output
    assert len(result.output.strip().splitlines()) == 1
    assert said in result.output
    assert not (tmp_path / "why").exists()
