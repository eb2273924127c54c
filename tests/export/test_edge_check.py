from __future__ import annotations

import argparse
import importlib.metadata
import inspect
import json
import pathlib
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest

from keras_xaic.edge import available_interpreters, judge
from keras_xaic.edge.doctor import KERNEL, TINY
from keras_xaic.edge.process import python_of
from keras_xaic.metrics import Task

SCRIPT = pathlib.Path(__file__).parents[2] / "export" / "edge_check.py"
METRICS = pathlib.Path(inspect.getfile(Task))


@pytest.fixture
def kit(tmp_path):
    """A bundle as it arrives on the device, with a model of one matrix product."""
    check = tmp_path / "check"
    check.mkdir()
    shutil.copy(TINY, tmp_path / "model.tflite")
    shutil.copy(SCRIPT, check / "edge_check.py")
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (40, 4)).astype(np.float32)
    steps = np.clip(np.floor(np.abs(x @ KERNEL) / 0.0235294 + 0.5) * np.sign(x @ KERNEL), -128, 127)
    y = (steps * 0.0235294).astype(np.float32)
    np.savez(check / "inputs.npz", x0=x)
    np.savez(check / "expected.npz", y0=y, keras0=x @ KERNEL, targets=(x @ KERNEL).argmax(axis=1))
    shutil.copy(METRICS, check / "xaic_metrics.py")
    (check / "task.json").write_text(json.dumps(Task("classification", KERNEL.shape[1]).facts()))
    return tmp_path


def run(kit: pathlib.Path, *options: str, first: str = "") -> subprocess.CompletedProcess:
    """Runs the script in a process of its own, after the Python code `first`."""
    script = str(kit / "check" / "edge_check.py")
    code = f"{first}\nimport runpy, sys\nsys.argv = {[script, *options]!r}\nrunpy.run_path({script!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", timeout=60)


def test_the_right_model_passes(kit):
    done = run(kit)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "PASS"
    version = importlib.metadata.version({"litert": "ai-edge-litert"}.get(judge(), judge()))
    for word in (
        f"{judge()} {version}, 1 thread(s)",
        "of classes are the same",
        "those of the Keras model",
        "accuracy",
        "latency",
        "memory",
    ):
        assert word in done.stdout


def test_a_wrong_model_fails(kit):
    with np.load(kit / "check" / "inputs.npz") as archive:
        x = archive["x0"]
    np.savez(kit / "check" / "expected.npz", y0=(-(x @ KERNEL)).astype(np.float32))
    done = run(kit, "--runs", "0")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("FAIL")
    assert "latency" not in done.stdout


def test_outputs_of_another_shape_fail(kit):
    np.savez(kit / "check" / "expected.npz", y0=np.zeros((40, 5), np.float32))
    done = run(kit)
    assert done.returncode == 1
    assert "expected (40, 5)" in done.stdout


def test_equal_outputs_pass_whatever_they_are():
    """Infinity and not a number: outputs of a logarithm, say."""
    compare = runpy.run_path(str(SCRIPT))["compare"]
    options = argparse.Namespace(deviation=0.01, agreement=0.9)
    odd = np.array([[np.inf, -np.inf, np.nan, 1.0], [0.0, 2.0, -np.inf, 3.0]], np.float32)
    near, other = odd + np.float32(1e-3), odd.copy()
    other[1, 1] = np.nan
    for expected in (odd, np.full_like(odd, np.nan)):
        assert compare([expected], {"y0": expected}, [None], options)
    assert compare([near], {"y0": odd}, [None], options)
    for wrong in (other, -odd, np.zeros_like(odd), odd + 1):
        assert not compare([wrong], {"y0": odd}, [None], options)


def test_it_needs_numpy_and_an_interpreter_only(kit):
    """Every other package of this environment is hidden."""
    hide = (
        "import importlib.abc, sys\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] in {'tensorflow', 'keras', 'keras_xaic', 'flatbuffers', 'pydantic', 'rich', 'scipy'}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Hide())"
    )
    done = run(kit, first=hide)
    assert done.returncode == 0, done.stdout + done.stderr


def cut(path: pathlib.Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"(") + 1])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda kit: (kit / "model.tflite").unlink(), "model.tflite does not exist"),
        (lambda kit: (kit / "model.tflite").write_bytes(b"nonsense" * 20), "refuses model.tflite"),
        (lambda kit: (kit / "check" / "inputs.npz").unlink(), "inputs.npz cannot be read"),
        (lambda kit: (kit / "check" / "inputs.npz").write_bytes(b"PK\x03\x04 cut"), "inputs.npz cannot be read"),
        (lambda kit: np.savez(kit / "check" / "inputs.npz", x=np.zeros(3)), "has no x0"),
        (lambda kit: np.savez(kit / "check" / "inputs.npz", x0=np.zeros((0, 4))), "cannot be done: ValueError: "),
        (lambda kit: cut(kit / "check" / "xaic_metrics.py"), "cannot be done: SyntaxError: "),
        (lambda kit: np.savez(kit / "check" / "inputs.npz", x0=np.zeros((3, 7))), r"takes (1, 4), inputs.npz holds (3, 7)"),
        (lambda kit: np.savez(kit / "check" / "inputs.npz", x0=np.zeros((3, 4)), x1=np.zeros(3)), "has 1 inputs"),
    ],
)
def test_what_is_wrong_is_one_line(kit, spoil, said):
    spoil(kit)
    done = run(kit)
    assert done.returncode == 1
    assert said in done.stdout
    assert "Traceback" not in done.stderr
    assert done.stdout.count("\n") == 1


def test_no_interpreter(kit):
    done = run(kit, first="import sys; sys.modules['tflite_runtime'] = None; sys.modules['ai_edge_litert'] = None")
    assert done.returncode == 1
    assert "pip install ai-edge-litert (or tflite-runtime, up to Python 3.11)" in done.stdout


def test_litert_runs_it_too(kit):
    if "litert" not in available_interpreters():
        pytest.skip("LiteRT is not installed")
    command = [python_of("litert"), str(kit / "check" / "edge_check.py"), "--interpreter", "litert"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


class Counting:
    """An interpreter of a model that adds up its inputs until it is reset, or forgets them after every sample."""

    def __init__(self, forgets: bool):
        self.forgets, self.total, self.given = forgets, 0.0, 0.0

    def get_input_details(self):
        return [{"index": 0, "dtype": np.float32, "shape": np.array([1, 1]), "quantization": (0.0, 0)}]

    get_output_details = get_input_details

    def reset_all_variables(self):
        self.total = 0.0

    def set_tensor(self, _index, value):
        self.given = float(value.sum())

    def invoke(self):
        self.total = self.given + (0.0 if self.forgets else self.total)

    def get_tensor(self, _index):
        return np.array([[self.total]], np.float32)


def test_a_state_is_seen_and_forgotten_again():
    """Fast; the slow test below does it with a recurrent model."""
    remembers = runpy.run_path(str(SCRIPT))["remembers"]
    inputs = {"x0": np.ones((2, 1), np.float32)}
    kept = Counting(forgets=False)
    kept.total = 5.0
    assert remembers(kept, inputs)
    assert kept.total == 0.0
    assert not remembers(Counting(forgets=True), inputs)


@pytest.mark.slow
def test_a_model_that_keeps_a_state_is_named_as_one(kit, tmp_path):
    from keras_xaic._keras import keras, layers
    from keras_xaic.tflite import float_twin
    from keras_xaic.tflite.flatbuffer import load
    from keras_xaic.tflite.micro_kit import keeps_state

    assert "state " not in run(kit, "--runs", "0").stdout
    assert not keeps_state(load(TINY.read_bytes()))
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 2))
    model = keras.Model(inputs, layers.Dense(3)(layers.LSTM(8)(inputs)))
    content = float_twin(model)
    assert keeps_state(load(content))
    (kit / "model.tflite").write_bytes(content)
    x = np.random.default_rng(0).normal(size=(6, 5, 2)).astype(np.float32) * 3
    np.savez(kit / "check" / "inputs.npz", x0=x)
    np.savez(kit / "check" / "expected.npz", y0=model.predict(x, verbose=0))
    done = run(kit, "--runs", "0")
    assert "reset_all_variables()" in done.stdout
    assert done.stdout.splitlines()[-1] == "PASS"
