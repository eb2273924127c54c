"""Commands that need no TensorFlow do not load it: damaged files, wrong paths and wrong names are answered at once."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from keras_xaic.edge.doctor import TINY
from keras_xaic.recipes import RECIPES
from keras_xaic.report import Report
from keras_xaic.tflite import pack_download
from tests.report.conftest import facts

WRITING = ("compress", "explain", "export", "search")
"""Commands that write a directory."""
RUN = """
import sys
from keras_xaic.cli import main
try:
    main()
finally:
    heavy = {"tensorflow", "tf_keras", "sklearn", "scipy", "matplotlib", "optuna"} & set(sys.modules)
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
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "thesis.txt").write_text("mine")
    (folder / "in").mkdir()
    for name in ("text.h5", "text.npz"):
        (folder / "in" / name).write_text("neither model nor data")
    (folder / "in" / "plan.json").write_text('{"schema": 1}')
    (folder / "in" / "recipe.json").write_text(RECIPES["int8"].to_json())
    (folder / "m.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    os.mkfifo(folder / "pipe")
    (folder / "text.h5").write_text("no model")
    (folder / "damaged.json").write_text('{"schema": 1, "layers": 5}')
    (folder / "rule.json").write_text('{"*": "lrp.magic"}')
    x, y = np.zeros((4, 3), np.float32), np.zeros(4, int)
    np.savez(folder / "d.npz", x_train=x, y_train=y)
    np.savez(folder / "keys.npz", images=x)
    np.savez(folder / "nan.npz", x_train=np.full((4, 3), np.nan), y_train=y)
    return folder


def ask(place, words: str) -> tuple[int, str, str]:
    """Returns exit code, what was said, and which large libraries were loaded."""
    done = subprocess.run([sys.executable, "-c", RUN, *words.split()], cwd=place, capture_output=True, text=True, check=False)
    said, _, loaded = done.stdout.rpartition("loaded:")
    return done.returncode, said + done.stderr, loaded.strip()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--help", 0),
        ("compress --help", 0),
        ("recipes", 0),
        ("recipes auto --json", 0),
        ("unpack model.xaic --out model.tflite", 0),
        ("report bundle", 0),
    ],
)
def test_it_answers_without_loading_tensorflow(place, words, code):
    found, said, loaded = ask(place, words)
    assert found == code, said
    assert loaded in ("", "matplotlib")  # of the page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("unpack short.xaic --out short.tflite", "checksum"),
        ("report damaged", "report.json"),
        ("compress --nope", "--nope"),
        ("verify damaged --data none.npz", "report.json"),
        ("recipes nothing", "no recipe 'nothing'"),
        ("compress none.h5 --data d.npz --out o", "none.h5 does not exist"),
        ("compress text.h5 --data d.npz --out o", "text.h5 is not a model"),
        ("compress pipe --data d.npz --out o", "pipe is not a file"),
        ("compress m.h5 --data pipe --out o", "pipe is not a file"),
        ("compress empty --data d.npz --out o", "without a SavedModel"),
        ("compress m.h5 --data none.npz --out o", "none.npz does not exist"),
        ("compress m.h5 --data text.h5 --out o", "cannot be read as .npz"),
        ("compress m.h5 --data keys.npz --out o", "no key x_train"),
        ("compress m.h5 --data nan.npz --out o", "NaN"),
        ("compress m.h5 --data d.npz --out full", "not empty"),
        ("compress m.h5 --data d.npz --out o --recipe nothing", "no recipe 'nothing'"),
        ("compress m.h5 --data d.npz --out o --recipe none.json", "none.json does not exist"),
        ("compress m.h5 --data d.npz --out o --rule lrp.nothing", "lrp.nothing"),
        ("compress m.h5 --data d.npz --out o --baselines nothing", "no recipe 'nothing'"),
        ("compress m.h5 --data d.npz --out o --plan none.json", "none.json does not exist"),
        ("compress m.h5 --data d.npz --out o --plan damaged.json", "damaged.json: layers"),
        ("compress m.h5 --data d.npz --out o --flash lots", "'lots'"),
        ("compress m.h5 --data d.npz --out o --target moon", "moon"),
        ("compress m.h5 --data d.npz --out o --interpreter moon", "moon"),
        ("plan none.h5 --relevance d.npz", "d.npz is not a relevance file"),
        ("plan m.h5 --relevance none", "none does not exist"),
        ("plan m.h5 --relevance none --recipe nothing", "no recipe 'nothing'"),
        ("explain none.h5 --data d.npz --out o", "none.h5 does not exist"),
        ("explain m.h5 --data none.npz --out o", "none.npz does not exist"),
        ("explain m.h5 --data d.npz --out o --rule nothing", "no attribution rule 'nothing'"),
        ("explain m.h5 --data d.npz --out o --rule none.json", "none.json does not exist"),
        ("explain m.h5 --data d.npz --out o --rule rule.json", "lrp.magic"),
        ("explain m.h5 --data d.npz --out full", "not empty"),
        ("export none.h5 --data d.npz --out o", "none.h5 does not exist"),
        ("export m.h5 --data none.npz --out o", "none.npz does not exist"),
        ("search none.h5 --data d.npz --out o", "none.h5 does not exist"),
        ("search m.h5 --data none.npz --out o", "none.npz does not exist"),
        *[(f"{command} in/text.h5 --data in/text.npz --out in", "lies in in, which is written") for command in WRITING],
        *[(f"{command} text.h5 --data text.h5 --out full", "output directory full is not empty") for command in WRITING],
        ("compress m.h5 --data d.npz --out in --plan in/plan.json", "in/plan.json lies in in"),
        ("compress m.h5 --data d.npz --out in --recipe in/recipe.json", "in/recipe.json lies in in"),
        ("explain m.h5 --data d.npz --out in --rule in/none.json", "in/none.json lies in in"),
        ("plan m.h5 --relevance text.h5 --out m.h5", "output m.h5 is the input m.h5"),
        ("plan m.h5 --relevance text.h5 --recipe in/recipe.json --out in/recipe.json", "is the input in/recipe.json"),
        ("plan m.h5 --relevance text.h5 --out d.npz", "d.npz exists and is not a plan"),
        ("verify nothing --data d.npz", "nothing is not a directory"),
        ("verify bundle --data none.npz", "none.npz does not exist"),
        ("verify bundle --data d.npz --interpreter moon", "moon"),
    ],
)
def test_what_is_wrong_is_said_without_loading_tensorflow(place, words, said):
    code, answer, loaded = ask(place, words)
    assert code == 2, answer
    assert said in " ".join(answer.split()), answer
    assert loaded == ""
    assert not (place / "o").exists()
