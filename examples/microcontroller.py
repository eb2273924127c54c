"""A bundle for TensorFlow Lite Micro: flash and RAM, C source, and the same outputs from the micro interpreter."""

import pathlib

from digits import ready

import keras_xaic as xaic
from keras_xaic.edge import available_interpreters

model, data = ready()
micro_here = "tflm" in available_interpreters()  # pip install 'keras-xaic[micro]', Python 3.10 or newer
report = xaic.compress(
    model,
    data,
    budget=xaic.Budget(flash="24kB"),
    training=xaic.Training(epochs=6),
    device=xaic.Device(target="micro", baselines=["int8"], interpreters=["tflm"] if micro_here else "auto"),
    out="build/examples/micro",
    overwrite=True,
)
out = pathlib.Path("build/examples/micro/micro")
print(f"flash {report.compressed.micro_flash_bytes:,} B", end="")
if micro_here:
    print(f", RAM (arena) {report.compressed.arena_bytes:,} B, accuracy {report.interpreters['tflm'].accuracy:.4f} on tflm")
else:
    print("; install keras-xaic[micro] to measure RAM and to run the file on TensorFlow Lite Micro")
for file in sorted(out.iterdir()):
    print(f"  {file.name:<16} {file.stat().st_size:>8,} B")
print((out / "README.md").read_text(encoding="utf-8").split("\n\n")[0])
