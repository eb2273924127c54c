"""Does a file compute what the Keras model does: output by output, and which layer is the first that does not."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from keras_xaic.bundle import Bundle
from keras_xaic.edge.running import run_file, run_layers
from keras_xaic.errors import DataError, EdgeError
from keras_xaic.npz import Npz

LIMIT = 0.5
"""Largest deviation of a model that works: unrelated values deviate by 1.1, an 8-bit model by a few hundredths."""


@dataclass(frozen=True)
class Deviation:
    """How far values are from those of the Keras model: mean |difference| over the standard deviation.

    Attributes:
        name: Of the layer, or ``output 0``, ``output 1``, ...
        value: 0 for equal values; infinite where something is not finite.
    """

    name: str
    value: float


@dataclass(frozen=True)
class Agreement:
    """How a file agrees with the Keras model on the samples of the check kit.

    Attributes:
        interpreter: Who ran it.
        outputs: One per output.
        layers: One per operator, in the order in which they run; empty if that is not known.
    """

    interpreter: str
    outputs: tuple[Deviation, ...]
    layers: tuple[Deviation, ...]

    @property
    def first_deviating_layer(self) -> Optional[str]:
        """The first layer that deviates by more than `LIMIT`, None if none does."""
        return next((one.name for one in self.layers if not one.value <= LIMIT), None)

    def require(self, file: str) -> None:
        """Refuses a file whose outputs are not those of the model.

        Raises:
            EdgeError: Naming the first layer that deviates.
        """
        wrong = next((one for one in self.outputs if not one.value <= LIMIT), None)
        if wrong is not None:
            layer = self.first_deviating_layer
            where = "no single layer does" if layer is None else f"the first layer that does is {layer!r}"
            raise EdgeError(
                f"{self.interpreter} disagrees with the Keras model on {file}: {wrong.name} deviates by {wrong.value:.2g} "
                f"of its standard deviation; {where}",
                f"at most {LIMIT:g}",
                "Give that layer more bits, or keep it float (--float-layers)",
            )

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for report.json."""
        return {
            "output_deviation": [round(one.value, 5) for one in self.outputs],
            "layer_deviation": {one.name: round(one.value, 5) for one in self.layers},
            "first_deviating_layer": self.first_deviating_layer,
        }


def deviation(name: str, given: np.ndarray, expected: np.ndarray) -> Deviation:
    """Compares values; where the expected ones are nearly constant, a twentieth of their largest is the yardstick."""
    if given.shape != expected.shape and given.size == expected.size:
        given = given.reshape(expected.shape)
    if given.shape != expected.shape or not np.all(np.isfinite(given)):
        return Deviation(name, float("inf"))
    spread = max(float(expected.std()), 0.05 * float(np.abs(expected).max(initial=0.0))) or 1.0
    return Deviation(name, float(np.abs(given - expected).mean()) / spread)


def measure_agreement(bundle: Bundle, interpreter: str, path: Optional[pathlib.Path] = None) -> Agreement:
    """Runs the samples of ``check/`` and compares with what Keras and its layers gave for them.

    Args:
        bundle: The bundle.
        interpreter: Name of the interpreter.
        path: The file; model.tflite if not given.

    Raises:
        EdgeError: If the interpreter refuses, crashes or hangs.
    """
    path = path or bundle.model
    inputs = _numbered(bundle.check / "inputs.npz", "x")
    expected = _numbered(bundle.check / "expected.npz", "keras")
    given = run_file(path, inputs, interpreter=interpreter).outputs
    outputs = tuple(deviation(f"output {i}", a, b) for i, (a, b) in enumerate(zip(given, expected)))
    return Agreement(interpreter, outputs, _layers(bundle, path, interpreter, inputs))


def _layers(bundle: Bundle, path: pathlib.Path, interpreter: str, inputs: Sequence[np.ndarray]) -> tuple[Deviation, ...]:
    kept = bundle.check / "layers.npz"
    if not kept.is_file():
        return ()
    expected = dict(Npz(kept))
    count = len(next(iter(expected.values())))
    given = run_layers(path, [array[:count] for array in inputs], interpreter=interpreter)
    if len(given) != len(expected):  # the int8 file has other operators than the float one
        return ()
    return tuple(deviation(name.split(" ", 1)[1], a, b) for (name, b), a in zip(expected.items(), given))


def _numbered(path: pathlib.Path, prefix: str) -> list[np.ndarray]:
    arrays = Npz(path, f"{prefix}0, {prefix}1, ... as `xaic compress` writes them")
    found = [arrays[f"{prefix}{i}"] for i in range(len(arrays)) if f"{prefix}{i}" in arrays]
    if not found:
        raise DataError(f"{path} has no {prefix}0", arrays.expected)
    return found
