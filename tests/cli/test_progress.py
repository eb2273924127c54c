"""Where stderr is a file, long work says line by line how far it is; short work and --quiet say nothing."""

from __future__ import annotations

import pytest

from keras_xaic.cli import progress_lines
from keras_xaic.cli.progress_lines import ProgressLines
from keras_xaic.cli.terminal import Terminal


@pytest.fixture
def timed():
    said: list[str] = []
    now = [0.0]
    return ProgressLines(said.append, lambda: now[0]), now, said


def test_quick_work_says_nothing(timed):
    progress, now, said = timed
    for moment, stage in enumerate(("load", "attribute", "plan", "train")):
        now[0] = float(moment)
        progress(stage, 0, 10)
        progress(stage, 10, 10)
    assert said == []


def test_every_stage_is_told_and_then_now_and_then(timed):
    progress, now, said = timed
    now[0] = 6.0
    progress("attribute", 0, 1000)
    for done in range(1, 1000):
        now[0] = 6.0 + done / 10
        progress("attribute", done, 1000, f"batch {done}")
    progress("attribute", 1000, 1000)
    progress("plan", 0, 8, "measuring")
    assert said[0] == "attribute"
    assert said[1] == "attribute: 100 of 1,000, about 1 min 30 s left, batch 100"
    assert said[-1] == "plan: measuring"
    assert len(said) == 11


def test_what_is_left_is_predicted_without_the_slow_first_batch_and_anew_when_a_stage_begins_again(timed):
    progress, now, said = timed
    for begin in (100.0, 1000.0):
        now[0] = begin
        progress("plan", 1, 11)  # whatever the first one took
        for done in range(2, 11):
            now[0] += 12.0
            progress("plan", done, 11)
    assert said[1] == "plan: 2 of 11, about 1 min 48 s left"
    assert said.count(said[1]) == 2


@pytest.mark.parametrize(("options", "lines"), [({}, 1), ({"quiet": True}, 0), ({"as_json": True}, 0)])
def test_the_terminal_uses_lines_where_stderr_is_a_file(options, lines, capsys, monkeypatch):
    monkeypatch.setattr(progress_lines, "SILENT", -1.0)
    with Terminal(**options) as terminal:
        terminal.progress("train", 1, 20, "validation 0.91")
        terminal.progress("train", 2, 20, "validation 0.92")
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == lines
    assert all("train: 1 of 20" in line and "validation 0.91" in line for line in said.err.splitlines())
