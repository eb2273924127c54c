from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from keras_xaic._keras import keras, layers

RUN = """
import atexit, sys
from keras_xaic.cli import main

def peak():
    with open("/proc/self/status", encoding="ascii") as file:
        print("PEAK", next(line.split()[1] for line in file if line.startswith("VmHWM")), file=sys.stderr)

atexit.register(peak)
main()
"""


def peak_of(place, count: int, save) -> int:
    """Returns the most memory, in kB, that compressing with `count` samples of 28 x 28 bytes takes."""
    rng = np.random.default_rng(0)
    some = rng.integers(0, 256, (2000, 28, 28), dtype=np.uint8)
    save(place / "d.npz", x_train=np.tile(some, (count // 2000, 1, 1)), y_train=rng.integers(0, 10, count))
    options = ["--epochs", "1", "--scale", "0.0039", "--target", "mobile", "--baselines", "", "--overwrite", "--quiet"]
    command = ["compress", str(place / "m.keras"), "--data", str(place / "d.npz"), "--out", str(place / "out"), *options]
    environment = {**os.environ, "TMPDIR": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *command], env=environment, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode in (0, 3), done.stderr[-1000:]
    return int(next(line.split()[1] for line in done.stderr.splitlines() if line.startswith("PEAK")))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_hundred_times_the_samples_take_little_more_memory(tmp_path, save):
    """157 MB of inputs; what grows are labels, outputs and the order of samples."""
    inputs = keras.Input((28, 28))
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.Flatten()(inputs)))
    model.save(tmp_path / "m.keras")
    few, many = peak_of(tmp_path, 2000, save), peak_of(tmp_path, 200_000, save)
    assert many <= 1.3 * few, f"{few:,} kB for 2,000 samples, {many:,} kB for 200,000"
