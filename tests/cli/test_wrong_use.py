"""Every wrong input is one clear line and exit code 2, before any long work."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from keras_xaic._keras import keras, layers
from keras_xaic.cli.app import app


class Secret(layers.Layer):
    """A layer nobody else knows."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax", name="head")])
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    (folder / "text.h5").write_text("not a model")
    keras.Sequential([keras.Input((4,)), Secret(name="mine"), layers.Dense(3)]).save(folder / "custom.h5")
    keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x * 2, name="trick"), layers.Dense(3)]).save(
        folder / "lambda.h5"
    )
    inputs = keras.Input((4, 4, 1))
    outputs = layers.Dense(3)(layers.Flatten()(layers.ConvLSTM1D(2, 2, name="strange")(inputs)))
    keras.Model(inputs, outputs).save(folder / "unsupported.h5")
    rng = np.random.default_rng(0)
    x, y = rng.random((12, 4)).astype(np.float32), np.arange(12) % 3
    good = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    np.savez(folder / "good.npz", **good)
    np.savez(folder / "cube.npz", x_train=rng.random((12, 4, 4, 1)), y_train=y)
    np.savez(folder / "shape.npz", **{**good, "x_train": np.zeros((12, 5))})
    np.savez(folder / "key.npz", images=x, labels=y)
    np.savez(folder / "nan.npz", **{**good, "x_test": np.where(x > 0.9, np.nan, x)})
    np.savez(folder / "empty.npz", **{**good, "x_train": x[:0], "y_train": y[:0]})
    np.savez(folder / "labels.npz", **{**good, "y_train": y + 5})
    layer = {"key": "head", "kind": "dense", "weights": 12, "bits": 6, "granularity": "channel", "storage": "int8"}
    for name, change in (("elsewhere", {"key": "elsewhere"}), ("packed", {"storage": "int4"})):
        (folder / f"{name}.json").write_text(json.dumps({"schema": 1, "layers": [{**layer, **change}]}))
    (folder / "full").mkdir()
    (folder / "full" / "thesis.txt").write_text("precious")
    return folder


@pytest.mark.parametrize(
    ("model", "data", "options", "said"),
    [
        ("none.h5", "good.npz", [], "none.h5"),
        ("text.h5", "good.npz", [], "text.h5"),
        ("custom.h5", "good.npz", [], "Secret"),
        ("lambda.h5", "good.npz", [], "trick"),
        ("unsupported.h5", "cube.npz", ["--strict"], "strange"),
        ("m.h5", "none.npz", [], "none.npz does not exist"),
        ("m.hdf5", "good.npz", [], "m.h5 does)"),
        ("m.h5", "godo.npz", [], "good.npz does)"),
        ("m.h5", "shape.npz", [], "x_train has samples of shape (5,)"),
        ("m.h5", "key.npz", [], "no key x_train (its keys: images, labels)"),
        ("m.h5", "nan.npz", [], "x_test contains NaN"),
        ("m.h5", "empty.npz", [], "x_train is empty"),
        ("m.h5", "labels.npz", [], "y_train[0] is class 5"),
        ("m.keras", "good.npz", ["--flash", "lots"], "the flash budget is 'lots'"),
        ("m.keras", "good.npz", ["--download", "-3kB"], "the download budget is '-3kB'"),
        ("m.keras", "good.npz", ["--max-drop", "-1"], "max_drop is -1"),
        ("m.keras", "good.npz", ["--latency", "5kB"], "the latency budget is '5kB'. Expected a time such as 0.5ms"),
        ("m.keras", "good.npz", ["--latency", "0ms"], "the latency budget is '0ms'"),
        ("m.keras", "good.npz", ["--max-slowdown", "0"], "max_slowdown is 0"),
        ("m.keras", "good.npz", ["--max-slowdown", "1", "--target", "micro"], "limit of time on litert for the target micro"),
        ("m.keras", "good.npz", ["--min-similarity", "1.2"], "min_similarity is 1.2. Expected 0 to 1"),
        ("m.keras", "good.npz", ["--min-similarity", "-0.1"], "min_similarity is -0.1"),
        ("m.keras", "good.npz", ["--baselines", "all,int8"], "no recipe 'all'"),
        ("m.keras", "good.npz", ["--recipe", "magic"], "no recipe 'magic'"),
        ("m.keras", "good.npz", ["--baselines", "int8,hope"], "no recipe 'hope'"),
        ("m.keras", "good.npz", ["--target", "moon"], "moon"),
        (
            "m.keras",
            "good.npz",
            ["--plan", "elsewhere.json"],
            "the plan names the layer 'elsewhere'. Expected one of the model's",
        ),
        ("m.keras", "good.npz", ["--plan", "packed.json"], "as int4. Expected int8"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(place, model, data, options, said):
    out = place / "out"
    options = [str(place / option) if option.endswith(".json") else option for option in options]
    result = CliRunner().invoke(
        app, ["compress", str(place / model), "--data", str(place / data), "--out", str(out), *options], terminal_width=200
    )
    lines = [line for line in result.output.splitlines() if line.strip()]
    assert result.exit_code == 2, result.output
    assert len(lines) == 1
    assert lines[0].startswith("xaic: ")
    assert said in lines[0]
    assert not out.exists()


def test_a_full_directory_is_left_alone(place):
    result = CliRunner().invoke(
        app, ["compress", str(place / "m.h5"), "--data", str(place / "good.npz"), "--out", str(place / "full")]
    )
    assert result.exit_code == 2
    assert "not empty" in result.output
    assert "--overwrite" in result.output
    assert [p.name for p in (place / "full").iterdir()] == ["thesis.txt"]


def test_an_option_of_other_commands_is_said_to_be_theirs():
    for option, said in (
        ("--io", "it is one of xaic compress, xaic export, xaic search"),
        ("--flesh", "No such option: --flesh"),
    ):
        result = CliRunner().invoke(app, ["plan", "m.h5", "--relevance", "why", option, "uint8"])
        assert result.exit_code == 2
        assert said in " ".join(result.output.replace("│", " ").split())


def test_missing_options_are_named():
    result = CliRunner().invoke(app, ["compress", "m.h5", "--out", "x"])
    assert result.exit_code == 2
    assert "--data" in result.output


@pytest.mark.parametrize("command", ["verify", "report"])
def test_a_bundle_that_is_none(place, command):
    options = ["--data", str(place / "good.npz")] if command == "verify" else []
    result = CliRunner().invoke(app, [command, str(place / "nothing"), *options])
    assert result.exit_code == 2
    assert "nothing is not a directory" in result.output
