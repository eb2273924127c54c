"""Running .tflite files on edge interpreters in child processes; never imports TensorFlow."""

from __future__ import annotations

from keras_xaic.edge.agreement import Agreement, Deviation, knows_outputs, measure_agreement
from keras_xaic.edge.bundle_files import checksums
from keras_xaic.edge.cutting import said_of_cut
from keras_xaic.edge.delegation import Delegation
from keras_xaic.edge.file_ram import predict_arena
from keras_xaic.edge.inspect_file import FileInfo, read_file
from keras_xaic.edge.installed import available_interpreters, deployed_interpreters, judge, speed_judge
from keras_xaic.edge.interpreters import (
    AUTO,
    INTERPRETERS,
    REGISTRY,
    SLOWEST,
    MissingInterpreter,
    UnusableInterpreter,
    get_interpreter,
)
from keras_xaic.edge.measured import InterpreterRun, Verification, latency_entry
from keras_xaic.edge.micro import micro_refusal
from keras_xaic.edge.npu import NpuEstimate, estimate_npu
from keras_xaic.edge.running import Arena, EdgeResult, Latency, measure_arena, race, run_file, run_layers
from keras_xaic.edge.structure import check_structure
from keras_xaic.edge.verification import deployed_on, verify, with_judge

__all__ = [
    "AUTO",
    "INTERPRETERS",
    "REGISTRY",
    "SLOWEST",
    "Agreement",
    "Arena",
    "Delegation",
    "Deviation",
    "EdgeResult",
    "FileInfo",
    "InterpreterRun",
    "Latency",
    "MissingInterpreter",
    "NpuEstimate",
    "UnusableInterpreter",
    "Verification",
    "available_interpreters",
    "check_structure",
    "checksums",
    "deployed_interpreters",
    "deployed_on",
    "estimate_npu",
    "get_interpreter",
    "judge",
    "knows_outputs",
    "latency_entry",
    "measure_agreement",
    "measure_arena",
    "micro_refusal",
    "predict_arena",
    "race",
    "read_file",
    "run_file",
    "run_layers",
    "said_of_cut",
    "speed_judge",
    "verify",
    "with_judge",
]
