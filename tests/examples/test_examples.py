"""Every example runs, is short, and prints what it promises."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PROMISES = {
    "quickstart": ([], r"-> [\d,]+ B of flash.*\naccuracy 0\.\d+ -> 0\.(8|9)\d+"),
    "own_training_loop": ([], r"losses: [\d. ]+\n.*model\.tflite: [\d,]+ B, accuracy 0\.(8|9)"),
    "microcontroller": ([], r"flash [\d,]+ B[\s\S]*model_data\.cc"),
    "explain_only": ([], r"lrp\.epsilon .*conv_0[\s\S]*least relevant filters of conv_0: \["),
    "search_front": (["2"], r"trial +flash[\s\S]*<- no other is better"),
    "tfmot_schedule": ([], r"[\d.]+% zeros[\s\S]*accuracy \d+\.\d% before, (8|9)\d\.\d% after"),
    "on_device_check": ([], r"the device gives the expected answers"),
}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_shows(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert text.startswith('"""')


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("examples")


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMISES)
def test_an_example_runs_and_prints_what_it_promises(place, name):
    arguments, promise = PROMISES[name]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(promise, done.stdout), done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_recipe_of_ones_own_is_a_file(place):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{EXAMPLES}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    make = [sys.executable, "-c", "from digits import ready; ready()"]
    subprocess.run(make, cwd=place, env=environment, check=True, timeout=500)
    model, data = "build/examples/digits.keras", "build/examples/digits.npz"
    command = [sys.executable, "-m", "keras_xaic.cli", "compress", model, "--data", data, "--out", "own"]
    command += ["--recipe", str(EXAMPLES / "own_recipe.json"), "--flash", "24kB", "--epochs", "1"]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    own, report = (
        json.loads((EXAMPLES / "own_recipe.json").read_text()),
        json.loads((place / "own" / "report.json").read_text()),
    )
    assert report["recipe"] == own["name"]
    assert {name: report["recipe_entries"][name] for name in own} == own
    assert {layer["bits"] for layer in report["layers"]} <= set(own["bits"])
    assert report["compressed"]["flash_bytes"] == (place / "own" / "model.tflite").stat().st_size <= 24_000
    assert report["compressed"]["edge_accuracy"] > 0.9
    own["sesitivity"] = own.pop("sensitivity")
    (place / "wrong.json").write_text(json.dumps(own), encoding="utf-8")
    command[command.index("--recipe") + 1] = "wrong.json"
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 2
    assert re.search(r"xaic: wrong\.json: unknown entry 'sesitivity'.*'sensitivity'", " ".join(done.stderr.split()))
