"""Standard output that is closed, full or a pipe nobody reads to the end: the exit code stays true, and nothing is a traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from keras_xaic.cli.streams import open_closed_streams

PROGRAM = [sys.executable, "-m", "keras_xaic.cli"]


def shell(words, end):
    """Runs the command with what the shell does to its streams; returns the exit code and what it says on stderr."""
    line = f"{' '.join([*PROGRAM, *words])} {end}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr.strip().splitlines()


@pytest.mark.parametrize(
    ("words", "end"), [(["recipes", "auto", "--json"], "| true"), (["--help"], "| true"), (["recipes"], "<&- >&-")]
)
def test_a_reader_that_has_enough_or_none_does_not_change_the_exit_code(words, end):
    assert shell(words, end) == (0, [])


def test_a_closed_error_stream_does_not_hide_the_exit_code():
    assert shell(["recipes", "no-such-recipe"], "2>&-") == (2, [])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_output_to_a_full_disk_is_one_line():
    said = "xaic: standard output cannot be written: the disk is full. Send it elsewhere."
    assert shell(["recipes", "auto", "--json"], "> /dev/full") == (5, [said])


def test_a_file_that_is_opened_never_gets_the_number_of_a_closed_stream():
    code = (
        "from keras_xaic.cli.streams import open_closed_streams; open_closed_streams(); print(open('/dev/null').fileno() > 2)"
    )
    line = f'{sys.executable} -c "{code}" <&- 2>&-'
    assert subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60).stdout == "True\n"
    open_closed_streams()  # open ones stay what they are
