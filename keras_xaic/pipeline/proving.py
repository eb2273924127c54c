"""What a bundle can only hold after its own files have run: expected outputs, and the arena."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Optional

from keras_xaic import edge, tflite
from keras_xaic.bundle import Bundle
from keras_xaic.errors import EdgeError
from keras_xaic.files import save_arrays
from keras_xaic.npz import Npz
from keras_xaic.pipeline.micro_check import INSTEAD, WORKS, cannot

MICRO = "tflm"


@dataclass(frozen=True)
class MicroProof:
    """What TensorFlow Lite Micro made of its part of a bundle.

    Attributes:
        arena_bytes: Smallest arena; None where nothing was run.
        agreement: With the Keras model; None where nothing was run.
        warning: What a user should know; None for nothing.
    """

    arena_bytes: Optional[int] = None
    agreement: Optional[edge.Agreement] = None
    warning: Optional[str] = None


def prove(bundle: Bundle, target: tflite.Target = "both", warn: Callable[[str], None] = warnings.warn) -> None:
    """Runs the bundle's files on every interpreter that is installed; what is wrong marks the bundle as unverified.

    Args:
        bundle: The bundle.
        target: What it is made for; see `prove_micro`.
        warn: Told what a user should know.

    Raises:
        EdgeError: The first error: an interpreter refused, crashed, hung or disagreed with the Keras model.
    """
    bundle.mark("It was not run yet.")
    try:
        proof = prove_micro(bundle, target)
        add_expected_outputs(bundle)
        check_agreement(bundle)
    except EdgeError as error:
        bundle.mark(str(error))
        raise
    bundle.mark(None)
    for warning in filter(None, (proof.warning, state_warning(bundle))):
        warn(warning)


def prove_micro(bundle: Bundle, target: tflite.Target) -> MicroProof:
    """Runs ``micro/model.tflite``, measures its arena and writes that into ``micro/README.md``.

    Where TensorFlow Lite Micro cannot run it and the target is ``both``, ``micro/`` is taken away again: the rest of the bundle
    is good without it.

    Raises:
        EdgeError: If TensorFlow Lite Micro refuses, crashes, hangs or disagrees, and the bundle is for nothing else.
    """
    if not (bundle.micro / "model.tflite").is_file():
        return MicroProof()
    try:
        refusal = edge.micro_refusal(bundle.micro / "model.tflite")
        if refusal is not None:
            raise EdgeError(cannot(refusal), "", WORKS if target == "micro" else INSTEAD)
        arena = measure_micro_arena(bundle)
        if arena is None:
            how = edge.REGISTRY[MICRO].install
            return MicroProof(warning=f"micro/ was not run: TensorFlow Lite Micro is not installed. To run it: {how}.")
        (agreement,) = check_agreement(bundle, [MICRO]).values()
    except edge.UnusableInterpreter as error:
        return MicroProof(warning=f"micro/ was not run: {error}")
    except EdgeError as error:
        if target == "micro":
            raise
        shutil.rmtree(bundle.micro)
        return MicroProof(warning=tflite.without_micro(error.found, error.fix or INSTEAD))
    return MicroProof(arena, agreement)


def state_warning(bundle: Bundle) -> Optional[str]:
    """Returns what to know about a file that remembers earlier calls; None for others."""
    if not edge.read_file(bundle.model).keeps_state:
        return None
    return (
        "model.tflite keeps a state between calls, as recurrent layers do: reset it before every new sequence "
        "(reset_all_variables() in Python, ResetVariableTensors() in C++, Reset() on TensorFlow Lite Micro)."
    )


def check_agreement(bundle: Bundle, interpreters: Optional[Iterable[str]] = None) -> dict[str, edge.Agreement]:
    """Compares the bundle's files with the Keras model.

    Args:
        bundle: The bundle.
        interpreters: On which interpreters; None: those that are installed and run ``model.tflite`` on devices.

    Raises:
        EdgeError: If one disagrees, naming the first layer that does.
    """
    found = {}
    for name in edge.deployed_interpreters() if interpreters is None else interpreters:
        if name == MICRO and interpreters is None:
            continue
        path = bundle.micro / "model.tflite" if name == MICRO else bundle.model
        found[name] = edge.measure_agreement(bundle, name, path)
        found[name].require(path.relative_to(bundle.path).as_posix())
    return found


def add_expected_outputs(bundle: Bundle) -> None:
    """Adds the outputs of `model.tflite` itself on the interpreter that judges to ``check/expected.npz``, as y0, y1, ..."""
    inputs, expected = bundle.check / "inputs.npz", bundle.check / "expected.npz"
    arrays, answers = Npz(inputs), dict(Npz(expected))
    samples = [arrays[f"x{i}"] for i in range(len(arrays))]
    outputs = edge.run_file(bundle.model, samples if len(samples) > 1 else samples[0]).outputs
    save_arrays(expected, {**answers, **{f"y{i}": output for i, output in enumerate(outputs)}})


def measure_micro_arena(bundle: Bundle) -> Optional[int]:
    """Measures the arena of ``micro/model.tflite`` and writes it into ``micro/README.md``.

    Returns:
        Bytes, or None if there is no such file or TensorFlow Lite Micro is not installed.

    Raises:
        EdgeError: If it refuses, crashes or hangs.
    """
    model = bundle.micro / "model.tflite"
    if not model.is_file() or MICRO not in edge.available_interpreters():
        return None
    arena = edge.measure_arena(model).minimum
    tflite.write_micro(bundle.micro, model.read_bytes(), arena_bytes=arena, names=bundle.ports())
    return arena
