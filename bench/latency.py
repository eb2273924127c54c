"""How long files take, by how their weights are stored.

    python bench/latency.py --table             # single layers: writes keras_xaic/edge/latency.json, for machines like this one
    python bench/latency.py --data-root DIR     # real models: our storages beside the converter's int8, and what was predicted
        [--flash 60kB,45kB]                     # and with further limits of flash
        [--ai-edge-python PYTHON]               # and beside Google's AI Edge Quantizer, which that Python has (bench/peers)

Each file is run in turn with the converter's int8 in one process, so that what else the machine does slows both alike, and
with no third one, which would take the cache from them. Rows hold the least and the median time of each, and its ratio to
int8's; on the other interpreters, which run other kernels, the least time and the ratio, or why there is none.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))
TABLE = pathlib.Path(__file__).parents[1] / "keras_xaic" / "edge" / "latency.json"
CONVOLUTIONS = [
    (32, 3, 16, 3), (32, 16, 16, 3), (16, 16, 32, 3), (16, 32, 32, 3), (8, 64, 64, 3), (28, 1, 32, 3), (14, 32, 64, 3),
    (16, 8, 12, 3), (32, 4, 8, 3), (4, 64, 64, 3), (8, 32, 64, 1), (16, 32, 16, 1), (25, 64, 64, 1), (16, 24, 20, 1),
    (48, 8, 16, 1), (8, 96, 160, 1),
]  # fmt: skip
"""Side of the input, channels that go in and out, side of the kernel."""
DEPTHWISE = [(32, 16), (16, 64), (8, 64), (24, 8), (25, 64), (12, 96)]
DENSE = [(784, 512), (512, 256), (256, 10), (64, 32), (3136, 128), (128, 10), (32, 16), (640, 128), (2048, 64)]
TRANSPOSED = [(8, 16, 8, 3), (16, 8, 8, 3), (8, 64, 32, 3), (8, 32, 64, 2), (4, 64, 16, 3)]
STACKS = [(3, 16, 16, 3), (5, 16, 16, 3), (3, 8, 64, 3)]
"""Convolutions behind each other, side of the input, channels, side of the kernel."""
STORED = [("int8", "int8"), ("int4", "int8"), ("lookup", "int8")]
STORED += [("int8", "float32"), ("int4", "float32"), ("float32", "float32")]
"""How weights are stored, and the type of activations."""
RUNS, TURNS = 400, 5
VECTORS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni")
"""Extensions of x86 that XNNPACK has kernels of its own for."""
INVOCATION = 0.3
"""Microseconds of a call of a file in which nothing is computed."""


def probes() -> list[tuple[str, Any]]:
    """Returns models of one layer, or of a few that are alike."""
    from keras_xaic._keras import keras, layers

    made = []

    def add(kind: str, shape: tuple[int, ...], *stack: Any) -> None:
        keras.utils.set_random_seed(0)
        inputs = tensor = keras.Input(shape)
        for layer in stack:
            tensor = layer(tensor)
        made.append((kind, keras.Model(inputs, tensor)))

    for side, ins, outs, size in CONVOLUTIONS:
        add("conv", (side, side, ins), layers.Conv2D(outs, size, padding="same", activation="relu"))
    for side, channels in DEPTHWISE:
        add("depthwise", (side, side, channels), layers.DepthwiseConv2D(3, padding="same"))
    for ins, outs in DENSE:
        add("dense", (ins,), layers.Dense(outs))
    for side, ins, outs, size in TRANSPOSED:
        add("conv_transpose", (side, side, ins), layers.Conv2DTranspose(outs, size, 2, padding="same"))
    for depth, side, channels, size in STACKS:
        add("conv", (side, side, channels), *[layers.Conv2D(channels, size, padding="same") for _ in range(depth)])
    for pool in (layers.MaxPooling2D, layers.AveragePooling2D):
        add("conv", (16, 16, 16), layers.Conv2D(16, 3, padding="same"), pool(2))
    return made


def measured_probes() -> list[dict[str, Any]]:
    """Returns the least time of every probe, stored in every way; what slows the machine for a while hits one turn of five."""
    from keras_xaic import edge

    timing, made = edge.speed_judge(), probes()
    least: dict[tuple[int, str], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        written = [stored_ways(model, pathlib.Path(folder) / str(number), timing) for number, (_, model) in enumerate(made)]
        for turn in range(TURNS):
            for number, paths in enumerate(written):
                for name, (latency, _) in edge.race(paths, interpreter=timing, runs=RUNS).items():
                    least[number, name] = min(latency.least, least.get((number, name), latency.least))
            print(f"turn {turn + 1} of {TURNS}", flush=True)
    rows = []
    for (number, name), taken in sorted(least.items()):
        (stored, activations), (kind, model) = name.split("|"), made[number]
        rows.append({"kind": kind, "stored": stored, "activations": activations, "us": 1000 * taken, **calls(model)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def stored_ways(model: Any, folder: pathlib.Path, timing: str) -> dict[str, pathlib.Path]:
    """Returns the files of a model that run: "how weights are stored|type of activations" -> path."""
    from storages import content, on_grid

    from keras_xaic.errors import XaicError

    folder.mkdir()
    samples = np.random.default_rng(1).normal(size=(8, *model.input_shape[1:])).astype(np.float32)
    paths = {}
    for stored, activations in STORED:
        bits = {"int8": 8, "int4": 4, "lookup": 2, "float32": 8}[stored]
        kernels = on_grid(model, bits, per_tensor=activations == "float32" and stored == "int4")
        path = folder / f"{stored}-{activations}.tflite"
        try:
            made = content(model, kernels, "int4" if stored == "lookup" else stored, activations, samples)
        except XaicError as error:
            print(folder.name, stored, activations, error)
            continue
        if stored == "lookup" and not looks_up(made):  # it would not pay
            continue
        path.write_bytes(made)
        if runs(path, timing):
            paths[f"{stored}|{activations}"] = path
    return paths


def looks_up(content: bytes) -> bool:
    """Returns whether a file looks weights up in a table."""
    from keras_xaic.tflite.flatbuffer import BuiltinOperator, builtin_code, load

    return any(builtin_code(code) == BuiltinOperator.GATHER for code in load(content).operatorCodes)


def fitted(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what holds for processors like this one: costs with the least relative error, none of them negative."""
    from scipy.optimize import nnls

    from keras_xaic import edge, processor
    from keras_xaic.planning.latency import Work

    costs: list[dict[str, Any]] = []
    for group in sorted({(row["kind"], row["stored"], row["activations"]) for row in rows}):
        kind, stored, activations = group
        own = [row for row in rows if (row["kind"], row["stored"], row["activations"]) == group and not row["others"]]
        taken = np.array([row["us"] for row in own])
        best: dict[str, Any] = {}
        for blocks in [(1, 1)] if kind == "dense" else [(out, into) for out in (1, 4, 8, 16, 32) for into in (1, 4, 8, 16)]:
            amounts = np.array([Work(kind, row["calls"]).amounts(blocks) for row in own], float)
            if stored != "lookup":
                amounts[:, 4] = 0.0
            size = np.maximum(amounts.max(0), 1e-9)
            found, error = nnls(amounts / size / taken[:, None], (taken - INVOCATION) / taken)
            error /= np.sqrt(len(own))
            if not best or error < best["error"] - 0.003:
                names = ("call", "mac", "output", "patch", "weight")
                best = {name: float(f"{value:.4g}") for name, value in zip(names, found / size)}
                best.update(error=round(float(error), 3), blocks=list(blocks))
        costs.append({"kind": kind, "stored": stored, "activations": activations, **best})
    plain = {one["kind"]: one for one in costs if (one["stored"], one["activations"]) == ("int8", "int8")}
    rest = []
    for row in rows:
        if row["others"] and (row["stored"], row["activations"]) == ("int8", "int8"):
            one = plain[row["kind"]]
            amounts = Work(row["kind"], row["calls"]).amounts(tuple(one["blocks"]))
            kernels = sum(one[name] * amount for name, amount in zip(("call", "mac", "output", "patch", "weight"), amounts))
            rest.append((row["us"] - INVOCATION - kernels) / row["others"])
    timing = edge.speed_judge()
    return {
        "adds_int8_products": processor.adds_int8_products(),
        "machine": machine(),
        "timed_on": timing,
        "version": edge.available_interpreters()[timing],
        "invocation": INVOCATION,
        "operator": round(max(0.1, min(rest)), 3),
        "costs": costs,
    }


def machine() -> str:
    """Returns the name of the processor, and which vector instructions it has: int8 kernels live on them."""
    from keras_xaic.processor import extensions

    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return ", ".join([name, *(one for one in VECTORS if one in extensions())])


def with_machine(known: list[dict[str, Any]], measured: dict[str, Any]) -> str:
    """Returns latency.json with one entry a line; what was measured takes the place of what is known of such processors."""
    others = [one for one in known if one["adds_int8_products"] != measured["adds_int8_products"]]
    machines = []
    for one in sorted([*others, measured], key=lambda one: not one["adds_int8_products"]):
        heads = [f'  "{name}": {json.dumps(value)}' for name, value in one.items() if name != "costs"]
        rows = ",\n".join(f"   {json.dumps(row)}" for row in one["costs"])
        machines.append(" {\n" + ",\n".join(heads) + f',\n  "costs": [\n{rows}\n  ]\n }}')
    return '{"machines": [\n' + ",\n".join(machines) + "\n]}\n"


def runs(path: pathlib.Path, interpreter: str) -> bool:
    from keras_xaic.edge.running import try_file
    from keras_xaic.errors import XaicError

    try:
        try_file(path, interpreter)
    except XaicError as error:
        print(path.name, str(error)[:100])
        return False
    return True


def calls(model: Any) -> dict[str, Any]:
    """Returns shape and positions of every call of a kernel, and how many other operators there are."""
    from keras_xaic.models.kernels import kernel_calls
    from keras_xaic.models.operations import Operations

    found = [(list(one.shape), one.positions) for one in kernel_calls(Operations(model))]
    return {"calls": found, "others": sum(1 for op in Operations(model) if "Pool" in type(op.layer).__name__)}


MODELS = {"resnet8": "resnet8_cifar10.h5", "cnn": "cnn_fashion_mnist.h5", "mlp": "mlp_fashion_mnist.h5"}


def like_ds_cnn() -> Any:
    """Returns a depthwise separable net for spectrograms, with random weights."""
    from keras_xaic._keras import keras, layers

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((49, 10, 1))
    x = layers.Conv2D(64, (10, 4), 2, "same", activation="relu")(x)
    for _ in range(4):
        x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
        x = layers.Conv2D(64, 1, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(12, "softmax")(layers.GlobalAveragePooling2D()(x)))


def like_mobilenet() -> Any:
    """Returns a narrow MobileNetV2 with random weights."""
    from keras_xaic._keras import keras

    keras.utils.set_random_seed(0)
    return keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classes=10)


def peers(model: Any, x: np.ndarray, python: str, folder: pathlib.Path) -> dict[str, bytes]:
    """Returns what AI Edge Quantizer makes of a model, with ranges of the samples and with those of every run."""
    from peers.converter import to_float32

    source, samples, out = (folder / name for name in ("float32.tflite", "samples.npy", "peer.tflite"))
    source.write_bytes(to_float32(model))
    np.save(samples, x)
    made = {}
    for how in ("static", "dynamic"):
        for bits in ("8", "4"):
            script = pathlib.Path(__file__).with_name("peers") / "ai_edge.py"
            extra = ["dynamic"] if how == "dynamic" else []
            out.unlink(missing_ok=True)
            done = subprocess.run(
                [python, script, source, samples, out, bits, *extra], capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(f"AI Edge Quantizer, {how} int{bits}:", (done.stderr.strip().splitlines() or ["no word"])[-1])
                continue
            made[f"ai-edge-quantizer {done.stdout.split()[-1]}, {how} int{bits}"] = out.read_bytes()
    return made


def compare(model: Any, folder: pathlib.Path, ai_edge: str | None = None, flash: str = "") -> list[dict[str, Any]]:
    """Returns one row for every way to store a model: predicted and measured time, both also as multiples of int8's.

    `flash` names further limits of flash, separated by commas.
    """
    import keras_xaic as xaic
    from keras_xaic import edge, tflite
    from keras_xaic.data import Data, Samples
    from keras_xaic.models import canonicalize
    from keras_xaic.planning import Budget, PlanOptions, plan
    from keras_xaic.planning.latency import Times
    from keras_xaic.relevance.magnitude import magnitude

    x = np.random.default_rng(0).random((32, *model.input_shape[1:])).astype(np.float32)
    data, relevance, flat = Data(Samples(x)), magnitude(model), canonicalize(model).model
    plain = tflite.int8_twin(flat, x)
    written = {"converter int8": plain, "float32": tflite.float_twin(flat)}
    written["converter dynamic range"] = tflite.build_tflite(flat, x, precision="dynamic-range")
    if ai_edge is not None:
        written.update(peers(model, x, ai_edge, folder))
    predicted = {"converter int8": Times(flat).plain()}
    size, four = len(plain), PlanOptions(bits=(4,), filters=False)
    ways = {
        "no limit": (Budget(), PlanOptions()),
        "download a quarter of int8": (Budget(download=len(tflite.pack_download(plain)) // 4), PlanOptions()),
        "4 bits": (Budget(), four),
        "4 bits, all packed": (Budget(), dataclasses.replace(four, packed=True)),
        "flash 0.65 of int8": (Budget(flash=65 * size // 100), PlanOptions(filters=False)),
        "flash half of int8": (Budget(flash=size // 2), PlanOptions(filters=False)),
        "max_slowdown 0.5": (Budget(max_slowdown=0.5), PlanOptions()),
    }
    ways.update({f"flash {limit}": (Budget(flash=limit), PlanOptions()) for limit in filter(None, flash.split(","))})
    slow = {}
    for name, (budget, options) in ways.items():
        made = plan(model, relevance, budget, options)
        training = xaic.Training(epochs=0, rounding="nearest")
        written[name] = tflite.build_tflite(xaic.apply(model, made, data, relevance=relevance, training=training), data.train)
        predicted[name] = (made.predicted_slowdown or 0.0) * predicted["converter int8"]
        slow[name] = {layer.key: layer.slowdown for layer in made.layers if layer.slowdown > 1.25}
    paths = {name: folder / f"{number}.tflite" for number, name in enumerate(written)}
    for name, content in list(written.items()):
        paths[name].write_bytes(content)
        if name.startswith("ai-edge") and not runs(paths[name], edge.speed_judge()):  # it says why
            del written[name], paths[name]
    least: dict[str, float] = {}
    units: dict[str, float] = {}
    medians: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(TURNS):
        for name, path in paths.items():
            raced = edge.race({"int8": paths["converter int8"], "file": path}, interpreter=edge.speed_judge(), runs=200)
            (unit, _), (latency, _) = raced["int8"], raced["file"]
            units[name] = min(unit.least, units.get(name, unit.least))
            least[name] = min(latency.least, least.get(name, latency.least))
            medians[name].append(latency.median)
    others = {one: elsewhere(paths, x, one) for one in edge.deployed_interpreters() if one != edge.speed_judge()}
    rows = []
    for name, content in written.items():
        row = {"file": name, "bytes": len(content), "least_us": round(1000 * least[name], 2)}
        row["median_us"] = round(1000 * float(np.median(medians[name])), 2)
        row["times_int8"] = round(least[name] / units[name], 3)
        if name in predicted:
            row["predicted_us"] = round(predicted[name], 2)
            row["predicted_times_int8"] = round(predicted[name] / predicted["converter int8"], 3)
        rows.append({**row, "packed_for_flash": slow.get(name, {}), **{one: found[name] for one, found in others.items()}})
    return rows


def elsewhere(paths: dict[str, pathlib.Path], x: np.ndarray, interpreter: str) -> dict[str, Any]:
    """Returns what every file takes on another interpreter, the first one's time as the unit of ratios; or its refusal."""
    from keras_xaic import edge
    from keras_xaic.errors import XaicError

    least: dict[str, float] = {}
    found: dict[str, Any] = {}
    for _ in range(TURNS):
        for name, path in paths.items():
            if name in found:
                continue
            try:
                latency = edge.run_file(path, x[:1], interpreter=interpreter, latency_runs=40).latency
            except XaicError as error:
                found[name] = {"refused": str(error)[:200]}
                continue
            if latency is not None:
                least[name] = min(latency.least, least.get(name, latency.least))
    unit = least.get("converter int8")
    for name, one in least.items():
        found[name] = {"least_us": round(1000 * one, 2), "times_int8": None if unit is None else round(one / unit, 3)}
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--table", action="store_true", help="measure single layers")
    options.add_argument("--data-root", type=pathlib.Path, help="directory of the models (.h5)")
    options.add_argument("--ai-edge-python", help="a Python that has ai-edge-quantizer")
    options.add_argument("--flash", default="", help="also with these limits of flash, e.g. 60kB,45kB")
    options.add_argument("--only", help="one of resnet8, cnn, mlp, ds-cnn, mobilenet")
    options.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results" / "latency.jsonl")
    given = options.parse_args()
    if given.table:
        known = json.loads(TABLE.read_text(encoding="utf-8"))["machines"]
        TABLE.write_text(with_machine(known, fitted(measured_probes())), encoding="utf-8")
    if given.data_root is None:
        return
    from keras_xaic import edge, load_model

    makers = {name: functools.partial(load_model, given.data_root / file) for name, file in MODELS.items()}
    makers.update({"ds-cnn": like_ds_cnn, "mobilenet": like_mobilenet})
    version = edge.available_interpreters()[edge.speed_judge()]
    kept = given.out.read_text().splitlines() if given.out.exists() else []
    for name in [given.only] if given.only else list(makers):
        with tempfile.TemporaryDirectory() as folder:
            rows = [
                {"model": name, **row, "litert": version, "machine": machine()}
                for row in compare(makers[name](), pathlib.Path(folder), given.ai_edge_python, given.flash)
            ]
        here = {"model": name, "machine": machine()}
        kept = [line for line in kept if not here.items() <= json.loads(line).items()] + [json.dumps(row) for row in rows]
        given.out.write_text("\n".join(kept) + "\n")
        for row in rows:
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
