"""Turns a function of settings into a command: its groups become options, its errors one line, its progress a display."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, Optional, get_type_hints

import typer

from keras_xaic.budget import Budget
from keras_xaic.cli.completion import COMPLETED
from keras_xaic.cli.options import MethodOptions, Quiet, SearchArguments
from keras_xaic.cli.terminal import Terminal, failing
from keras_xaic.errors import XaicWarning
from keras_xaic.files import expanded
from keras_xaic.settings import AttributionOptions, DataOptions, Device, FileOptions, Training

GROUPS: dict[type, str] = {
    SearchArguments: "Search",
    Budget: "Budget",
    MethodOptions: "Method",
    AttributionOptions: "Method",
    Training: "Training",
    Device: "Device",
    FileOptions: "File",
    DataOptions: "Data",
}
"""Classes of settings -> the panel of the help that shows their options."""


def command(*, only: Optional[Mapping[type, Sequence[str]]] = None, json: str = "") -> Callable[[Any], Any]:
    """Makes a command of a function whose first parameter is the terminal.

    Parameters that are annotated with a class of `GROUPS` become the options that its fields declare.

    Args:
        only: Class -> the fields that this command offers; others keep their defaults. A group within a group is offered only
            if it is named here.
        json: Help of its ``--json``; empty where it has none.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function)
        parameters = list(inspect.signature(function).parameters.values())[1:]  # without the terminal
        groups = {one.name: hints[one.name] for one in parameters if hints[one.name] in GROUPS}
        plain = [one.replace(annotation=hints[one.name]) for one in parameters if one.name not in groups]
        inner = {part: name for name, group in groups.items() for part in _inner(group) if _inner(group)[part] in (only or {})}
        groups.update({part: _inner(groups[name])[part] for part, name in inner.items()})
        fields = {name: _offered(group, (only or {}).get(group)) for name, group in groups.items()}
        options = [_parameter(groups[name], field) for name in groups for field in fields[name]]
        ends = [("quiet", Quiet)]
        if json:
            ends.append(("json", typer.Option(False, "--json", help=json, rich_help_panel="Output")))
        final = [inspect.Parameter(name, _KIND, default=default, annotation=bool) for name, default in ends]

        @functools.wraps(function)
        def run(**given: Any) -> None:
            with (
                Terminal(quiet=given.pop("quiet"), as_json=given.pop("json", False)) as terminal,
                failing(terminal),
                _heard(terminal),
            ):
                for one in plain:
                    if isinstance(given[one.name], pathlib.Path):
                        given[one.name] = expanded(given[one.name])  # a shell leaves the ~ of --out=~/small
                for name, group in groups.items():
                    values = {field.name: _value(field, given.pop(field.name)) for field in fields[name]}
                    given[name] = group(**values)
                for part, name in inner.items():
                    given[name] = dataclasses.replace(given[name], **{part: given.pop(part)})
                function(terminal, **given)

        signature = [one.replace(kind=_KIND) for one in plain] + options + final
        run.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in signature}
        run.values = {one.name: one.metadata["values"] for name in groups for one in fields[name]}  # type: ignore[attr-defined]
        return run

    return decorate


@contextlib.contextmanager
def _heard(terminal: Terminal) -> Iterator[None]:
    """Shows our own warnings as the terminal does, and keeps those of libraries quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", XaicWarning)
        warnings.showwarning = lambda message, *_, **__: terminal.warn(str(message))
        yield


_KIND = inspect.Parameter.KEYWORD_ONLY


def _offered(group: type, names: Optional[Sequence[str]]) -> list[Any]:
    found = [field for field in dataclasses.fields(group) if "help" in field.metadata]
    return found if names is None else [field for field in found if field.name in names]


def _inner(group: type) -> dict[str, type]:
    """Returns the fields of a group that are groups themselves."""
    hints = get_type_hints(group)
    return {field.name: hints[field.name] for field in dataclasses.fields(group) if hints[field.name] in GROUPS}


def _parameter(group: type, field: Any) -> inspect.Parameter:
    default, facts = field.default, field.metadata
    kind: Any
    if facts["kind"] is list:
        default, kind = [], list[str]
    else:
        default = ",".join(default) if isinstance(default, tuple) else default
        kind = facts["kind"] or (str if default is None else type(default))
    values = list(facts["values"])
    made = typer.Option(
        default,
        facts["flag"] or "--" + field.name.replace("_", "-"),
        help=facts["help"],
        show_default=default not in (None, "", []),
        rich_help_panel=GROUPS[group],
        autocompletion=COMPLETED.get(field.name) or ((lambda: values) if values else None),
    )
    return inspect.Parameter(field.name, _KIND, default=made, annotation=Optional[kind] if default is None else kind)


def _value(field: Any, given: Any) -> Any:
    """Text of several names, separated by commas, becomes a tuple."""
    is_text = isinstance(field.default, tuple) and isinstance(given, str)
    return tuple(one.strip() for one in given.split(",") if one.strip()) if is_text else given
