"""Peers that need a Python of their own: a small script each, which writes the .tflite file."""

from __future__ import annotations

import pathlib
import subprocess

import numpy as np
from peers.converter import to_float32

METHODS = {
    "mct-mixed75": ("mct", "0.75"),
    "mct-mixed50": ("mct", "0.50"),
    "ai-edge-int8": ("ai_edge", "8"),
    "ai-edge-int4": ("ai_edge", "4"),
}
"""Which script, and its last argument."""
TIME_LIMIT = 3600


def compress(method, python, model, source, calibration, scratch) -> tuple[bytes, str]:
    """Returns the .tflite file and the version of the package that made it.

    Args:
        method: One of `METHODS`.
        python: Which Python has the package.
        model: The model.
        source: The file it came from.
        calibration: Samples that set the ranges.
        scratch: Directory for what goes in and comes out.
    """
    script, argument = METHODS[method]
    np.save(scratch / "calibration.npy", calibration.inputs())
    if script == "ai_edge":
        source = scratch / "float32.tflite"
        source.write_bytes(to_float32(model))
    out = scratch / "peer.tflite"
    command = [python, pathlib.Path(__file__).with_name(f"{script}.py"), source, scratch / "calibration.npy", out, argument]
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}")
    return out.read_bytes(), done.stdout.split()[-1]
