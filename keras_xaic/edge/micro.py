"""Whether TensorFlow Lite Micro can run a file at all."""

from __future__ import annotations

import pathlib
from typing import Optional

from keras_xaic.edge.inspect_file import read_file
from keras_xaic.edge.installed import available_interpreters
from keras_xaic.edge.operators import NOT_ON_MICRO
from keras_xaic.edge.running import try_file
from keras_xaic.errors import EdgeError
from keras_xaic.files import PathLike


def micro_refusal(path: PathLike) -> Optional[str]:
    """Returns why TensorFlow Lite Micro cannot run a file, as the end of a sentence; None where it can.

    It is tried where it is installed; where it is not, operators that it lacks are all that can be told.

    Args:
        path: The .tflite file.

    Raises:
        DataError: If there is no such file.
    """
    graphs = read_file(path).graphs
    lacking = sorted({operator.name for graph in graphs for operator in graph.operators} & NOT_ON_MICRO)
    reason = f"it has no operator {' and no '.join(lacking)}" if lacking else None
    if "tflm" not in available_interpreters():
        return reason
    try:
        try_file(path, "tflm")
    except EdgeError as error:
        return reason or error.found.replace(f" {pathlib.Path(path).name}", "")
    return None
