"""Commands that need no TensorFlow do not load it: damaged files, wrong paths and wrong names are answered at once."""

from __future__ import annotations

import json
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
import json, os, sys
from keras_xaic.cli import main
import keras_xaic.cli.app, keras_xaic.cli.given, keras_xaic.planning.plan, keras_xaic.recipes, keras_xaic.report
for line in sys.stdin:
    sys.argv[1:] = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, name in ((1, "said"), (2, "errors")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        code = 1
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        finally:
            heavy = {"tensorflow", "tf_keras", "sklearn", "scipy", "matplotlib", "optuna"} & set(sys.modules)
            print("\\nloaded:", *heavy, flush=True)
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs the command line once for every line it is given, each in a process of its own that need not load Python again."""


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


@pytest.fixture(scope="module")
def ask(place):
    """Runs a command; returns exit code, what was said, and which large libraries were loaded."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN], cwd=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def asked(words: str) -> tuple[int, str, str]:
            process.stdin.write(json.dumps(words.split()) + "\n")
            process.stdin.flush()
            code = int(process.stdout.readline())
            said, _, loaded = (place / "said").read_text().rpartition("loaded:")
            return code, said + (place / "errors").read_text(), loaded.strip()

        yield asked


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
def test_it_answers_without_loading_tensorflow(ask, words, code):
    found, said, loaded = ask(words)
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
def test_what_is_wrong_is_said_without_loading_tensorflow(place, ask, words, said):
    code, answer, loaded = ask(words)
    assert code == 2, answer
    assert said in " ".join(answer.split()), answer
    assert loaded == ""
    assert not (place / "o").exists()
