"""What export makes of real files: bytes before and after each transformation, per storage; containers against general
compressors; latency and memory per interpreter; the arena with and without alternate decompression memory.

    python bench/export.py --data-root DIR [--data DIR] [--out FILE.jsonl] [--workers 2]
    python bench/export.py --data-root DIR --containers    # only: do all containers unpack in C as in Python? Writes no rows

Weights are rounded to their grids, and the smallest set to zero, without any training: bytes do not depend on accuracy.
"""

from __future__ import annotations

import functools
import pathlib
import shutil
import subprocess
import tempfile
import time

import common
import numpy as np

FORMS = {
    "int8": (8, 0.0),
    "grid4": (4, 0.0),
    "grid4-zeros80": (4, 0.8),
    "grid2": (2, 0.0),
    "grid3": (3, 0.0),
}
"""Bits and share of zeros of every layer; `int8` is TFLite's own quantization after training."""
FLOATS = ("float32", "float16", "dynamic-range", "int16")
MODELS = (*common.FILES, "mobilenet")
CALIBRATION = 64


def mobilenet():
    """A net of depthwise separable convolutions for 64x64 images, with fixed random weights as training leaves them."""
    from keras_xaic._keras import keras, layers

    def norm(x):
        return layers.ReLU(6.0)(layers.BatchNormalization()(x))

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((64, 64, 3))
    x = norm(layers.Conv2D(16, 3, 2, padding="same", use_bias=False)(x))
    for filters, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        x = norm(layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(x))
        x = norm(layers.Conv2D(filters, 1, use_bias=False)(x))
    x = layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x, name="mobilenet")
    random = np.random.default_rng(0)
    for layer in model.layers:  # few large and many small weights: Laplace, as trained ones are
        if layer.weights and not isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.laplace(0, 1, w.shape) / np.sqrt(2 * np.prod(w.shape[:-1])) for w in layer.get_weights()])
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(random.normal(size=(64, 64, 64, 3)).astype(np.float32), training=True)
    return model


def source(options, name):
    """Returns a model with BatchNorm folded, and what calibrates and tries it."""
    from keras_xaic import load_data, load_model
    from keras_xaic.models import canonicalize

    model = mobilenet() if name == "mobilenet" else load_model(options.data_root / common.FILES[name])
    if name in common.DATA:
        x = load_data((options.data or options.data_root) / common.DATA[name]).calibration(CALIBRATION, seed=0).inputs()
    else:
        x = np.random.default_rng(0).normal(size=(CALIBRATION, *model.input_shape[1:])).astype(np.float32)
    return canonicalize(model).model, np.asarray(x, np.float32)


def rounded(model, bits, zeros):
    """Returns the model with every kernel on a grid, as export takes it."""
    from keras_xaic.grids import fit_scale, quantize
    from keras_xaic.models import weighted_kernels
    from keras_xaic.planning.storages import legal_storages
    from keras_xaic.tflite.build import Uncompressed

    kernels, storages = {}, {}
    for kernel in weighted_kernels(model):
        weights = np.array(kernel.value)
        if zeros:
            weights = np.where(np.abs(weights) > np.quantile(np.abs(weights), zeros), weights, 0)
        one_step = kernel.kind == "dense"
        kernels[kernel.key] = quantize(weights, bits, fit_scale(weights, bits, () if one_step else kernel.channel_axes))
        storages[kernel.key] = legal_storages(kernel.kind, bits, one_step)[0]
        kernel.variable.assign(kernels[kernel.key].values)
    return Uncompressed(model, kernels, storages)


def bytes_of(options, model, form, what):
    from keras_xaic import tflite
    from keras_xaic.edge import judge

    keras_model, x = source(options, model)
    if form in FLOATS:
        content = tflite.build_tflite(keras_model, x, precision=form)
        return {"flash_bytes": len(content), **compressors(content)}
    if form == "int8":
        plain = tflite.int8_twin(keras_model, x)
        steps, content, unpacked = {"converted": len(plain)}, tflite.slim(plain), plain
    else:
        small = rounded(keras_model, *FORMS[form])
        content = tflite.build_tflite(small, x)
        unpacked = bytewise(content)
        naive = int4_of_the_converter(tflite.int8_twin(keras_model, x), content) if form == "grid4" else None
        steps = {"converted": len(tflite.int8_twin(keras_model, x)), "naive_int4": naive, "unpacked": len(unpacked)}
    micro = tflite.compress_for_micro(content)
    row = {
        **steps,
        "flash_bytes": len(content),
        "same_bits_as_unpacked": same_bits(content, unpacked, x, judge()),
        "micro_flash_bytes": len(micro.content),
        "micro_same_bits": same_bits(micro.content, content, x, "tflm"),
        "micro_encodings": sorted(micro.encodings.values()),
        "micro_ratio": round(len(micro.content) / len(unpacked), 4),
        **arenas(micro, content),
        **compressors(content),
    }
    if form == "int8":
        row["container_of_the_converted"] = compressors(plain)
    return row


def bytewise(content):
    """The same file with every int4 weight in a byte of its own."""
    from keras_xaic.tflite.flatbuffer import TensorType, constant, load, pack, set_constant

    model = load(content)
    for tensor in model.subgraphs[0].tensors:
        if tensor.type == TensorType.INT4:
            set_constant(model, tensor, constant(model, tensor), TensorType.INT8)
    return pack(model)


def int4_of_the_converter(plain, written):
    """Bytes of the converter's int8 file if its weights were only packed, as a naive exporter does."""
    from keras_xaic.tflite import read_grids

    return len(plain) - sum(one.integers.size - one.weight_bytes for one in read_grids(written))


def compressors(content):
    """The container beside gzip, xz, brotli and zstd, each at its strongest; and the zeroth-order entropy of the weights."""
    from keras_xaic import tflite
    from keras_xaic.tflite.container import _encode, find_regions

    start = time.perf_counter()
    packed = tflite.pack_download(content)
    packing = time.perf_counter() - start
    start = time.perf_counter()
    assert tflite.unpack_download(packed) == content
    unpacking = time.perf_counter() - start
    assert unpacked_in_c(packed) in (content, None)
    others = common.general_compressors(content)
    regions = [region for region in sorted(find_regions(content), key=lambda region: region.start) if region.coding]
    return {
        "download_bytes": len(packed),
        **others,
        "smallest_of_all": len(packed) < min(others.values()),
        "entropy_bytes": round(sum(entropy_bytes(region.values) for region in regions)),
        "coded_weight_bytes": len(_encode(regions)),
        "pack_s": round(packing, 2),
        "unpack_s": round(unpacking, 2),
    }


@functools.cache
def decoder():
    """The example program of export/unpack; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    sources = pathlib.Path(__file__).parents[1] / "export" / "unpack"
    program = pathlib.Path(tempfile.mkdtemp()) / "unpack"
    subprocess.run([compiler, "-O2", sources / "main.c", sources / "xaic_unpack.c", "-o", program], check=True)
    return program


def unpacked_in_c(packed, program=None):
    program = program or decoder()
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        given, written = pathlib.Path(scratch) / "model.xaic", pathlib.Path(scratch) / "model.tflite"
        given.write_bytes(packed)
        subprocess.run([program, given, written], check=True, stdout=subprocess.DEVNULL)
        return written.read_bytes()


STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2")


def check_containers(options):
    """Unpacks the container of every model in every form in C, once for every compiler there is, and prints what differs."""
    from keras_xaic import tflite

    sources = [pathlib.Path(__file__).parents[1] / "export" / "unpack" / name for name in ("main.c", "xaic_unpack.c")]
    programs = {}
    for compiler in filter(shutil.which, ("gcc", "clang")):
        programs[compiler] = pathlib.Path(tempfile.mkdtemp()) / "unpack"
        subprocess.run([compiler, *STRICT, *sources, "-o", programs[compiler]], check=True)
    same, count = dict.fromkeys(programs, 0), 0
    for model in MODELS:
        keras_model, x = source(options, model)
        weights = keras_model.get_weights()
        for form in FORMS:
            keras_model.set_weights(weights)
            content = tflite.slim(tflite.int8_twin(keras_model, x)) if form == "int8" else None
            content = content or tflite.build_tflite(rounded(keras_model, *FORMS[form]), x)
            packed, count = tflite.pack_download(content), count + 1
            right = {name: unpacked_in_c(packed, program) == content for name, program in programs.items()}
            same = {name: same[name] + right[name] for name in programs}
            python = tflite.unpack_download(packed) == content
            print(f"{model} {form}: {len(content):,} B, container {len(packed):,} B, python {python}, {right}", flush=True)
    print(f"the same bytes: {', '.join(f'{name} {number} of {count}' for name, number in same.items())}")


def entropy_bytes(values):
    counts = np.unique(values, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def same_bits(content, other, x, interpreter):
    from keras_xaic import edge

    with tempfile.TemporaryDirectory() as scratch:
        outputs = []
        for name, one in (("a", content), ("b", other)):
            path = pathlib.Path(scratch) / f"{name}.tflite"
            path.write_bytes(one)
            outputs.append(edge.run_file(path, x[:16], interpreter=interpreter).raw)
    return all(np.array_equal(a, b) for a, b in zip(*outputs))


def arenas(micro, plain):
    """The arena, by bisection and as reported: plain, with DECODE, and with a second memory for unpacked weights."""
    from keras_xaic import edge

    with tempfile.TemporaryDirectory() as scratch:
        files = {"plain": plain, "decode": micro.content}
        for name, one in files.items():
            (pathlib.Path(scratch) / f"{name}.tflite").write_bytes(one)
        found = {name: edge.measure_arena(pathlib.Path(scratch) / f"{name}.tflite") for name in files}
        row = {f"arena_{name}": arena.minimum for name, arena in found.items()}
        row.update({f"arena_{name}_reported": arena.total for name, arena in found.items()})
        if micro.decoded_bytes:
            second = micro.decoded_bytes + 1024
            arena = edge.measure_arena(pathlib.Path(scratch) / "decode.tflite", alternate_bytes=second)
            row.update({"arena_alternate": arena.minimum, "alternate_memory": second})
    return row


def speed(options, model, form, what):
    """Latency and memory of each interpreter, on one thread."""
    from keras_xaic import edge, tflite
    from keras_xaic.errors import EdgeError

    keras_model, x = source(options, model)
    if form in FLOATS:
        content = tflite.build_tflite(keras_model, x, precision=form)
    else:
        content = tflite.build_tflite(keras_model if form == "int8" else rounded(keras_model, *FORMS[form]), x)
    row = {"flash_bytes": len(content), "latency_ms": {}, "peak_memory_bytes": {}, "refused": {}}
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "model.tflite"
        path.write_bytes(content)
        for name in edge.available_interpreters():
            try:
                result = edge.run_file(path, x[:2], interpreter=name, latency_runs=40)
            except EdgeError as error:
                row["refused"][name] = error.found
                continue
            row["latency_ms"][name] = edge.latency_entry(result.latency)
            row["peak_memory_bytes"][name] = result.peak_memory_bytes
        if form in FORMS:  # Vela takes no int4 and compresses by itself
            path.write_bytes(bytewise(content))
            row["vela"] = edge.estimate_npu(path).as_dict()
    return row


def work(options, model, form, what):
    return {"bytes": bytes_of, "speed": speed}[what](options, model, form, what)


def main():
    parser = common.parser(__doc__, "export.jsonl")
    parser.add_argument("--containers", action="store_true", help="only unpack all containers in C")
    options = parser.parse_args()
    if options.containers:
        check_containers(options)
        return
    jobs = [{"model": model, "form": form, "what": "bytes"} for form in FORMS for model in MODELS]
    jobs += [{"model": model, "form": form, "what": "speed"} for form in ("int8", "grid4", *FLOATS) for model in MODELS]
    jobs += [{"model": model, "form": form, "what": "bytes"} for form in FLOATS for model in MODELS]
    common.run(jobs, work, options)


if __name__ == "__main__":
    main()
