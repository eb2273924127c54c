"""Docstrings of the public names say what goes in, what comes out and what is raised; their examples run."""

from __future__ import annotations

import builtins
import doctest
import importlib
import inspect
import re

import pytest

import keras_xaic
from keras_xaic import errors

NAMES = [name for name in keras_xaic.__all__ if name != "__version__"]
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(keras_xaic, name))]


def sections(thing):
    """The docstring by section; of classes with those of their bases, as far as they are of the package."""
    found = {}
    for one in thing.__mro__ if isinstance(thing, type) else [thing]:
        if one.__module__.startswith("keras_xaic"):
            parts = re.split(r"^(Args|Attributes|Returns|Raises):\n", inspect.cleandoc(one.__doc__ or ""), flags=re.M)
            for title, text in zip(parts[1::2], parts[2::2]):
                found[title] = found.get(title, "") + text
    return found


def arguments(thing):
    if hasattr(thing, "model_fields"):
        return list(thing.model_fields)
    return [name for name, one in inspect.signature(thing).parameters.items() if one.kind is not one.VAR_KEYWORD]


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_is_described(name):
    thing = getattr(keras_xaic, name)
    assert inspect.cleandoc(thing.__doc__ or "").partition("\n")[0].endswith((".", ":")) or "." in thing.__doc__
    described = re.findall(
        r"^    (\w+)(?: \(.*\))?: \S", "".join(sections(thing).get(part, "") for part in ("Args", "Attributes")), re.M
    )
    assert [one for one in arguments(thing) if one not in described] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_say_what_they_return_and_raise(name):
    thing = getattr(keras_xaic, name)
    found = sections(thing)
    assert "Returns" in found or re.match(r"(Returns|Loads|Accepts) ", thing.__doc__)
    raised = [one for names in re.findall(r"^    (\w+(?:, \w+)*): \S", found["Raises"], re.M) for one in names.split(", ")]
    assert raised
    assert all(hasattr(errors, one) or hasattr(builtins, one) for one in raised)


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name):
    thing = getattr(keras_xaic, name)
    found = doctest.DocTestFinder(recurse=False).find(thing, name, globs=dict(vars(importlib.import_module(thing.__module__))))
    if not found[0].examples:
        assert name in WITHOUT_EXAMPLE
        return
    said = []
    assert doctest.DocTestRunner().run(found[0], out=said.append).failed == 0, "".join(said)


WITHOUT_EXAMPLE = {name for name in NAMES if name.endswith("Error")} | {
    "CompressedModel",
    "compress",
    "explain",
    "export",
    "pick",
    "search",
    "verify",
}
