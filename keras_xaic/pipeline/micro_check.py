"""Whether TensorFlow Lite Micro will be able to run a model: found out on the untrained original, before any long work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from keras_xaic import edge, tflite
from keras_xaic.errors import EdgeError, ExportError
from keras_xaic.models import canonicalize
from keras_xaic.temporary import temporary_directory
from keras_xaic.tflite import Precision, Target

if TYPE_CHECKING:
    from keras_xaic._keras import Model
    from keras_xaic.data import Samples

WORKS = "The target mobile works: {target=mobile}; replace these layers"
INSTEAD = "Replace these layers to run the model on microcontrollers; for everything else the bundle is complete"


def cannot(reason: str) -> str:
    """Returns the sentence for a reason that `keras_xaic.edge.micro_refusal` gives."""
    return f"TensorFlow Lite Micro cannot run this model: {reason}"


def micro_refusal(model: Model, samples: Optional[Samples] = None, precision: Precision = "int8") -> Optional[str]:
    """Returns why TensorFlow Lite Micro cannot run a model, as the end of a sentence; None where it can.

    The model is written as it will be, and that file is run. What cannot be written is not judged here.

    Args:
        model: The Keras model.
        samples: Calibration data; None looks at the float32 form of the model.
        precision: What the file will compute with.
    """
    try:
        if samples is None:
            content = tflite.float_twin(canonicalize(model).model)
        else:
            content = tflite.build_tflite(model, samples, precision=precision, lookup=False)
    except ExportError:
        return None
    with temporary_directory() as scratch:
        path = scratch / "model.tflite"
        path.write_bytes(content)
        return edge.micro_refusal(path)


def known_target(
    target: Target, model: Model, samples: Optional[Samples], precision: Precision, required: bool = False
) -> tuple[Target, Optional[str]]:
    """Returns the target that can be reached, and what to say where that is less than `target`.

    Args:
        target: What is asked for.
        model: The Keras model.
        samples: Calibration data.
        precision: What the file will compute with.
        required: Whether TensorFlow Lite Micro is needed though the target is ``both``.

    Raises:
        EdgeError: If TensorFlow Lite Micro cannot run the model and has to.
    """
    reachable = tflite.reachable_target(target, precision)
    if reachable != target:
        return reachable, tflite.precision_without_micro(precision)
    if target == "mobile":
        return target, None
    reason = micro_refusal(model, samples, precision)
    if reason is None:
        return target, None
    if target == "micro" or required:
        raise EdgeError(cannot(reason), "", WORKS)
    return "mobile", tflite.without_micro(cannot(reason), INSTEAD)
