"""The smallest arena is found, not died of."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from keras_xaic._keras import keras, layers, tf
from keras_xaic.edge import available_interpreters, measure_arena, run_file
from keras_xaic.edge.child.host import in_copy
from keras_xaic.edge.child.jobs import smallest
from tests.tflite.models import require_reference_bits

needs_tflm = pytest.mark.skipif("tflm" not in available_interpreters(), reason="tflite-micro is not installed")

ALONE = """
import sys, numpy as np
from tflite_micro.python.tflite_micro import runtime
i = runtime.Interpreter.from_bytes(open(sys.argv[1], "rb").read(), arena_size=int(sys.argv[2]))
shape, kind = i.get_input_details(0)["shape"], i.get_input_details(0)["dtype"]
i.set_input(np.zeros(shape, kind), 0)
i.invoke()
"""


def small_dense(width: int):
    inputs = keras.Input((width,))
    return keras.Model(inputs, layers.Dense(1)(layers.Dense(width, activation="relu")(inputs)))


def pixels_to_dense():
    inputs = keras.Input((6, 6, 1))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Flatten()(inputs)))


def recurrent():
    inputs = keras.Input((5, 3), batch_size=1)
    return keras.Model(inputs, layers.Dense(2)(layers.LSTM(4)(inputs)))


def converted(model) -> bytes:
    random = np.random.default_rng(0)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    shape = (1, *model.input_shape[1:])
    converter.representative_dataset = lambda: ([random.normal(size=shape).astype(np.float32)] for _ in range(8))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


@needs_tflm
@pytest.mark.parametrize(
    "make", [lambda: small_dense(4), lambda: small_dense(24), pixels_to_dense, pytest.param(recurrent, marks=pytest.mark.slow)]
)
def test_the_smallest_arena_runs_and_the_next_smaller_one_does_not(make, tmp_path):
    keras.utils.set_random_seed(0)
    path = tmp_path / "small.tflite"
    path.write_bytes(converted(make()))
    arena = measure_arena(path)
    assert arena.total <= arena.minimum < 1 << 20

    def ends(size: int) -> int:
        return subprocess.run([sys.executable, "-c", ALONE, str(path), str(size)], capture_output=True, check=False).returncode

    assert ends(arena.minimum) == 0
    assert ends(arena.minimum - 16) != 0


@needs_tflm
def test_running_on_micro_keeps_the_arena_and_the_outputs_apart_from_probing(tmp_path):
    keras.utils.set_random_seed(0)
    path = tmp_path / "small.tflite"
    path.write_bytes(converted(pixels_to_dense()))
    x = np.random.default_rng(1).normal(size=(20, 6, 6, 1)).astype(np.float32)
    micro = run_file(path, x, interpreter="tflm")
    require_reference_bits(micro.raw[0], run_file(path, x, interpreter="builtin-ref").raw[0])
    assert micro.arena_bytes == measure_arena(path).minimum


@pytest.mark.parametrize("least", [16, 32, 1904, 1936, 64_000, 1 << 22])
@pytest.mark.parametrize("guess", [0, 16, 1904, 2000, 70_000, 1 << 23])
def test_the_search_finds_the_least_from_any_guess_in_few_trials(least, guess):
    tried = []

    def works(size: int) -> bool:
        tried.append(size)
        return size >= least

    assert smallest(guess, 1 << 22, works) == least
    assert len(tried) == len(set(tried)) <= 30
    if guess == least:
        assert len(tried) <= 2


def test_a_probe_may_die_in_any_way():
    import os
    import signal

    assert in_copy(lambda: b"fine") == b"fine"
    assert in_copy(lambda: b"") == b""
    assert in_copy(lambda: os.kill(os.getpid(), signal.SIGKILL)) is None
    assert in_copy(lambda: 1 / 0) is None
    assert in_copy(lambda: os._exit(0)) is None
