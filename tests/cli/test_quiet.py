"""No command lets a line of TensorFlow, absl, XNNPACK or protobuf through, into files or on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

from keras_xaic._keras import keras, layers
from keras_xaic.cli.app import app

NOISE = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|^[IWEF]\d{4} |^\[?(INFO|WARNING|ERROR|FATAL)\b[: ]|InitializeLog"
    r"|absl|XNNPACK|protobuf|oneDNN|CUDA|cuda|\.cc:\d+|\w+Warning\b|TF-TRT|tensorflow:|Saved artifact|TensorSpec|ms/step"
    r"|Matplotlib |mkdir -p",
    re.MULTILINE,
)
PROGRESS = re.compile(r"[a-z][\w -]*(: .+)?")
"""A line that says how far a command is, where stderr is a file: a stage, and what is known of it."""
COMMANDS = (
    "compress m.keras --data d.npz --out out --epochs 1",
    "explain m.keras --data d.npz --out explained",
    "explain recurrent.h5 --data r.npz --out recurrent",
    "plan m.keras --relevance explained --flash 4kB --out plan.json",
    "export out --data d.npz --out exported",
    "export recurrent.h5 --data r.npz --out exported-recurrent",
    "verify out --data d.npz --interpreter all",
    "report out",
    "project out --system cmake --out firmware",
    "unpack out/model.xaic --out model.tflite",
    "slim out/model.tflite --out slim",
    "search m.keras --data d.npz --out found --trials 1 --epochs 0",
    "recipes",
    "doctor",
    "compress d.npz --data d.npz --out wrong",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quiet")
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    for name, data, shape, first in (
        ("m.keras", "d", (6, 6, 2), layers.Conv2D(4, 3, activation="relu")),
        ("recurrent.h5", "r", (5, 3), layers.LSTM(4)),
    ):
        inputs = keras.Input(shape)
        outputs = layers.Dense(3, activation="softmax")(layers.Flatten()(first(inputs)))
        keras.Model(inputs, outputs).save(folder / name)
        x, y = random.normal(size=(60, *shape)).astype(np.float32), random.integers(0, 3, 60)
        np.savez(folder / f"{data}.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    return folder


def noise(said: str) -> list[str]:
    return [line for line in said.splitlines() if NOISE.search(line)]


def run(words: str, place, **streams) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "ABSL_", "GLOG_"))}
    environment["MPLCONFIGDIR"] = os.devnull  # as where no home can be written
    command = [sys.executable, "-m", "keras_xaic.cli", *words.split()]
    return subprocess.run(command, cwd=place, env=environment, stdin=subprocess.DEVNULL, check=False, **streams).returncode


def test_noise_is_known_and_our_own_words_are_none():
    for line in (
        "2026-11-28 07:00:00.123456: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on.",
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1700000000.000000    1234 cpu_feature_guard.cc:227] This TensorFlow binary is optimized",
        "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
        "W0000 00:00:1700000000.000000 1 tf_tfl_flatbuffer_helpers.cc:365] Ignored output_format.",
        "WARNING:tensorflow:From x.py: The name is deprecated.",
        "/x/google/protobuf/runtime_version.py:98: UserWarning: Protobuf gencode version",
        "  warnings.warn('Statistics for quantized inputs were expected') UserWarning",
        "Saved artifact at 'x'.",
        "4/4 [==============================] - 0s 2ms/step",
    ):
        assert noise(line) == [line]
    assert noise("│ works   │ tensorflow │ 2.21.0 │\nmodel.tflite runs on TensorFlow Lite Micro, 0.015 ms") == []


def test_without_a_home_that_can_be_written_nothing_is_said_of_it():
    code = "import contextlib, sys; from keras_xaic.cli import main; sys.argv[1:] = ['recipes', 'auto', '--json']\n"
    code += "with contextlib.suppress(SystemExit): main()\nimport matplotlib; matplotlib.get_configdir()"
    environment = {**os.environ, "MPLCONFIGDIR": os.devnull}
    assert not subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_command_says_what_libraries_say(place):
    commands = {one.name or one.callback.__name__ for one in app.registered_commands}
    assert commands <= {words.split()[0] for words in COMMANDS}
    for words in COMMANDS:
        if words.startswith("search"):
            pytest.importorskip("optuna")
        with (place / "said.out").open("wb") as out, (place / "said.err").open("wb") as err:
            code = run(words, place, stdout=out, stderr=err)
        said = [(place / name).read_text(errors="replace") for name in ("said.out", "said.err")]
        assert code == 2 if words.startswith("compress d.npz") else code in (0, 3), said
        assert [noise(text) for text in said] == [[], []], words
        lines = said[1].splitlines()
        assert all(PROGRESS.fullmatch(line) for line in lines) or len(lines) == 1, said[1]


@pytest.mark.slow
def test_nothing_comes_through_on_a_terminal(place):
    ours, theirs = pty.openpty()
    said: list[bytes] = []

    def listen() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 65536):
                said.append(piece)

    listener = threading.Thread(target=listen)
    listener.start()
    code = run("compress m.keras --data d.npz --out on-terminal --epochs 1", place, stdout=theirs, stderr=theirs)
    os.close(theirs)
    listener.join(30)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(said).decode(errors="replace")).replace("\r", "\n")
    assert code in (0, 3), text
    assert "on-terminal" in text
    assert noise(text) == []
