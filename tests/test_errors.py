from __future__ import annotations

import ast
import pathlib
import pickle
import re

import typer

import keras_xaic
from keras_xaic.cli.app import app
from keras_xaic.errors import MOST_CHARACTERS, OPTION, DataError


def test_whatever_a_file_holds_the_message_is_one_short_line():
    error = DataError("a\nb\x1b[2J\u202ec\ud800" + "x" * 5000 + "end", "y\r\n", "do this")
    assert str(error).isprintable()
    assert str(error).startswith("a b [2J c xxx")
    assert len(error.found) <= MOST_CHARACTERS
    assert str(error).endswith("end. Expected y. Do this.")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def _messages():
    """(file and line, text) of every literal text that an error of ours is made of, or that is kept as advice."""
    for file in pathlib.Path(keras_xaic.__file__).parent.rglob("*.py"):
        if "cli" in file.parts:
            continue
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = getattr(getattr(call, "func", None), "id", "")
            if isinstance(call, ast.Call) and name.endswith("Error"):
                for one in ast.walk(call):
                    if isinstance(one, ast.Constant) and isinstance(one.value, str):
                        yield f"{file.name}:{one.lineno}", one.value


def test_messages_name_options_only_where_the_command_that_runs_has_them():
    commands = typer.main.get_command(app).commands
    known = {parameter.name for command in commands.values() for parameter in command.params}
    python = {"engine", "rule", "reduce", "allow_approximate"}
    for place, text in _messages():
        if "pip install" not in text and "xaic recipes" not in text:
            assert not re.search(r"(?<![\w-])--[a-z]", text), f"{place} spells an option of the command line: {text}"
        for name, _ in OPTION.findall(text):
            assert name in known | python, f"{place} advises {name}, which no command takes"


def test_advice_is_left_out_where_the_command_has_no_such_option():
    error = DataError("found", "", "keep it float: {float_layers=NAME}; choose another {out}")
    assert error.render(spelled={"out": "--out"}) == "found. Choose another --out."
    assert error.render({"float_layers", "out"}) == "found. Keep it float: float_layers='NAME'; choose another out."
