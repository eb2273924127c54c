"""The part of a bundle that travels to the device: samples, what Keras makes of them, and a script that compares."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_xaic.errors import ExportError
from keras_xaic.files import save_arrays, write_atomic
from keras_xaic.tflite import unpacking

SAMPLES = 32
"""Number of samples that travel."""
_SCRIPT = "edge_check.py"


def write_check(directory: pathlib.Path, model: Any, arrays: Sequence[np.ndarray]) -> None:
    """Writes ``inputs.npz`` (x0, x1, ...), ``expected.npz`` (keras0, keras1, ...), ``edge_check.py`` and ``unpack_xaic.py``.

    What the written file gives on an interpreter (y0, y1, ...) is added to ``expected.npz`` by who runs it.

    Args:
        directory: Where to; made if it does not exist.
        model: The compressed Keras model.
        arrays: One (N, ...) array of samples per input of the model.
    """
    directory.mkdir(parents=True, exist_ok=True)
    samples = [np.asarray(array[:SAMPLES], np.float32) for array in arrays]
    outputs = model.predict(samples if len(samples) > 1 else samples[0], verbose=0)
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    save_arrays(directory / "inputs.npz", {f"x{i}": array for i, array in enumerate(samples)})
    save_arrays(directory / "expected.npz", {f"keras{i}": array for i, array in enumerate(outputs)})
    write_atomic(directory / _SCRIPT, (device_files() / _SCRIPT).read_bytes())
    write_atomic(directory / "unpack_xaic.py", pathlib.Path(unpacking.__file__).read_bytes())


def device_files() -> pathlib.Path:
    """Returns the directory of files that travel to devices: part of the package when installed, ``export/`` in a checkout.

    Raises:
        ExportError: If it is missing.
    """
    package = pathlib.Path(__file__).resolve().parents[1]
    for place in (package / "_device", package.parent / "export"):
        if (place / _SCRIPT).is_file():
            return place
    raise ExportError(f"{_SCRIPT} is missing from this installation of keras-xaic", "", "Install keras-xaic again")
