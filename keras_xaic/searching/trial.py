"""One trial of a search: plan, compress, write, and run the file on validation data."""

from __future__ import annotations

import functools
import pathlib
from dataclasses import dataclass
from typing import Any

from keras_xaic import edge, tflite
from keras_xaic.compression import CompressedModel, apply
from keras_xaic.data import Data
from keras_xaic.files import write_atomic
from keras_xaic.models import canonicalize
from keras_xaic.output_tasks import AnyTask
from keras_xaic.pipeline.inputs import check_judged, load_both
from keras_xaic.pipeline.process_state import seeded
from keras_xaic.planning import Budget, Plan, PlanOptions, plan
from keras_xaic.relevance import Relevance, attribute
from keras_xaic.settings import DataOptions, Training
from keras_xaic.temporary import temporary_directory
from keras_xaic.training import predict

SMALLEST = 0.1
"""The smallest budget that is tried, as a share of the plain int8 file."""


@dataclass(frozen=True)
class Setting:
    """What all trials share; plain values, so that it reaches other processes."""

    model: str
    data: str
    out: str
    training: Training
    options: DataOptions

    @property
    def seed(self) -> int:
        """The seed of every trial."""
        return self.training.seed or 0


@functools.lru_cache(maxsize=1)
def _parts(setting: Setting) -> tuple[Any, Data, AnyTask, Relevance]:
    model, data, task = load_both(setting.model, setting.data, setting.options)
    check_judged(task, data, setting.seed)
    samples = data.calibration(setting.options.calibration, setting.seed)
    return model, data, task, attribute(model, samples, target=task.explained(samples), allow_approximate=True)


def smallest_and_largest(setting: Setting) -> tuple[int, int]:
    """Returns the range of flash budgets: a tenth of the plain int8 file up to all of it."""
    model, data, _, _ = _parts(setting)
    plain = CompressedModel(canonicalize(model).model, {}, Plan(), {})
    size = len(tflite.build_tflite(plain, data.calibration(setting.options.calibration, setting.seed)))
    return max(1, round(SMALLEST * size)), size


def run_trial(setting: Setting, number: int, flash: int, zeros: float) -> tuple[float, float]:
    """Returns (bytes of the file, its metric value on validation data) and keeps file and plan.

    Args:
        setting: What all trials share.
        number: Number of the trial.
        flash: Flash budget in bytes.
        zeros: Sparsity of all kernels but depthwise ones.
    """
    model, data, task, relevance = _parts(setting)
    with seeded(setting.seed, deterministic=False):
        made = plan(model, relevance, Budget(flash=flash), PlanOptions(sparsity=zeros), seed=setting.seed)
        how: Any = {"training": setting.training, "calibration": setting.options.calibration}
        small = apply(model, made, data, relevance=relevance, **how)
    content = tflite.build_tflite(small, data.calibration(setting.options.calibration, setting.seed))
    directory = pathlib.Path(setting.out) / "trials" / str(number)
    directory.parent.mkdir(parents=True, exist_ok=True)
    _, held_back = data.split(seed=setting.seed)
    held_back = task.labelled(held_back, predict(model, held_back))
    with temporary_directory(directory.parent, directory.name) as scratch:
        new = scratch / "new"
        new.mkdir()
        made.save(new / "plan.json")
        write_atomic(new / "model.tflite", content)
        result = edge.run_file(new / "model.tflite", held_back.x, scale=held_back.scale, offset=held_back.offset)
        new.rename(directory)
    outputs: Any = result.together
    return float(len(content)), task.goodness(outputs, held_back)
