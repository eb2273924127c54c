"""Peer: TensorFlow Lite's converter as its documentation shows it."""

from __future__ import annotations

from keras_xaic._keras import tf


def to_float32(model) -> bytes:
    return tf.lite.TFLiteConverter.from_keras_model(model).convert()


def to_int8(model, calibration=None) -> bytes:
    """Returns an int8 file; a model that was trained with fake quantization brings its ranges and needs no calibration."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if calibration is not None:
        x = calibration.inputs()
        converter.representative_dataset = lambda: ([x[i : i + 1]] for i in range(len(x)))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()
