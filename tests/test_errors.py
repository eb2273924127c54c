from __future__ import annotations

import ast
import functools
import pathlib
import pickle
import re
import shlex

import numpy as np
import pytest
import typer

import keras_xaic
from keras_xaic.cli.app import app
from keras_xaic.cli.terminal import spelled_by
from keras_xaic.errors import MOST_CHARACTERS, OPTION, DataError, Spelling, XaicError

COMMANDS = typer.main.get_command(app).commands
PYTHON = {"callbacks", "engine", "rule", "reduce", "allow_approximate"}
"""Options that only functions have."""
FILLED = "NAME"
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")


def test_whatever_a_file_holds_the_message_is_one_short_line():
    error = DataError("a\nb\x1b[2J\u202ec\ud800" + "x" * 5000 + "end", "y\r\n", "do this")
    assert str(error).isprintable()
    assert str(error).startswith("a b [2J c xxx")
    assert len(error.found) <= MOST_CHARACTERS
    assert str(error).endswith("end. Expected y. Do this.")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_commands_of_advice_can_be_copied():
    assert str(XaicError("it is not there", "", "pip install it")) == "it is not there. pip install it."


def written(node):
    """The text of a literal, an f-string's with `FILLED` for what stands in braces; "" for everything else."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    if not all(isinstance(part, ast.FormattedValue) or isinstance(getattr(part, "value", None), str) for part in parts):
        return ""
    return "".join(part.value if isinstance(part, ast.Constant) else FILLED for part in parts)


@functools.cache
def texts():
    """(file and line, text) of every literal text that people may read: all that are words, but for docstrings and help."""
    found = []
    for file in pathlib.Path(keras_xaic.__file__).parent.rglob("*.py"):
        if "cli" in file.parts or file.name == "settings.py":
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        left_out = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                left_out |= {id(part) for part in node.values}  # they are one text
            text = written(node) if id(node) not in left_out else ""
            if " " in text.strip():
                found.append((f"{file.name}:{node.lineno}", text))
    return found


def full_commands(text):
    """Command lines of ours in a text."""
    return re.findall(r"xaic ([a-z]+(?: [^`\]\n]*)?)", text)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_message_names_only_options_of_the_command_that_runs(name):
    command = COMMANDS[name]
    spelled, own = spelled_by(command), {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
    seen = 0
    for place, text in texts():
        if "pip install" in text or full_commands(text):
            continue
        shown = XaicError("found", "expected", text).render(spelled)
        seen += shown != XaicError("found", "expected").render()
        assert set(FLAG.findall(shown)) <= own, f"{place}: {name} has no such option: {text}"
        for option, value in OPTION.findall(text):
            if option in spelled and spelled[option].values and shown.find(spelled[option].name) >= 0 and value:
                assert value in spelled[option].values, f"{place}: {name} refuses {value!r}"
    assert seen > 300


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_names_only_its_own_options(name):
    command = COMMANDS[name]
    own = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
    said = [command.help or "", *(getattr(one, "help", None) or "" for one in command.params)]
    assert len(said) > len(command.params)
    assert [text for text in said if not set(FLAG.findall(text)) <= own] == []


def test_advice_names_only_options_that_some_command_or_function_has():
    known = {parameter.name for command in COMMANDS.values() for parameter in command.params} | PYTHON
    advised = {(place, option) for place, text in texts() for option, _ in OPTION.findall(text) if "\n" not in text}
    assert len(advised) > 20
    assert {one for one in advised if one[1] not in known} == set()


def test_full_commands_in_messages_can_be_run():
    seen = 0
    for place, text in texts():
        for line in full_commands(text):
            words = shlex.split(line.strip(" .;:,`"), posix=False)
            if words[0] not in COMMANDS:
                continue
            seen += 1
            own = {flag for one in COMMANDS[words[0]].params for flag in (*one.opts, *one.secondary_opts)} | {"--help"}
            assert {word for word in words if word.startswith("--")} <= own, f"{place}: {text}"
    assert seen > 10


def test_advice_is_left_out_where_the_command_has_no_such_option():
    error = DataError("found", "", "keep it float: {float_layers=NAME}; choose another {out}; say {target=predicted}")
    assert error.render({"out": Spelling.flag("--out")}) == "found. Choose another --out."
    targets = {"target": Spelling.flag("--target", ("mobile", "micro")), "out": Spelling.flag("--out")}
    assert error.render(targets) == "found. Choose another --out."
    assert str(error) == "found. Keep it float: float_layers='NAME'; choose another out; say target='predicted'."


FAILING = (
    "pipeline.compressing.get_recipe",
    "pipeline.exporting.output",
    "pipeline.explaining.output",
    "pipeline.previewing._loaded",
    "edge.marking.open_bundle",
    "relevance.attribution.as_model",
)
FIX = "use {float_layers=NAME}; use {allow_unsafe=True}; use {activations=int8}; use {target=mobile}; use {target=predicted}"


@pytest.mark.parametrize(
    ("call", "advised"),
    [
        (
            lambda: keras_xaic.compress("m.keras", "d.npz"),
            "use recipe.changed(float_layers='NAME'); use options=DataOptions(allow_unsafe=True); "
            "use recipe.changed(activations='int8'); use device=Device(target='mobile')",
        ),
        (
            lambda: keras_xaic.export("m.keras", "out", calibration="d.npz", target="micro"),
            "use float_layers='NAME'; use options=DataOptions(allow_unsafe=True); use target='mobile'; use target='predicted'",
        ),
        (
            lambda: keras_xaic.explain("m.keras", "d.npz", "why"),
            "use options=DataOptions(allow_unsafe=True); use attribution=AttributionOptions(target='mobile'); "
            "use attribution=AttributionOptions(target='predicted')",
        ),
        (lambda: keras_xaic.verify("out", "d.npz"), "use options=DataOptions(allow_unsafe=True)"),
        (
            lambda: keras_xaic.plan("m.keras", "why", data="d.npz"),
            "use recipe.changed(float_layers='NAME'); use options=DataOptions(allow_unsafe=True); "
            "use recipe.changed(activations='int8')",
        ),
        (lambda: keras_xaic.attribute(None, np.zeros(1)), "use target='mobile'; use target='predicted'"),
    ],
)
def test_in_python_advice_is_an_argument_of_the_function_that_was_called(monkeypatch, tmp_path, call, advised):
    def fails(*_, **__):
        raise DataError("found", "", FIX)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    for place in FAILING:
        monkeypatch.setattr(f"keras_xaic.{place}", fails)
    with pytest.raises(DataError) as caught:
        call()
    assert str(caught.value) == f"found. U{advised[1:]}."
