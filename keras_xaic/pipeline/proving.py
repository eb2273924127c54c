"""What a bundle can only hold after its own files have run: expected outputs, and the arena."""

from __future__ import annotations

from typing import Optional

from keras_xaic import edge, tflite
from keras_xaic.bundle import Bundle
from keras_xaic.errors import EdgeError
from keras_xaic.files import save_arrays
from keras_xaic.npz import Npz


def prove(bundle: Bundle) -> None:
    """Runs the bundle's files on every interpreter that is installed; what is wrong marks the bundle as unverified.

    Raises:
        EdgeError: The first trouble: an interpreter refused, crashed, hung or disagreed with the Keras model.
    """
    bundle.mark("It was not run yet.")
    try:
        add_expected_outputs(bundle)
        check_agreement(bundle)
        _, trouble = measure_micro_arena(bundle)
        if trouble is not None:
            raise EdgeError(trouble)
    except EdgeError as error:
        bundle.mark(str(error))
        raise
    bundle.mark(None)


def check_agreement(bundle: Bundle) -> dict[str, edge.Agreement]:
    """Compares the bundle's files with the Keras model on every interpreter that is installed.

    Raises:
        EdgeError: If one disagrees, naming the first layer that does.
    """
    micro, found = bundle.micro / "model.tflite", {}
    for name in edge.available_interpreters():
        path = micro if name == "tflm" else bundle.model
        if name == "builtin-ref" or not path.is_file():  # the reference kernels refuse int4, and tflm matches them
            continue
        found[name] = edge.measure_agreement(bundle, name, path)
        found[name].require(path.name if path == bundle.model else f"micro/{path.name}")
    return found


def add_expected_outputs(bundle: Bundle) -> None:
    """Adds what `model.tflite` itself answers on the interpreter that judges to ``check/expected.npz``, as y0, y1, ..."""
    inputs, expected = bundle.check / "inputs.npz", bundle.check / "expected.npz"
    arrays, answers = Npz(inputs), dict(Npz(expected))
    samples = [arrays[f"x{i}"] for i in range(len(arrays))]
    outputs = edge.run_file(bundle.model, samples if len(samples) > 1 else samples[0]).outputs
    save_arrays(expected, {**answers, **{f"y{i}": output for i, output in enumerate(outputs)}})


def measure_micro_arena(bundle: Bundle) -> tuple[Optional[int], Optional[str]]:
    """Measures the arena of ``micro/model.tflite`` by bisection and writes it into ``micro/README.md``.

    Returns:
        Bytes, or None if there is no such file or TensorFlow Lite Micro is not installed or refuses it; and what it said
        in that last case.
    """
    model = bundle.micro / "model.tflite"
    if not model.is_file() or "tflm" not in edge.available_interpreters():
        return None, None
    try:
        arena = edge.measure_arena(model).minimum
    except EdgeError as error:
        return None, f"The arena could not be measured, micro/ is unproved. {error}"
    tflite.write_micro(bundle.micro, model.read_bytes(), arena_bytes=arena)
    return arena, None
