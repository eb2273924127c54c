"""Does a file compute what the Keras model does: output by output, and which layer is the first that does not."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from keras_xaic.bundle import Bundle
from keras_xaic.edge.bundle_facts import BundleFacts
from keras_xaic.edge.running import inner_scales, run_file, run_layers
from keras_xaic.errors import DataError, EdgeError
from keras_xaic.npz import Npz
from keras_xaic.output_tasks import Tasks, task_of

LIMIT = 0.5
"""Largest limit of all: unrelated values deviate by 1.1."""
NOISE_FACTOR = 5.0
"""How many times the expected error of rounding values may deviate. Measured on layers of all kinds: 0.5 to 2 times."""
WEIGHT_NOISE = 0.005
"""What an operator is allowed for rounded weights and for its own arithmetic, in standard deviations of what it gives."""
RANGE_FACTOR = 4.0
"""How many times the range of the samples that are compared a file's range may be: more calibration data reaches further."""
CLEAR_MARGIN = 4.0
"""A class leads clearly by this many times what values of that output may deviate on average."""
CLEAR_AGREEMENT = 0.9
"""Share of the samples with a clear leader on which the file must find the same one, and number of samples that tell."""
CLEAR_SAMPLES = 8


@dataclass(frozen=True)
class Deviation:
    """How far values are from those of the Keras model: mean |difference| over the standard deviation.

    Attributes:
        name: Of the layer, or ``output 0``, ``output 1``, ...
        value: 0 for equal values; infinite where something is not finite.
        limit: What rounding explains: `NOISE_FACTOR` times the error of all activations up to here, each uniformly distributed
            within one step of its scale in the file, or of the scale that Keras' own values explain if that is smaller.
        agreement: Share of the samples with a clear leader on which the same class leads; None where that does not apply.
    """

    name: str
    value: float
    limit: float = LIMIT
    agreement: Optional[float] = None

    @property
    def is_small(self) -> bool:
        """Whether rounding explains it."""
        return self.value <= self.limit and (self.agreement is None or self.agreement >= CLEAR_AGREEMENT)


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
        """The first layer that deviates by more than its limit, None if none does."""
        return next((one.name for one in self.layers if not one.is_small), None)

    def require(self, file: str) -> None:
        """Refuses a file whose outputs are not those of the model.

        Raises:
            EdgeError: Naming the first layer that deviates.
        """
        wrong = next((one for one in self.outputs if not one.is_small), None)
        if wrong is not None:
            layer = self.first_deviating_layer
            told = "" if wrong.agreement is None else f", {wrong.agreement:.0%} of the clear classes are found again"
            where = "no single layer does" if layer is None else f"the first layer that does is {layer!r}"
            raise EdgeError(
                f"{self.interpreter} disagrees with the Keras model on {file}: {wrong.name} deviates by {wrong.value:.2g} "
                f"of its standard deviation{told}; {where}",
                f"at most {wrong.limit:.2g}, {NOISE_FACTOR:g} times what rounding explains",
                "Give that layer more bits; keep it float: {float_layers=NAME}; for values of unlike size, an output for each",
            )

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for report.json."""
        return {
            "output_deviation": [round(one.value, 5) for one in self.outputs],
            "layer_deviation": {one.name: round(one.value, 5) for one in self.layers},
            "first_deviating_layer": self.first_deviating_layer,
        }


def deviation(name: str, given: np.ndarray, expected: np.ndarray, limit: float = LIMIT, is_output: bool = False) -> Deviation:
    """Compares values; where the expected ones are nearly constant, a twentieth of their largest is the yardstick.

    Args:
        name: Of the values.
        given: What the file gives.
        expected: What it should give.
        limit: See `Deviation`.
        is_output: Whether these are an output's values, whose leading class matters.
    """
    if given.shape != expected.shape and given.size == expected.size:
        given = given.reshape(expected.shape)
    if given.shape != expected.shape or not np.all(np.isfinite(given)):
        return Deviation(name, float("inf"), limit)
    spread = _spread(expected)
    agreement = _clear_agreement(given, expected, CLEAR_MARGIN * limit * spread / NOISE_FACTOR) if is_output else None
    return Deviation(name, float(np.abs(given - expected).mean()) / spread, limit, agreement)


def _spread(values: np.ndarray) -> float:
    return max(float(values.std()), 0.05 * float(np.abs(values).max(initial=0.0))) or 1.0


def _clear_agreement(given: np.ndarray, expected: np.ndarray, margin: float) -> Optional[float]:
    if expected.ndim < 2 or expected.shape[-1] < 2:
        return None
    ranked = np.sort(expected, axis=-1)
    clear = ranked[..., -1] - ranked[..., -2] > margin
    if np.count_nonzero(clear) < CLEAR_SAMPLES:
        return None
    return float((given.argmax(-1) == expected.argmax(-1))[clear].mean())


def knows_outputs(bundle: Bundle) -> bool:
    """Returns whether ``check/`` holds outputs of a Keras model; that of `xaic slim`, which has none, does not."""
    kept = bundle.check / "expected.npz"
    return kept.is_file() and (bundle.check / "inputs.npz").is_file() and "keras0" in Npz(kept)


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
    if len(given) != len(expected):
        raise EdgeError(f"{path.name} has {len(given)} outputs, the Keras model has {len(expected)}", "the same outputs")
    layers, limit = _layers(bundle, path, interpreter, inputs)
    ports = bundle.ports()
    known = ports[1] if ports is not None and len(ports[1]) == len(given) else range(len(given))
    names = [f"output {name}" for name in known]
    outputs = [deviation(name, a, b, limit, is_output=True) for name, a, b in zip(names, given, expected)]
    task = task_of(BundleFacts(bundle).kit)
    tasks = task.tasks if isinstance(task, Tasks) else (task,)
    for number, (one, a, b) in enumerate(zip(tasks, given, expected)):
        if one is not None and one.counts_each(b.shape[-1]) and outputs[number].is_small:
            worst = max(_columns(names[number], a, b), key=lambda column: column.value, default=outputs[number])
            outputs[number] = outputs[number] if worst.is_small else worst
    return Agreement(interpreter, tuple(outputs), layers)


def _columns(name: str, given: np.ndarray, expected: np.ndarray) -> list[Deviation]:
    """Returns how each of the values deviates that stand side by side in an output: a common scale may ruin the small ones."""
    width = expected.shape[-1] if expected.ndim > 1 else 1
    sides = zip(given.reshape(-1, width).T, expected.reshape(-1, width).T)
    return [deviation(f"value {number} of {name}", a, b) for number, (a, b) in enumerate(sides)] if width > 1 else []


def _layers(
    bundle: Bundle, path: pathlib.Path, interpreter: str, inputs: Sequence[np.ndarray]
) -> tuple[tuple[Deviation, ...], float]:
    """Returns how the layers deviate, as far as the file has the operators of the float one, and the limit of the outputs."""
    kept = bundle.check / "layers.npz"
    if not kept.is_file():
        return (), LIMIT
    expected = dict(Npz(kept))
    count = len(next(iter(expected.values())))
    samples = [array[:count] for array in inputs]
    given = run_layers(path, samples, interpreter=interpreter)
    scales = inner_scales(path)
    noise = [_rounding(scale, array) for scale, array in zip(scales.inputs, samples)]
    steps = scales.layers
    if len(given) == len(expected):
        steps = tuple(min(scale, _coarsest(values)) for scale, values in zip(steps, expected.values()))
    noise += [_rounding(scale, values) + WEIGHT_NOISE**2 for scale, values in zip(steps, given)]
    limits = np.minimum(LIMIT, NOISE_FACTOR * np.sqrt(np.cumsum(noise)))
    if len(given) != len(expected):
        return (), float(limits[-1])
    named = zip(expected.items(), given, limits[len(inputs) :])
    return tuple(deviation(name.split(" ", 1)[1], a, b, float(limit)) for (name, b), a, limit in named), float(limits[-1])


def _coarsest(values: np.ndarray) -> float:
    """Returns the largest scale that values explain: 8 bits for a range that is `RANGE_FACTOR` times theirs."""
    extent = max(float(values.max(initial=0.0)), 0.0) - min(float(values.min(initial=0.0)), 0.0)
    return RANGE_FACTOR * extent / 255.0


def _rounding(scale: float, values: np.ndarray) -> float:
    """Returns the mean squared error of values that are rounded to steps of `scale`, in units of their variance."""
    return (scale / _spread(values)) ** 2 / 12 if np.any(values) else 0.0


def _numbered(path: pathlib.Path, prefix: str) -> list[np.ndarray]:
    arrays = Npz(path, f"{prefix}0, {prefix}1, ... as `xaic compress` writes them")
    found = [arrays[f"{prefix}{i}"] for i in range(len(arrays)) if f"{prefix}{i}" in arrays]
    if not found:
        raise DataError(f"{path} has no {prefix}0", arrays.expected)
    return found
