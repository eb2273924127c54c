"""Texts reach the terminal as they are."""

from __future__ import annotations

import pytest
import typer
from rich.table import Table
from typer.testing import CliRunner

from keras_xaic.cli.app import app
from keras_xaic.cli.terminal import Terminal, failing
from keras_xaic.edge.doctor import EXTRAS, Check
from keras_xaic.errors import XaicError
from keras_xaic.report import Report
from tests.report.conftest import facts

STRANGE = "stage[1]/conv:smile:[/bold]"


def test_advice_keeps_the_extra_in_brackets(capsys):
    Terminal().show_checks([Check(name, "missing", "", fix) for name, (_, fix) in EXTRAS.items()])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "'keras-xaic[npu]'" in words
    assert "'keras-xaic[search]'" in words


@pytest.mark.parametrize("met", [True, False])
def test_a_budget_that_was_missed_is_exit_code_3(tmp_path, met):
    report = Report.model_validate(facts(budget={"flash_bytes": 64_000, "met": met}))
    terminal = Terminal(quiet=True)
    terminal.show_report(report, tmp_path)
    assert terminal.exit_code == (0 if met else 3)


def test_what_a_users_code_prints_is_no_part_of_the_json(capsys):
    with Terminal(as_json=True) as terminal:
        print("my layer is built")
        terminal.out.write("{}")
    print("later")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("{}\nlater\n", "my layer is built\n")


def test_names_of_layers_are_no_markup(capsys):
    terminal = Terminal()
    table = Table("layer", title=STRANGE)
    table.add_row(STRANGE)
    terminal.say(STRANGE, table)
    terminal.warn(STRANGE)
    terminal.last(STRANGE)
    assert capsys.readouterr().out.count(STRANGE) == 5
    with pytest.raises(typer.Exit), failing(terminal):
        raise XaicError(STRANGE)
    assert STRANGE in capsys.readouterr().err


def test_names_of_layers_are_no_markup_in_progress(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    terminal = Terminal()
    assert terminal.err.is_terminal
    terminal.progress(STRANGE, 1, 2, STRANGE)
    terminal.stop()
    assert capsys.readouterr().err.count(STRANGE) >= 2


@pytest.mark.parametrize("words", [["recipes", "auto", STRANGE], [STRANGE], ["compress", f"--{STRANGE}"]])
def test_what_is_typed_is_no_markup(words):
    output = CliRunner().invoke(app, words, env={"COLUMNS": "200"}).output
    assert STRANGE in output
