"""Running .tflite files on edge interpreters in child processes; never imports TensorFlow."""

from __future__ import annotations

from keras_xaic.edge.inspect_file import FileInfo, read_file
from keras_xaic.edge.interpreters import INTERPRETERS, available_interpreters
from keras_xaic.edge.running import Arena, EdgeResult, Latency, measure_arena, run_file
from keras_xaic.edge.structure import check_structure
from keras_xaic.edge.verification import InterpreterRun, Verification, file_sha256, latency_entry, verify

__all__ = [
    "INTERPRETERS",
    "Arena",
    "EdgeResult",
    "FileInfo",
    "InterpreterRun",
    "Latency",
    "Verification",
    "available_interpreters",
    "check_structure",
    "file_sha256",
    "latency_entry",
    "measure_arena",
    "read_file",
    "run_file",
    "verify",
]
