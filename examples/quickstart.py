"""Quickstart: one call compresses a trained model to a budget, writes the bundle and proves it on an edge interpreter."""

from digits import ready

import keras_xaic as xaic

model, data = ready()
report = xaic.compress(
    model,  # a path, or a keras.Model
    data,  # a path, arrays, or tf.data datasets
    budget=xaic.Budget(flash="24kB", max_drop=1.0),
    training=xaic.Training(epochs=8),
    out="build/examples/quickstart",
    overwrite=True,
)
small, original = report.compressed, report.original
print(f"{original.tflite_fp32_bytes:,} B -> {small.flash_bytes:,} B of flash, {small.download_bytes:,} B to download")
print(
    f"accuracy {original.edge_accuracy:.4f} -> {small.edge_accuracy:.4f}, measured from the file on {report.judge.interpreter}"
)
print(f"reasons alike: {small.explanation_similarity:.2f} (rank correlation of relevance maps)")
print("open build/examples/quickstart/report.html")
