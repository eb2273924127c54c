"""Peer: Sony's Model Compression Toolkit, mixed precision; run with a Python that has it (see README.md).

    python mct.py MODEL.h5 CALIBRATION.npy OUT.tflite SHARE

SHARE is what the weights may take, as a share of what they take in 8 bits. Prints the package's version.
"""

from __future__ import annotations

import importlib.metadata
import sys

import model_compression_toolkit as mct
import numpy as np
import tensorflow as tf

source, calibration, out, share = sys.argv[1:]
model = tf.keras.models.load_model(source, compile=False)
samples = np.load(calibration)


def batches():
    for start in range(0, len(samples), 32):
        yield [samples[start : start + 32]]


mixed = mct.core.CoreConfig(mixed_precision_config=mct.core.MixedPrecisionQuantizationConfig(num_of_images=32))
most = mct.core.keras_resource_utilization_data(model, batches, core_config=mixed).weights_memory
small, _ = mct.ptq.keras_post_training_quantization(
    model,
    batches,
    target_resource_utilization=mct.core.ResourceUtilization(weights_memory=most * float(share)),
    core_config=mixed,
)
mct.exporter.keras_export_model(
    small,
    save_model_path=out,
    serialization_format=mct.exporter.KerasExportSerializationFormat.TFLITE,
    quantization_format=mct.exporter.QuantizationFormat.INT8,
)
print(importlib.metadata.version("model-compression-toolkit"))
