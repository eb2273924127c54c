"""Which storages of weights each edge interpreter computes right, and how fast: writes `keras_xaic/edge/storages.json`.

    python bench/storages.py [--only INTERPRETER]

One layer of each kind is written in every storage, behind every type of activations, with one scale and with one per channel,
whether the package would write it or not, and run on every installed interpreter beside Keras. Right are files that deviate by
the rounding of their activations. Results of versions that are not installed here stay in the table. Another version of LiteRT
is measured where XAIC_LITERT_PYTHON names a Python that has it.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

TABLE = pathlib.Path(__file__).parents[1] / "keras_xaic" / "edge" / "storages.json"
LARGEST = {"int8": 0.05, "int16": 0.01, "float32": 0.02}
"""Largest deviation of what is right: mean difference from Keras, in standard deviations of its outputs."""
COMBINATIONS = [("int4", "int8"), ("int8", "int8"), ("int4", "int16"), ("int8", "int16")]
COMBINATIONS += [("int4", "float32"), ("int8", "float32"), ("float32", "float32")]
ROUNDS, RUNS = 3, 40


def layer(kind: str) -> Any:
    """Returns a model of one layer, large enough that its kernel is what takes the time."""
    from keras_xaic._keras import keras, layers

    keras.utils.set_random_seed(0)
    shapes = {"dense": (512,)}
    inputs = keras.Input(shapes.get(kind, (16, 16, 16)))
    made = {
        "conv": lambda: layers.Conv2D(16, 3),
        "depthwise": lambda: layers.DepthwiseConv2D(3),
        "dense": lambda: layers.Dense(64),
        "conv_transpose": lambda: layers.Conv2DTranspose(8, 3),
    }
    return keras.Model(inputs, made[kind]()(inputs), name=kind)


def on_grid(model: Any, bits: int, per_tensor: bool) -> dict[str, Any]:
    """Gives the kernel random integers and scales that differ by a factor of up to four; a bias, too."""
    from keras_xaic.grids import QuantizedKernel
    from keras_xaic.models.kernels import weighted_kernels

    random, kernels = np.random.default_rng(0), {}
    for kernel in weighted_kernels(model):
        limit = 2 ** (bits - 1) - 1
        integers = random.integers(-limit, limit + 1, kernel.shape).astype(np.int8)
        axes = tuple(n if axis in kernel.channel_axes and not per_tensor else 1 for axis, n in enumerate(kernel.shape))
        scale = random.uniform(0.5, 2.0, axes) / (limit * np.sqrt(kernel.size / kernel.channels))
        kernels[kernel.key] = QuantizedKernel(integers, scale.astype(np.float32), bits)
        kernel.variable.assign(kernels[kernel.key].values)
        kernel.layer.bias.assign(random.normal(0, 0.1, kernel.layer.bias.shape))
    return kernels


def content(model: Any, kernels: dict[str, Any], storage: str, activations: str, samples: np.ndarray) -> bytes:
    """Writes the file, whatever the package thinks of such files."""
    from dataclasses import dataclass

    from keras_xaic.tflite import build_tflite, rewrite, weight_only
    from keras_xaic.tflite.build import Uncompressed

    @dataclass(frozen=True)
    class Plan:
        activations: str
        lookup: bool = True

        def save(self, path: Any) -> None: ...

    rewrite.require_legal = weight_only.require_legal = lambda *_, **__: None
    weight_only.can_be_packed = lambda *_: True
    rewrite.INT4_VERSIONS = weight_only.INT4_VERSIONS = {**rewrite.INT4_VERSIONS, "TRANSPOSE_CONV": 5}
    if storage == activations == "float32":
        return build_tflite(Uncompressed(model), samples, precision="float32")
    if activations == "int16":  # the package would store int8 there
        from keras_xaic.tflite.convert import converted
        from keras_xaic.tflite.converter import Wish
        from keras_xaic.tflite.flatbuffer import pack
        from keras_xaic.tflite.pairing import weight_operators

        floating = weight_operators(converted(model, Wish("float32")))
        file = converted(model, Wish("int16"), samples)
        rewrite.write_grids(file, floating, kernels, dict.fromkeys(kernels, storage))
        return pack(file)
    return build_tflite(Uncompressed(model, kernels, dict.fromkeys(kernels, storage), Plan(activations)), samples)


def files(folder: pathlib.Path) -> Iterator[tuple[dict[str, Any], pathlib.Path, np.ndarray, np.ndarray]]:
    """Yields every combination, its file (None where none can be written), samples and what Keras makes of them."""
    from keras_xaic.errors import XaicError

    for kind in ("conv", "depthwise", "dense", "conv_transpose"):
        for storage, activations in COMBINATIONS:
            for granularity in ("tensor", "channel"):
                model = layer(kind)
                kernels = on_grid(model, 4 if storage == "int4" else 8, granularity == "tensor")
                samples = np.random.default_rng(1).normal(size=(24, *model.input_shape[1:])).astype(np.float32)
                what = {"kind": kind, "storage": storage, "activations": activations, "granularity": granularity}
                path = folder / ("-".join(what.values()) + ".tflite")
                try:
                    path.write_bytes(content(model, kernels, storage, activations, samples))
                except XaicError as error:
                    print(what, error)
                    continue
                yield what, path, samples, model.predict(samples, verbose=0)


def measure(interpreter: str, made: list[Any]) -> list[dict[str, Any]]:
    """Returns one row for every file."""
    from keras_xaic import edge
    from keras_xaic.errors import XaicError

    rows = []
    for what, path, samples, expected in made:
        try:
            (given,) = edge.run_file(path, samples, interpreter=interpreter).outputs
        except XaicError as error:
            rows.append({**what, "right": False, "refused": "refused" in str(error)})
            print(interpreter, *what.values(), str(error)[:150])
            continue
        deviation = float(np.abs(given.reshape(expected.shape) - expected).mean() / expected.std())
        right = bool(deviation <= LARGEST[what["activations"]])  # NaN is not
        rows.append({**what, "right": right, "deviation": round(deviation, 4) if np.isfinite(deviation) else None})
    if interpreter == "tflm":
        return rows
    least: dict[int, float] = {}
    for _ in range(ROUNDS):
        for number, (row, (_, path, samples, _)) in enumerate(zip(rows, made)):
            if row["right"]:
                taken = edge.run_file(path, samples[:1], interpreter=interpreter, latency_runs=RUNS).latency.median
                least[number] = min(taken, least.get(number, taken))
    for number, row in enumerate(rows):
        plain = next(n for n, other in enumerate(rows) if (other["kind"], other["storage"]) == (row["kind"], "float32"))
        if number in least:
            row["time"] = round(least[number] / least[plain], 2)
    return rows


def main() -> None:
    from keras_xaic import edge

    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", choices=edge.deployed_interpreters())
    only = options.parse_args().only
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        made = list(files(pathlib.Path(folder)))
        for name, version in edge.available_interpreters().items():
            if edge.REGISTRY[name].deployed and only in (None, name):
                table["measured"].setdefault(name, {})[version] = measure(name, made)
    TABLE.write_text(as_text(table), encoding="utf-8")


def as_text(table: dict[str, Any]) -> str:
    """Returns the table as JSON with one entry a line, the newest version of each interpreter last."""

    def block(name: str, rows: list[dict[str, Any]], depth: int) -> str:
        lines = ",\n".join(" " * (depth + 1) + json.dumps(row) for row in rows)
        return f'{" " * depth}"{name}": [\n{lines}\n{" " * depth}]'

    versions = []
    for name, measured in table["measured"].items():
        order = sorted(measured, key=lambda version: [int(number) for number in re.findall(r"\d+", version)])
        inner = ",\n".join(block(version, measured[version], 3) for version in order)
        versions.append(f'  "{name}": {{\n{inner}\n  }}')
    parts = [f' "{name}": {json.dumps(table[name])}' for name in ("timed_on", "must_run_on")]
    parts += [block(name, table[name], 1) for name in ("not_used", "packed_dense_wrong")]
    parts.append(' "measured": {\n' + ",\n".join(versions) + "\n }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main()
