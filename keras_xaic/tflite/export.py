"""Writing a bundle: everything that is sent to a device, and what is needed to check it there."""

from __future__ import annotations

import pathlib
import shutil
import warnings
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Literal, Optional, Union

from keras_xaic.bundle import Bundle
from keras_xaic.data import Samples
from keras_xaic.device_files import write_decoder
from keras_xaic.errors import ExportError
from keras_xaic.files import PathLike, save_arrays, tells_machine_errors, write_atomic
from keras_xaic.grids import save_kernels
from keras_xaic.models.loading import save_model
from keras_xaic.models.ports import ports_of
from keras_xaic.ownership import output
from keras_xaic.settings import FileOptions
from keras_xaic.tflite.build import Compressed, as_compressed, build_file, may_look_up, planned_precision, source_of
from keras_xaic.tflite.check_kit import write_check
from keras_xaic.tflite.container import pack_download
from keras_xaic.tflite.convert import Calibration, calibration_arrays
from keras_xaic.tflite.converter import Precision, Wish
from keras_xaic.tflite.decode import LARGEST_DECODED, micro_file
from keras_xaic.tflite.flatbuffer import pack
from keras_xaic.tflite.int2 import with_int2
from keras_xaic.tflite.io_types import with_io
from keras_xaic.tflite.layer_outputs import layer_outputs
from keras_xaic.tflite.lookup import with_lookup
from keras_xaic.tflite.micro_kit import write_micro

if TYPE_CHECKING:
    from keras_xaic._keras import Model

Target = Literal["mobile", "micro", "both"]
NOT_FOR_MICRO: dict[Precision, str] = {"weight-only": "miscomputes", "float16": "refuses", "dynamic-range": "refuses"}
"""Precisions that TensorFlow Lite Micro does not run, and what it does with their files."""
_CALLED: dict[Precision, str] = {
    "weight-only": "float32 activations on integer weights",
    "float16": "weights in float16",
    "dynamic-range": "weights in int8 behind float32 activations",
}


def without_micro(reason: str, advice: str) -> str:
    """Returns what is said where the target ``both`` falls back to ``mobile``.

    Args:
        reason: Why TensorFlow Lite Micro cannot have the model, as the end of a sentence.
        advice: What would help.
    """
    return f"micro/ was not written: {reason.rstrip('.')}. {advice.rstrip('.')}."


def precision_without_micro(precision: Precision) -> str:
    """Returns what is said where files of a precision are not for TensorFlow Lite Micro (see `without_micro`)."""
    reason = f"TensorFlow Lite Micro {NOT_FOR_MICRO[precision]} {_CALLED[precision]}"
    return without_micro(reason, "Choose int8 activations for microcontrollers")


@tells_machine_errors
def export(
    small: Union[Model, Compressed],
    out: PathLike,
    *,
    calibration: Calibration,
    target: Target = "both",
    file: Optional[FileOptions] = None,
    precision: Optional[Precision] = None,
    float_layers: Collection[str] = (),
    largest_decoded: int = LARGEST_DECODED,
    warn: Callable[[str], None] = warnings.warn,
) -> Bundle:
    """Writes the bundle of a compressed model; the directory is written atomically.

    Args:
        small: What `compress` returns, or a Keras model (plain int8 weights then).
        out: The directory.
        calibration: Inputs that set the activation ranges, as the model takes them: (N, ...), or one array per input. The
            first of them become the samples of ``check/``.
        target: ``mobile`` leaves ``micro/`` out, and so does ``both`` where TensorFlow Lite Micro cannot have the model.
            ``model.tflite`` is always there.
        file: How ``model.tflite`` is written, but for metadata; the file in ``micro/`` takes what it computes with, and looks
            nothing up.
        precision: What the files compute with; TensorFlow Lite Micro runs ``int8``, ``int16`` and ``float32`` (see
            `build_tflite`). None: what the plan says.
        float_layers: Weight keys that stay float32 in an int8 or weight-only file.
        largest_decoded: Bytes of RAM that ``micro/`` may spend on unpacking one layer's weights (see `compress_for_micro`); 0
            leaves all weights as in ``model.tflite``.
        warn: Told why ``micro/`` is not there where the target is ``both``.

    Returns:
        The bundle, not yet verified on any interpreter.

    Raises:
        DataError: If the calibration data does not fit the model.
        ExportError: If `out` may not be written, or, naming the layer, if something cannot be written exactly.
    """
    if target not in ("mobile", "micro", "both"):
        raise ExportError(f"target {target!r}", "mobile, micro or both")
    compressed, file = as_compressed(small), file or FileOptions()
    precision = precision or planned_precision(compressed)
    reachable = reachable_target(target, precision)
    if reachable != target:
        warn(precision_without_micro(precision))
    with output(out, "bundle") as place:
        arrays = calibration_arrays(compressed.model, calibration)
        ports = ports_of(compressed.model)
        with place.fresh() as scratch, source_of(compressed, precision, arrays) as source:
            bundle = Bundle(scratch)
            built = build_file(compressed, source, Wish(precision), float_layers)
            written = with_int2(built) if file.int2 else built
            content = pack(with_lookup(written) if file.lookup and may_look_up(compressed) else written)
            content = content if file.inputs is None else with_io(content, file.inputs)
            write_atomic(bundle.model, content)
            write_atomic(bundle.download, pack_download(content))
            write_decoder(bundle.decoder)
            save_model(compressed.model, bundle.keras_model)
            save_kernels(compressed.kernels, bundle.grids)
            if compressed.plan is not None:
                compressed.plan.save(bundle.plan)
            if reachable != "mobile":
                try:
                    made = micro_file(built, largest_decoded if precision == "int8" else 0)
                    write_micro(bundle.micro, made.content, names=(ports.inputs, ports.outputs), model=made.model)
                except ExportError as error:
                    if target == "micro":
                        raise
                    shutil.rmtree(bundle.micro, ignore_errors=True)
                    warn(without_micro(error.found, "Replace this layer to run the model on microcontrollers"))
            write_check(bundle.check, compressed.model, arrays, calibration if isinstance(calibration, Samples) else None)
            save_arrays(bundle.check / "layers.npz", layer_outputs(compressed.model, source.floating, arrays))
    return Bundle(pathlib.Path(out))


def reachable_target(target: Target, precision: Precision) -> Target:
    """Returns the target that files of this precision can be written for: ``both`` may fall back to ``mobile``.

    Raises:
        ExportError: If TensorFlow Lite Micro cannot run them and they are meant for it.
    """
    if target == "both" and precision in NOT_FOR_MICRO:
        return "mobile"
    if target == "micro" and precision in NOT_FOR_MICRO:
        raise ExportError(
            f"precision {precision} for TensorFlow Lite Micro, which {NOT_FOR_MICRO[precision]} such files",
            "int8, int16 or float32",
            "Choose another precision or other activations, or the target mobile",
        )
    return target
