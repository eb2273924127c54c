"""The bytes: conversion, low-bit storage, slimming, download container, C source and the bundle."""

from __future__ import annotations

from keras_xaic.download import unpack_download
from keras_xaic.tflite.build import PRECISION_OF, Compressed, build_tflite
from keras_xaic.tflite.container import pack_download
from keras_xaic.tflite.convert import float_twin, int8_twin
from keras_xaic.tflite.converter import Precision
from keras_xaic.tflite.decode import MicroFile, compress_for_micro
from keras_xaic.tflite.export import Target, export, precision_without_micro, reachable_target, without_micro
from keras_xaic.tflite.finishing import NOTHING_ADDED, UNFINISHED, Added, Finish
from keras_xaic.tflite.io_types import with_io
from keras_xaic.tflite.lookup import look_up
from keras_xaic.tflite.measure import LayerBytes, measure_layers
from keras_xaic.tflite.metadata import metadata_bytes, with_metadata
from keras_xaic.tflite.micro_kit import write_micro
from keras_xaic.tflite.reading import StoredWeights, match_stored, read_grids
from keras_xaic.tflite.slim import slim

__all__ = [
    "NOTHING_ADDED",
    "PRECISION_OF",
    "UNFINISHED",
    "Added",
    "Compressed",
    "Finish",
    "LayerBytes",
    "MicroFile",
    "Precision",
    "StoredWeights",
    "Target",
    "build_tflite",
    "compress_for_micro",
    "export",
    "float_twin",
    "int8_twin",
    "look_up",
    "match_stored",
    "measure_layers",
    "metadata_bytes",
    "pack_download",
    "precision_without_micro",
    "reachable_target",
    "read_grids",
    "slim",
    "unpack_download",
    "with_io",
    "with_metadata",
    "without_micro",
    "write_micro",
]
