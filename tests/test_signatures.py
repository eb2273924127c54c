"""Nothing takes more than ten parameters, nor more than ten by position: options that belong together are groups."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pathlib
import pkgutil

import pytest

import keras_xaic
from keras_xaic.arguments import keyword_only
from keras_xaic.errors import PlanError

MOST = 10
PACKAGE = pathlib.Path(keras_xaic.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def parameters(function: ast.FunctionDef) -> list[str]:
    """Names of what a function takes; ``self`` and ``cls`` are not given by who calls it."""
    groups = function.args
    names = [one.arg for one in (*groups.posonlyargs, *groups.args, *groups.kwonlyargs)]
    names += [one.arg for one in (groups.vararg, groups.kwarg) if one is not None]
    return [name for name in names if name not in ("self", "cls")]


def test_no_function_takes_more_than_ten_parameters():
    found = {}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and len(parameters(node)) > MOST:
                found[f"{file.relative_to(PACKAGE)}: {node.name}"] = len(parameters(node))
    assert found == {}


def test_the_count_counts():
    text = "def f(self, a, b=1, /, c=2, *rest, d, **more): ..."
    assert parameters(ast.parse(text).body[0]) == ["a", "b", "c", "d", "rest", "more"]


def classes():
    """Every class of the package whose module loads without TensorFlow or with it; never what runs alone."""
    for info in pkgutil.walk_packages(keras_xaic.__path__, "keras_xaic."):
        if info.name.endswith((".__main__", ".engine_innvestigate")):
            continue
        module = importlib.import_module(info.name)
        yield from (kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == info.name)


def test_no_constructor_takes_more_than_ten_arguments_by_position():
    found = {}
    for kind in classes():
        if "__init__" in vars(kind):
            taken = list(inspect.signature(kind.__init__).parameters.values())[1:]
            count = sum(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in taken)
            if count > MOST:
                found[f"{kind.__module__}.{kind.__name__}"] = count
    assert found == {}


def test_what_is_by_name_only_is_refused_by_position():
    with pytest.raises(PlanError, match="too many positional arguments"):
        keras_xaic.Training(3, None, 5, 7)
    assert keras_xaic.Training(3).epochs == dataclasses.replace(keras_xaic.Training(), epochs=3).epochs
    assert keyword_only(after=1)(dataclasses.make_dataclass("Two", ["one", "two"]))(1, two=2).two == 2
