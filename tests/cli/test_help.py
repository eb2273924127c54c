"""Help, lists and interruptions: what a person reads when nothing is wrong yet."""

from __future__ import annotations

import pathlib
import re
import sys

import pytest
from typer.testing import CliRunner

import keras_xaic.pipeline
from keras_xaic import errors
from keras_xaic.cli.app import app
from keras_xaic.ownership import Mark
from keras_xaic.recipes import RECIPES

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(command):
    result = CliRunner().invoke(app, [command, "--help"], terminal_width=200)
    assert result.exit_code == 0
    assert f"Example: xaic {command}" in result.output


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
    ("typed", "offered"), [("xaic re", {"report", "recipes"}), ("xaic verify --interpreter tfl", {"tflite-runtime", "tflm"})]
)
def test_the_shell_completes(typed, offered):
    words = {"_XAIC_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    result = CliRunner().invoke(app, [], prog_name="xaic", env=words)
    assert set(result.output.split()) == offered


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
