"""Writing a bundle: everything that is sent to a device, and what is needed to check it there."""

from __future__ import annotations

from typing import Any, Literal

from keras_xaic.bundle import Bundle, PathLike, atomic_directory, check_target
from keras_xaic.errors import ExportError
from keras_xaic.grids import save_kernels
from keras_xaic.models.loading import save_model
from keras_xaic.tflite.build import as_compressed, build_tflite
from keras_xaic.tflite.check_kit import write_check
from keras_xaic.tflite.container import pack_download
from keras_xaic.tflite.convert import Calibration, InputOutput, calibration_arrays
from keras_xaic.tflite.decode import LARGEST_DECODED, compress_for_micro
from keras_xaic.tflite.micro_kit import write_micro

Target = Literal["mobile", "micro", "both"]


def export(
    small: Any,
    out: PathLike,
    *,
    calibration: Calibration,
    target: Target = "both",
    io: InputOutput = "int8",
    signature: bool = False,
    largest_decoded: int = LARGEST_DECODED,
    overwrite: bool = False,
) -> Bundle:
    """Writes the bundle of a compressed model; the directory appears whole or not at all.

    Args:
        small: What `compress` returns, or a Keras model (plain int8 then).
        out: The directory.
        calibration: Inputs that set the activation ranges, as the model takes them: (N, ...), or one array per input. The
            first of them become the samples of ``check/``.
        target: ``mobile`` leaves ``micro/`` away. ``model.tflite`` is always there.
        io: Whether ``model.tflite`` takes and gives int8 codes or float32 values; the file in ``micro/`` is always int8.
        signature: Whether ``model.tflite`` names its inputs and outputs.
        largest_decoded: Bytes of RAM that ``micro/`` may spend on unpacking one layer's weights (see `compress_for_micro`); 0
            leaves all weights as in ``model.tflite``.
        overwrite: Whether what is at `out` may be replaced.

    Returns:
        The bundle, not yet verified on any interpreter.

    Raises:
        DataError: If the calibration data does not fit the model.
        ExportError: If `out` may not be written, or, naming the layer, if something cannot be written exactly.
    """
    if target not in ("mobile", "micro", "both"):
        raise ExportError(f"target {target!r}", "mobile, micro or both")
    directory = check_target(out, overwrite)
    compressed = as_compressed(small)
    arrays = calibration_arrays(compressed.model, calibration)
    content = build_tflite(compressed, arrays, io, signature=signature)
    with atomic_directory(directory) as scratch:
        bundle = Bundle(scratch)
        bundle.model.write_bytes(content)
        bundle.download.write_bytes(pack_download(content))
        save_model(compressed.model, bundle.keras_model)
        save_kernels(compressed.kernels, bundle.grids)
        if compressed.plan is not None:
            compressed.plan.save(bundle.plan)
        if target != "mobile":
            plain = content if io == "int8" and not signature else build_tflite(compressed, arrays)
            write_micro(bundle.micro, compress_for_micro(plain, largest_decoded).content)
        write_check(bundle.check, compressed.model, arrays)
    return Bundle(directory)
