"""Every example runs, is short, and prints what it promises."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.programs import run_python

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PROMISES = {
    "quickstart": ([], r"-> [\d,]+ B of flash.*\naccuracy 0\.\d+ -> 0\.(8|9)\d+"),
    "own_training_loop": ([], r"losses: [\d. ]+\n.*model\.tflite: [\d,]+ B, accuracy 0\.(8|9)"),
    "microcontroller": ([], r"flash [\d,]+ B[\s\S]*model_data\.cc"),
    "explain_only": ([], r"lrp\.epsilon .*conv_0[\s\S]*least relevant filters of conv_0: \["),
    "search_front": (["2"], r"trial +flash[\s\S]*<- no other is better"),
    "tfmot_schedule": ([], r"[\d.]+% zeros[\s\S]*accuracy \d+\.\d% before, (8|9)\d\.\d% after"),
    "on_device_check": ([], r"the device gives the expected outputs"),
    "keras_fit": ([], r"together: 80\.0% zeros, accuracy 9\d\.\d% before, 9\d\.\d% after"),
    "cross_validation": ([], r"within 12kB: accuracy 0\.[6-9]\d+ [\s\S]*within 20kB: accuracy 0\.9\d+ .* over 2 folds"),
    "tensorboard_callback": ([], r"accuracy of the file: 0\.9"),
    "mlflow_callback": ([], r"'val_accuracy': (0\.9|1\.0)[\s\S]*'edge_accuracy': 0\.9"),
}
NEEDS = {"tensorboard_callback": "tensorboard", "mlflow_callback": "mlflow"}
"""Packages that are not there everywhere."""
NOTEBOOKS = {
    "compress": r"accuracy of the file (0\.9\d+), of the report \1",
    "relevance": r"half of the filters removed, least relevant +accuracy 9[\s\S]*similarity of explanations (0\.9|1\.00)",
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
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    arguments, promise = PROMISES[name]
    done = run_python([EXAMPLES / f"{name}.py", *arguments], place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(promise, done.stdout), done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_epochs_are_in_tensorboard(place):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = place / "build" / "examples" / "logs"
    if not logs.exists():
        test_an_example_runs_and_prints_what_it_promises(place, "tensorboard_callback")
    events = EventAccumulator(str(logs / "validation"), size_guidance={"tensors": 0}).Reload()
    assert "epoch_loss" in events.Tags()["tensors"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_short_and_holds_no_outputs(name):
    cells = json.loads((EXAMPLES / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    codes = [cell for cell in cells if cell["cell_type"] == "code"]
    assert sum(len(cell["source"]) for cell in codes) < 90
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in codes)
    assert cells[0]["source"][0].startswith("# ")


def test_every_notebook_is_tried():
    assert {path.stem for path in (EXAMPLES / "notebooks").iterdir() if path.suffix == ".ipynb"} == set(NOTEBOOKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    book = nbformat.read(EXAMPLES / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(book)
    nbclient.NotebookClient(book, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    said = "".join(output.get("text", "") for output in outputs)
    assert re.search(NOTEBOOKS[name], said), said
    assert "WARNING" not in said
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert shown.count("text/html") >= 3 if name == "compress" else shown.count("image/png") == 3
    if name == "relevance":
        half = [float(one) for one in re.findall(r"accuracy (\d+\.\d)%", said.partition("half of")[2])]
        assert half[0] > half[1] > half[2], "a ranking that is worse than chance"


@pytest.mark.slow
def test_the_service_for_boards_gives_what_the_bundle_expects(place, tmp_path):
    import socket
    import threading
    import urllib.error
    import urllib.request

    import numpy as np

    small = place / "for-service"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{EXAMPLES}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    make = "from digits import ready; import keras_xaic as xaic; xaic.export(ready()[0], 'for-service', calibration=ready()[1])"
    subprocess.run([sys.executable, "-c", make], cwd=place, env=environment, check=True, timeout=500)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(EXAMPLES / "board_service" / "board_service.py"), str(small / "model.tflite"), str(port)]
    service = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def ask(body):
        request = urllib.request.Request(f"http://127.0.0.1:{port}", data=body.encode())
        for _ in range(100):
            try:
                return json.loads(urllib.request.urlopen(request, timeout=10).read())
            except urllib.error.HTTPError as error:
                return json.loads(error.read())
            except (urllib.error.URLError, ConnectionError):
                threading.Event().wait(0.2)  # it is not listening yet
        raise AssertionError("the service does not start")

    try:
        with np.load(small / "check" / "inputs.npz") as inputs, np.load(small / "check" / "expected.npz") as expected:
            for x, y in zip(inputs["x0"], expected["y0"]):
                np.testing.assert_allclose(ask(json.dumps(x.tolist())), y, atol=1 / 256)  # another interpreter: one code
        assert ask("[1, 2]")["expected"] == "numbers of shape [8, 8, 1]"
        assert "error" in ask("nonsense")
    finally:
        service.kill()
        service.wait()


@pytest.mark.slow
def test_a_recipe_of_ones_own_is_a_file(place):
    made = run_python(["-c", f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); from digits import ready; ready()"], place)
    assert made.returncode == 0, made.stderr
    model, data = "build/examples/digits.keras", "build/examples/digits.npz"
    command = ["-m", "keras_xaic.cli", "compress", model, "--data", data, "--out", "own"]
    command += ["--recipe", str(EXAMPLES / "own_recipe.json"), "--flash", "24kB", "--epochs", "1"]
    done = run_python(command, place)
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
    done = run_python(command, place)
    assert done.returncode == 2
    assert re.search(r"xaic: wrong\.json: unknown entry 'sesitivity'.*'sensitivity'", " ".join(done.stderr.split()))
