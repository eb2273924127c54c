"""Help, lists and interruptions: what a person reads when nothing is wrong yet."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
import zipfile
from dataclasses import fields

import h5py
import pytest
from typer.testing import CliRunner

import keras_xaic.pipeline
from keras_xaic import compression, errors
from keras_xaic.budget import Budget
from keras_xaic.cli.app import app
from keras_xaic.ownership import Mark
from keras_xaic.pipeline import run_settings
from keras_xaic.recipes import RECIPES
from keras_xaic.searching import study
from keras_xaic.settings import Training

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


def test_the_epochs_that_the_help_names_are_those_of_the_code():
    help_text = " ".join(str(one.metadata) for one in fields(Training) if one.name == "epochs")
    assert f"default: {run_settings.EPOCHS}, for trials of a search {study.EPOCHS}, or" in help_text
    said = " ".join((Training.__doc__ or "").split())
    assert f"None: {run_settings.EPOCHS} (`apply`: {compression.EPOCHS}, trials of a search: {study.EPOCHS})" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(command):
    result = CliRunner().invoke(app, [command, "--help"], terminal_width=200)
    assert result.exit_code == 0
    assert f"Example: xaic {command}" in result.output


def test_the_package_is_the_command():
    done = subprocess.run([sys.executable, "-m", "keras_xaic", "--help"], capture_output=True, text=True, check=True)
    assert "Usage: xaic [OPTIONS]" in done.stdout


@pytest.mark.parametrize("command", ["compress", "plan"])
def test_every_limit_is_an_option(command):
    said = CliRunner().invoke(app, [command, "--help"], terminal_width=200).output
    limits = [field.name for field in fields(Budget) if (command, field.name) != ("compress", "mean_bits")]
    assert {"latency", "max_slowdown"} < set(limits)
    assert [name for name in limits if f"--{name.replace('_', '-')} " not in said] == []


def test_the_overview_names_every_command_and_the_exit_codes():
    output = CliRunner().invoke(app, ["--help"], terminal_width=200).output
    assert all(f"{command} " in output for command in COMMANDS)
    assert "130 interrupted" in output


def test_the_exit_codes_of_readme_and_help_are_all_that_there_are():
    readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", readme, re.M)}
    assert {int(code) for code in re.findall(r"(?:codes:|;) (\d+) ", app.info.epilog)} == told
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.XaicError)]
    assert {kind.exit_code for kind in kinds} | {0, 3, 130} == told


def test_a_finished_explanation_is_not_replaced_unasked(tmp_path):
    out = tmp_path / "why"
    out.mkdir()
    (out / "relevance.npz").write_bytes(b"x")
    Mark("explanation", files=("relevance.npz",)).write(out)
    result = CliRunner().invoke(app, ["explain", "m.keras", "--data", "d.npz", "--out", str(out)], terminal_width=200)
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert "is not empty. Choose another --out; add --overwrite to replace it." in result.output
    assert (out / "relevance.npz").read_bytes() == b"x"


def test_recipes_are_explained_with_their_source():
    output = " ".join(CliRunner().invoke(app, ["recipes"], terminal_width=200).output.replace("│", " ").split())
    for recipe in RECIPES.values():
        assert " ".join(recipe.summary.split()) in output
        assert " ".join(f"Source: {recipe.source}".split()) in output


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("xaic re", {"report", "recipes"}),
        ("xaic verify --interpreter tfl", {"tflite-runtime", "tflm"}),
        ("xaic recipes ec", {"ecq", "ecqx"}),
        ("xaic compress m.h5 --recipe deeplift-f", {"deeplift-filters"}),
        ("xaic compress m.h5 --baselines int8,mag", {"int8,magnitude"}),
        ("xaic explain m.h5 --rule lrp.alpha_2", {"lrp.alpha_2_beta_1"}),
        ("xaic explain m.h5 --engine n", {"native"}),
    ],
)
def test_the_shell_completes(typed, offered):
    assert completed(typed) >= offered
    assert len(completed(typed)) < 4


def completed(typed):
    words = {"_XAIC_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    return set(CliRunner().invoke(app, [], prog_name="xaic", env=words).output.split())


@pytest.fixture(params=["m.keras", "m.h5"])
def model_file(request, tmp_path):
    """What completion reads of a model: its configuration."""
    dense = {"class_name": "Dense", "config": {"name": "head", "units": 3}}
    wrapped = {"class_name": "TimeDistributed", "config": {"name": "steps", "layer": dense}}
    inner = {"class_name": "Sequential", "config": {"name": "inner", "layers": [dense]}}
    pooling = {"class_name": "Flatten", "config": {"name": "flat"}}
    config = json.dumps({"class_name": "Sequential", "config": {"layers": [pooling, dense, wrapped, inner]}})
    path = tmp_path / request.param
    if path.suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", config)
            archive.writestr("model.weights.h5", b"")
    else:
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = config
    return path


def test_the_shell_completes_layers_with_weights(model_file):
    assert completed(f"xaic compress {model_file} --float-layers ") == {"head", "steps", "inner/head"}
    assert completed(f"xaic plan {model_file} --pin in") == {"inner/head="}
    if model_file.suffix == ".keras":
        assert completed(f"xaic compress {model_file} --zeros head=") == {"head=2:4", "head=4x1"}


def test_the_shell_completes_nothing_of_what_is_no_model(tmp_path):
    for name in ("m.keras", "m.h5"):
        (tmp_path / name).write_bytes(b"PK")
        assert completed(f"xaic compress {tmp_path / name} --float-layers ") == set()


@pytest.mark.usefixtures("anything_given")
def test_an_interruption_names_the_command_that_continues(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(keras_xaic.pipeline, "compress", interrupted)
    words = ["compress", "my model.h5", "--data", "d.npz", "--out", "small"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/xaic", *words])
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 130
    assert result.output.splitlines()[-1] == "  xaic compress 'my model.h5' --data d.npz --out small"
