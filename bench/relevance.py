"""Speed and memory of relevance: native engine, iNNvestigate engine and a training step, in one run.

    python bench/relevance.py [--models resnet8,MobileNetV2,ResNet50] [--rules lrp.epsilon,lrp.z_plus] [--out FILE.jsonl]
    python bench/relevance.py --models "" --memory

Models are built with random weights and BatchNorm statistics taken from one batch; the measured work does not depend on what
was learned. Times are medians of interleaved repetitions, so that other work on the machine hits all of them alike.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

import numpy as np

from keras_xaic._keras import keras, layers, tf
from keras_xaic._version import __version__
from keras_xaic.relevance import Attribution

BATCH = {"resnet8": 64, "MobileNetV2": 32, "ResNet50": 16}


def resnet8():
    """The MLPerf Tiny image classifier: three stages of 16, 32 and 64 filters."""

    def block(x, filters, stride):
        y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 3, stride, padding="same")(x)))
        y = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(y))
        short = x if stride == 1 else layers.Conv2D(filters, 1, stride)(x)
        return layers.ReLU()(layers.Add()([short, y]))

    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(inputs)))
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        x = block(x, filters, stride)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x)), name="resnet8")


def build(name, count):
    keras.utils.set_random_seed(0)
    model = resnet8() if name == "resnet8" else getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3))
    x = np.random.default_rng(0).normal(0, 1, (count, *model.input_shape[1:])).astype(np.float32)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(x[: min(count, 32)], training=True)
    return model, x, np.arange(count) % model.output_shape[-1]


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def speed(name, rules, repetitions):
    count = BATCH[name]
    model, x, y = build(name, count)
    model.compile(keras.optimizers.Adam(1e-6), "sparse_categorical_crossentropy")
    row = {"model": name, "batch": count, "parameters": int(model.count_params())}
    work, first = {"training_step": lambda: model.train_on_batch(x, y)}, {}
    for rule in rules:
        for engine in ("native", "innvestigate"):
            start = time.perf_counter()
            attribution = Attribution(model, rule=rule, engine=engine)
            work[f"{engine} {rule}"] = lambda a=attribution: a.run(x, y, batch_size=count)
            work[f"{engine} {rule}"]()
            first[f"{engine} {rule}"] = round(time.perf_counter() - start, 2)
    work["training_step"]()
    times = {key: [] for key in work}
    for _ in range(repetitions):
        for key, one in work.items():
            times[key].append(seconds(one))
    row["samples_per_second"] = {key: round(count / float(np.median(t)), 2) for key, t in times.items()}
    step = float(np.median(times["training_step"]))
    row["cost_in_training_steps"] = {key: round(float(np.median(t)) / step, 2) for key, t in times.items()}
    row["first_call_seconds"] = first
    return row


def peak(count):
    """Peak memory in MB of one attribution of `count` samples, in a process of its own; the data itself stays on disk."""
    model, _, _ = build("resnet8", 64)
    with tempfile.TemporaryDirectory() as scratch:
        big = np.lib.format.open_memmap(f"{scratch}/x.npy", "w+", np.uint8, (count, 32, 32, 3))
        big[:] = 128
        Attribution(model).run(big, np.arange(count) % 10)
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):  # ru_maxrss would count the parent process, too
            return int(line.split()[1]) / 1024
    raise SystemExit("peak memory can only be measured on Linux")


def memory():
    """Peak memory for 500 and for 10,000 samples, each in a process of its own."""
    peaks = {}
    for count in (500, 10_000):
        child = [sys.executable, __file__, "--peak", str(count)]
        peaks[count] = round(float(subprocess.run(child, capture_output=True, text=True, check=True).stdout), 1)
    return {"peak_mb": peaks, "ratio": round(peaks[10_000] / peaks[500], 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="resnet8,MobileNetV2,ResNet50")
    parser.add_argument("--rules", default="lrp.epsilon,lrp.z_plus")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="also measure peak memory for 500 and 10,000 samples")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out")
    options = parser.parse_args()
    if options.peak:
        print(peak(options.peak))
        return
    facts = {
        "versions": {"keras_xaic": __version__, "tensorflow": tf.__version__, "python": platform.python_version()},
        "seed": 0,
    }

    def keep(row, start):
        row = {**facts, **row, "seconds": round(time.perf_counter() - start, 1)}
        print(json.dumps(row, indent=1), flush=True)
        if options.out:
            pathlib.Path(options.out).parent.mkdir(parents=True, exist_ok=True)
            with pathlib.Path(options.out).open("a") as file:
                file.write(json.dumps(row) + "\n")

    for name in filter(None, options.models.split(",")):
        start = time.perf_counter()
        keep({"what": "speed", **speed(name, options.rules.split(","), options.repetitions)}, start)
    if options.memory:
        start = time.perf_counter()
        keep({"what": "memory", **memory()}, start)


if __name__ == "__main__":
    main()
