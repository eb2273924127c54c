"""Standard streams that are closed, full or not read to the end, and a shell's limits: one line, the true exit code."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from keras_xaic.cli.streams import open_closed_streams
from keras_xaic.recipes import RECIPES

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


@pytest.mark.parametrize("encoding", ["ascii", "ascii:surrogateescape"])
def test_a_name_that_the_encoding_of_the_output_lacks_is_no_error(tmp_path, encoding):
    (tmp_path / "größe.json").write_text(RECIPES["auto"].changed(name="größe").to_json(), encoding="utf-8")
    given = {"cwd": tmp_path, "env": {**os.environ, "PYTHONIOENCODING": encoding}, "capture_output": True, "timeout": 60}
    done = subprocess.run([*PROGRAM, "recipes", "größe.json"], check=False, **given)
    assert done.returncode == 0, done.stderr
    assert rb"gr\xf6\xdfe" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_output_to_a_full_disk_is_one_line():
    said = "xaic: standard output cannot be written: the disk is full. Send it elsewhere."
    assert shell(["recipes", "auto", "--json"], "> /dev/full") == (5, [said])


def test_a_limit_that_tensorflow_dies_of_is_refused_before_any_work(tmp_path):
    (tmp_path / "m.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    np.savez(tmp_path / "d.npz", x_train=np.ones((4, 2), np.float32))
    line = f"ulimit -v 2000000; {' '.join(PROGRAM)} compress {tmp_path}/m.h5 --data {tmp_path}/d.npz --out {tmp_path}/o"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)
    said = "xaic: this process may use 2 GB of address space (ulimit -v). Expected at least 2.5 GB. Raise the limit: "
    assert (done.returncode, done.stderr) == (5, f"{said}ulimit -v unlimited.\n")


def test_a_file_that_is_opened_never_gets_the_number_of_a_closed_stream():
    code = (
        "from keras_xaic.cli.streams import open_closed_streams; open_closed_streams(); print(open('/dev/null').fileno() > 2)"
    )
    line = f'{sys.executable} -c "{code}" <&- 2>&-'
    assert subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60).stdout == "True\n"
    open_closed_streams()  # open ones stay what they are
