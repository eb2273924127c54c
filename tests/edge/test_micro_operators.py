"""What TensorFlow Lite Micro lacks is known without training anything, and without being installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from keras_xaic._keras import tf
from keras_xaic.edge import available_interpreters, micro_refusal
from keras_xaic.edge.doctor import TINY
from keras_xaic.edge.operators import BUILTIN_OPERATORS, NOT_ON_MICRO
from tests.edge.conftest import from_function

needs_tflm = pytest.mark.skipif("tflm" not in available_interpreters(), reason="tflite-micro is not installed")

LACKING = {
    "TILE": (lambda x: tf.tile(x, [1, 3]), (1, 4)),
    "POW": (lambda x: tf.pow(tf.abs(x) + 1.0, x), (1, 4)),
    "TOPK_V2": (lambda x: tf.math.top_k(x, 2).values, (1, 4)),
    "GELU": (lambda x: tf.nn.gelu(x), (1, 4)),
    "SEGMENT_SUM": (lambda x: tf.math.segment_sum(x, tf.constant([0])), (1, 2)),
}


@pytest.fixture(params=[pytest.param(True, marks=needs_tflm), False], ids=["installed", "not installed"])
def micro(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr("keras_xaic.edge.micro.available_interpreters", dict)


@pytest.mark.parametrize("operator", LACKING)
def test_an_operator_that_micro_lacks_is_named(operator, micro, tmp_path):
    (tmp_path / "m.tflite").write_bytes(from_function(*LACKING[operator]))
    assert operator in micro_refusal(tmp_path / "m.tflite")


def test_all_of_them_are_named_at_once(micro, tmp_path):
    (tmp_path / "m.tflite").write_bytes(from_function(lambda x: tf.nn.gelu(tf.tile(x, [1, 3])), (1, 4)))
    reason = micro_refusal(tmp_path / "m.tflite")
    assert "GELU" in reason
    assert "TILE" in reason


def test_what_it_runs_is_not_refused(files, micro):
    for name in ("int8", "int16", "float", "mixed", "pair"):
        assert micro_refusal(files[name]) is None


@needs_tflm
def test_types_that_an_operator_does_not_take_there_are_found_by_running(files, tmp_path):
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [tf.function(lambda x: tf.linalg.matmul(x, tf.ones((64, 64)))).get_concrete_function(tf.TensorSpec((1, 64)))]
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]  # int8 weights behind float activations
    (tmp_path / "hybrid.tflite").write_bytes(converter.convert())
    assert "FULLY_CONNECTED" in micro_refusal(tmp_path / "hybrid.tflite")


ASK = """
import os, sys, tempfile
from keras_xaic.tflite.flatbuffer import load, pack
from tflite_micro.python.tflite_micro import runtime
tiny = open(sys.argv[1], "rb").read()
for number in range(int(sys.argv[2])):
    model = load(tiny)
    model.operatorCodes[0].builtinCode = number
    model.operatorCodes[0].deprecatedBuiltinCode = min(number, 127)
    content, said = bytes(pack(model)), tempfile.TemporaryFile()
    child = os.fork()
    if child == 0:
        os.dup2(said.fileno(), 2)
        try:
            runtime.Interpreter.from_bytes(content, arena_size=1 << 20)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    said.seek(0)
    print(number, b"Didn't find op" in said.read())
"""


@needs_tflm
@pytest.mark.slow
def test_the_table_of_operators_is_that_of_the_installed_version():
    command = [sys.executable, "-c", ASK, str(TINY), str(len(BUILTIN_OPERATORS))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lacking = {BUILTIN_OPERATORS[int(line.split()[0])] for line in done.stdout.splitlines() if line.endswith("True")}
    assert lacking == NOT_ON_MICRO
