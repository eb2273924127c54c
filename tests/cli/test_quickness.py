"""Commands that need no TensorFlow do not load it: damaged files and wrong options are answered at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from keras_xaic.edge.doctor import TINY
from keras_xaic.report import Report
from keras_xaic.tflite import pack_download
from tests.report.conftest import facts

RUN = """
import sys
from keras_xaic.cli import main
try:
    main()
finally:
    heavy = {"tensorflow", "tf_keras", "sklearn", "optuna"} & set(sys.modules)
    print("\\nloaded:", *heavy)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quick")
    container = pack_download(TINY.read_bytes())
    (folder / "model.xaic").write_bytes(container)
    (folder / "short.xaic").write_bytes(container[:-20])
    for name in ("bundle", "damaged"):
        (folder / name).mkdir()
        (folder / name / "model.tflite").write_bytes(TINY.read_bytes())
    Report(**facts()).save(folder / "bundle")
    (folder / "damaged" / "report.json").write_text('{"schema": ')
    return folder


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--help", 0),
        ("compress --help", 0),
        ("unpack model.xaic --out model.tflite", 0),
        ("unpack short.xaic --out short.tflite", 2),
        ("report bundle", 0),
        ("report damaged", 2),
        ("compress --nope", 2),
        ("verify damaged --data none.npz", 2),
    ],
)
def test_it_answers_without_loading_tensorflow(place, words, code):
    done = subprocess.run([sys.executable, "-c", RUN, *words.split()], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"
