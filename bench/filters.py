"""Structured pruning of the Fashion-MNIST CNN: a small float32 .tflite that is measured on the edge interpreter that judges.

    python bench/filters.py --data-root DIR [--data DIR] [--epochs 6] [--steps 3] [--rule lrp.epsilon] [--seed 0]

`--data-root` holds ``cnn_fashion_mnist.h5``, `--data` the expanded ``fashion_mnist.npz`` (default: the same directory). Asked
for: at most 25 % of the multiply-accumulates and 8 % of the weights, at most 1.0 point of accuracy lost, a file 12 times
smaller and 3 times faster. Every run appends a row to ``bench/results/filters.jsonl``; a run that is there already is only
printed. Training that was interrupted continues.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import shutil
import tempfile
import time

import common
import numpy as np

import keras_xaic as xaic
from keras_xaic import tflite
from keras_xaic._keras import keras, tf
from keras_xaic._version import __version__
from keras_xaic.models import canonicalize, macs


def settings(options):
    names = ("epochs", "steps", "rule", "seed", "macs_share", "weights_share", "align")
    return {name: getattr(options, name) for name in names}


def compress(model, data, options, checkpoint):
    """Returns the compressed model and the seconds that attribution, removal and training took."""
    start = time.perf_counter()
    samples = data.calibration(256, options.seed)
    relevance = xaic.attribute(model, samples, rule=options.rule)
    filters = xaic.FilterPlan(
        macs=int(options.macs_share * sum(macs(model).values())),
        parameters=int(options.weights_share * model.count_params()),
        steps=options.steps,
        align=options.align,
    )
    plan = xaic.Plan(recipe="filters", seed=options.seed, filters=filters)
    told = set()

    def progress(stage, done, total, note=""):
        if (stage, note) not in told:
            told.add((stage, note))
            print(f"{time.perf_counter() - start:6.0f} s  {stage}: {note}", flush=True)

    small = xaic.apply(
        model,
        plan,
        data,
        relevance=relevance,
        training=xaic.Training(epochs=options.epochs),
        checkpoint=checkpoint,
        progress=progress,
    )
    return small, round(time.perf_counter() - start, 1)


def run(options):
    root = pathlib.Path(options.data_root)
    keras.utils.set_random_seed(options.seed)
    model = xaic.load_model(root / "cnn_fashion_mnist.h5")
    data = xaic.load_data(pathlib.Path(options.data or root) / "fashion_mnist.npz")
    work = pathlib.Path(tempfile.gettempdir()) / ("xaic-bench-filters-" + "-".join(map(str, settings(options).values())))
    small, seconds = compress(model, data, options, work / "train")
    files = {}
    for name, one in (("original", model), ("small", small.model)):
        files[name] = work / f"{name}.tflite"
        files[name].write_bytes(tflite.float_twin(canonicalize(one).model))
    row = {
        "what": "filters",
        "versions": {
            "keras_xaic": __version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
        **settings(options),
        "removed": {name: len(gone) for name, gone in small.plan.remove.items()},
        "history": {stage: [round(epoch.held_back, 4) for epoch in epochs] for stage, epochs in small.history.items()},
        "seconds": seconds,
    }
    for name, facts in common.measure(files, data.test).items():
        one = model if name == "original" else small.model
        weights = sum(int(np.prod(weight.shape)) for weight in one.trainable_weights)
        size = files[name].stat().st_size
        row[name] = {**facts, "macs": sum(macs(one).values()), "weights": weights, "bytes": size}
    shutil.rmtree(work)
    return row


def show(row):
    before, after = row["original"], row["small"]
    lines = [
        ("accuracy", "{:.4f}", after["accuracy"] - before["accuracy"], "-0.0100 or more"),
        ("macs", "{:,}", after["macs"] / before["macs"], "0.25 or less"),
        ("weights", "{:,}", after["weights"] / before["weights"], "0.08 or less"),
        ("bytes", "{:,}", before["bytes"] / after["bytes"], "12 or more"),
        ("median_ms", "{:.3f}", before["median_ms"] / after["median_ms"], "3 or more"),
    ]
    print(f"{'':<12} {'original':>12} {'small':>12} {'ratio':>10}   asked for")
    for name, form, ratio, wanted in lines:
        print(f"{name:<12} {form.format(before[name]):>12} {form.format(after[name]):>12} {ratio:>10.4f}   {wanted}")
    print(f"{row['epochs']} epochs in {row['steps']} steps by {row['rule']}, {row['seconds']} s; removed: {row['removed']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--data")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rule", default="lrp.epsilon")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--macs-share", type=float, default=0.25)
    parser.add_argument("--weights-share", type=float, default=0.078)
    parser.add_argument("--align", type=int, default=4)
    parser.add_argument("--out", default=str(pathlib.Path(__file__).parent / "results" / "filters.jsonl"))
    options = parser.parse_args()
    out = pathlib.Path(options.out)
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    row = next((one for one in rows if settings(options).items() <= one.items()), None)
    if row is None:
        row = run(options)
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
    show(row)


if __name__ == "__main__":
    main()
