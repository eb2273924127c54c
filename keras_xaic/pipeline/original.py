"""The model that came in, measured on the samples that judge: as Keras model, and as float32 .tflite."""

from __future__ import annotations

import gzip
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from keras_xaic import tflite
from keras_xaic.data import Data, Parts
from keras_xaic.errors import EdgeError
from keras_xaic.files import save_array, save_arrays, write_atomic
from keras_xaic.models import canonicalize
from keras_xaic.models.masking import said_of_masks
from keras_xaic.npz import Npz
from keras_xaic.output_tasks import AnyTask
from keras_xaic.pipeline.judging import check_numbers_of
from keras_xaic.pipeline.measuring import Measuring
from keras_xaic.pipeline.reference import faulty_original
from keras_xaic.pipeline.reporting import metric_facts
from keras_xaic.pipeline.workspace import Workspace
from keras_xaic.training import predict

if TYPE_CHECKING:
    from keras_xaic._keras import Model

FILE = "original.tflite"
"""Name of its float32 file in the workspace."""


@dataclass(frozen=True)
class Original:
    """What was measured of the model that came in.

    Attributes:
        outputs: (N, ...) what it gives for the samples that judge, `Parts` of several outputs.
        facts: What report.json says of it.
        fault: What is wrong with its float32 file, against which drops are not measured then; None for nothing.
        doubts: What a user should know of the model and the data before anything is compressed.
    """

    outputs: Any
    facts: Mapping[str, Any]
    fault: Optional[str]
    doubts: tuple[str, ...]


def measure_original(model: Model, data: Data, task: AnyTask, work: Workspace) -> Original:
    """Measures the model that came in; what was measured before is found in the workspace.

    Raises:
        DataError: If it gives values that are not finite.
    """
    test = data.judging
    save, load = (_save_parts, _load_parts) if len(model.outputs) > 1 else (lambda a, p: save_array(p, a), np.load)
    name = "original.npz" if len(model.outputs) > 1 else "original.npy"
    outputs: Any = work.cached(name, lambda: predict(model, test), save, load, of="test data")
    check_numbers_of(outputs, range(len(test)), "x_train" if data.test is None else "x_test")
    path, canonical = work.path / FILE, canonicalize(model).model
    content = work.cached(FILE, lambda: tflite.float_twin(canonical), _write, pathlib.Path.read_bytes, of="model")
    if not path.exists():
        write_atomic(path, content)
    judge: Any = task
    doubt = None if test.y is None else judge.doubt(outputs, test.y)
    doubts = tuple(filter(None, (doubt, said_of_masks(model, task, test))))
    facts = {
        **metric_facts(task, "keras", judge.value(outputs, test)),
        "tflite_fp32_bytes": len(content),
        "tflite_fp32_gzip_bytes": len(gzip.compress(content, 9, mtime=0)),
    }
    measuring = Measuring(test, task, work.progress)
    try:
        given = measuring.run(path, "original")
    except EdgeError as error:  # the user deploys another file, which may well run
        said = f"The original's float32 .tflite does not run: {error}. The drop is measured against the Keras model."
        return Original(outputs, {**facts, **metric_facts(task, "edge", None), "latency_ms": {}}, said, doubts)
    fault = faulty_original(canonical, path, test, outputs, given.together, given.interpreter)
    return Original(outputs, {**facts, **measuring.facts(given)}, fault, doubts)


def _write(content: bytes, path: pathlib.Path) -> None:
    write_atomic(path, content)


def _save_parts(parts: Parts, path: pathlib.Path) -> None:
    save_arrays(path, {f"{number:03d} {parts.named(number)}": array for number, array in enumerate(parts.arrays)})


def _load_parts(path: pathlib.Path) -> Parts:
    kept = Npz(path)
    return Parts([kept[key] for key in sorted(kept)], [key.split(" ", 1)[1] for key in sorted(kept)])
