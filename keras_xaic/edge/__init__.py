"""Running .tflite files on edge interpreters in child processes; never imports TensorFlow."""

from __future__ import annotations

from keras_xaic.edge.inspect_file import FileInfo, read_file
from keras_xaic.edge.interpreters import INTERPRETERS, available_interpreters
from keras_xaic.edge.running import Arena, EdgeResult, Latency, measure_arena, run_file
from keras_xaic.edge.structure import check_structure

__all__ = [
    "INTERPRETERS",
    "Arena",
    "EdgeResult",
    "FileInfo",
    "Latency",
    "available_interpreters",
    "check_structure",
    "measure_arena",
    "read_file",
    "run_file",
]
