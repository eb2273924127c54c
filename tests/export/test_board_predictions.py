"""xaic_predict on digits: what TensorFlow Lite Micro gives for the same values, in every bit; and sizes on Cortex-M."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest

from keras_xaic import edge
from keras_xaic.edge.doctor import TINY
from keras_xaic.pipeline.board_projects import SOURCES, write_project
from keras_xaic.tflite.micro_kit import write_micro

HERE = pathlib.Path(__file__).parent
MAIN = """
#include <cstdio>
#include "xaic_predict.h"
int main() {
  static float x[XAIC_INPUT_0_SIZE], y[XAIC_OUTPUT_0_SIZE];
  std::FILE* in = std::fopen("x.bin", "rb");
  std::FILE* out = std::fopen("y.bin", "wb");
  while (std::fread(x, sizeof(x), 1, in) == 1) {
    if (xaic_predict(x, y) != XAIC_PREDICT_OK) return 1;
    std::fwrite(y, sizeof(y), 1, out);
  }
  return std::fclose(out);
}
"""
"""Takes and gives float32 values by files: standard input and output are those of the interpreter."""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_predictions_on_digits_are_those_of_tensorflow_lite_micro(tmp_path):
    tflite_micro = pytest.importorskip("tflite_micro")
    from sklearn.datasets import load_digits

    from keras_xaic._keras import keras, layers
    from keras_xaic.tflite import export

    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(8, 3, activation="relu"), layers.Flatten()])
    model.add(layers.Dense(10, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:1297], y[:1297], epochs=8, verbose=0)
    bundle = export(model, tmp_path / "small", calibration=x[:100], target="micro")
    file = bundle.micro / "model.tflite"
    project = write_project(bundle.path, "cmake", tmp_path / "project")

    info, tests = edge.read_file(file), x[1297:]
    given, made = info.inputs[0], info.outputs[0]
    sizes = [f"#define TOLD_IN {int(np.prod(given.shape))}", f"#define TOLD_OUT {int(np.prod(made.shape))}"]
    for name, tensor in (("IN", given), ("OUT", made)):
        sizes += [f"#define TOLD_{name}_SCALE {float(tensor.scales[0]):.9g}f"]
        sizes += [f"#define TOLD_{name}_ZERO {int(tensor.zero_points[0])}"]
    (tmp_path / "told_sizes.h").write_text("\n".join([*sizes, ""]))
    registered = re.findall(r"resolver\.Add(\w+)\(\);", (project / "xaic_predict.cc").read_text())
    assert len(registered) > 2
    (tmp_path / "told_operators.h").write_text("".join(f"TOLD({name})\n" for name in dict.fromkeys(registered)))
    (tmp_path / "main.cc").write_text(MAIN)
    tests.tofile(tmp_path / "x.bin")
    headers = [f"-I{one}" for one in (tmp_path, HERE / "told_interpreter", HERE / "stand_in", project)]
    sources = [tmp_path / "main.cc", project / "xaic_predict.cc", project / "model_data.cc"]
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", *headers, *sources, "-o", tmp_path / "run"]
    subprocess.run(list(map(str, command)), check=True)

    micro = tflite_micro.runtime.Interpreter.from_file(str(file))
    shape = tuple(int(n) for n in given.shape)
    with subprocess.Popen([tmp_path / "run"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        for _ in tests:
            codes = np.frombuffer(program.stdout.read(int(np.prod(shape))), np.int8)
            micro.set_input(codes.reshape(shape), 0)
            micro.invoke()
            program.stdin.write(micro.get_output(0).tobytes())
            program.stdin.flush()
        program.stdin.close()
        assert program.wait(60) == 0
    found = np.fromfile(tmp_path / "y.bin", np.float32).reshape(len(tests), -1)
    expected = edge.run_file(file, tests, interpreter="tflm").outputs[0]
    np.testing.assert_array_equal(found.view(np.uint32), np.asarray(expected, np.float32).view(np.uint32))
    assert np.mean(found.argmax(1) == y[1297:]) > 0.8


@pytest.mark.skipif(not shutil.which("arm-none-eabi-g++"), reason="no G++ for Cortex-M (Debian: gcc-arm-none-eabi)")
@pytest.mark.parametrize(("processor", "system"), [("cortex-m4", "cmake"), ("cortex-m33", "zephyr")])
def test_projects_compile_for_cortex_m(processor, system, tmp_path):
    told = subprocess.run(
        ["arm-none-eabi-g++", "-x", "c++", "-fsyntax-only", "-"], input="#include <cmath>", capture_output=True, text=True
    )
    if told.returncode:
        pytest.skip("no C++ library for Cortex-M (Debian: libstdc++-arm-none-eabi-newlib)")
    folder = tmp_path / "small"
    (folder / "check").mkdir(parents=True)
    write_micro(folder / "micro", TINY.read_bytes(), arena_bytes=1500)
    np.savez(folder / "check" / "inputs.npz", x0=np.zeros((4, 4), np.float32))
    np.savez(folder / "check" / "expected.npz", y0=np.zeros((4, 3), np.float32))
    project = write_project(folder, system, tmp_path / system)
    place = project / SOURCES[system][0]
    files = sorted(place.glob("*.cc"))
    assert len(files) == 4
    options = [
        "-std=c++17",
        "-Os",
        "-mthumb",
        f"-mcpu={processor}",
        "-fno-exceptions",
        "-fno-rtti",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]
    headers = [f"-I{HERE / 'stand_in'}", f"-I{place}"]
    for file in files:
        made = tmp_path / f"{file.stem}.o"
        done = subprocess.run(
            ["arm-none-eabi-g++", *options, *headers, "-c", str(file), "-o", str(made)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    sizes = subprocess.run(
        ["arm-none-eabi-size", tmp_path / "xaic_predict.o"], check=True, capture_output=True, text=True
    ).stdout
    text, data, _ = map(int, sizes.splitlines()[1].split()[:3])
    assert text + data < 4000  # beside model and interpreter
