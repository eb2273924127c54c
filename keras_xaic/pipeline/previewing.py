"""What `xaic plan` does: a plan, what its file weighs, and how good it is before any training."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from keras_xaic.data import as_data
from keras_xaic.errors import DataError, XaicError
from keras_xaic.files import PathLike, tells_machine_errors
from keras_xaic.models import infer_task
from keras_xaic.ownership import check_file
from keras_xaic.pipeline.inputs import load
from keras_xaic.pipeline.micro_check import known_target
from keras_xaic.pipeline.size_fitting import SizeFitter, predict_accuracy
from keras_xaic.planning import Budget, Plan
from keras_xaic.progress import Progress, silent
from keras_xaic.recipes import RecipeLike, get_recipe
from keras_xaic.relevance import Relevance
from keras_xaic.tasks import with_task
from keras_xaic.tflite import PRECISION_OF


@dataclass(frozen=True)
class Preview:
    """A plan, and what it does before any training.

    Attributes:
        plan: The plan; its predicted sizes are those of the file that it makes of the untrained model.
        original: How good the original is on held-back training data (see `predict_accuracy`); None without data.
        untrained: How good the planned model is there before training.
        without_micro: Why TensorFlow Lite Micro cannot run the model, and what would help; None where it can.
    """

    plan: Plan
    original: Optional[float] = None
    untrained: Optional[float] = None
    without_micro: Optional[str] = None


@tells_machine_errors
def preview(
    model: Any,
    relevance: PathLike,
    out: PathLike,
    *,
    data: Any = None,
    recipe: RecipeLike = "auto",
    entries: Optional[Mapping[str, Any]] = None,
    budget: Optional[Budget] = None,
    calibration: int = 256,
    seed: int = 0,
    scale: float = 1.0,
    offset: float = 0.0,
    overwrite: bool = False,
    task: Optional[str] = None,
    allow_unsafe: bool = False,
    progress: Progress = silent,
) -> Preview:
    """Plans as `run` would, without training, and writes the plan to `out`.

    Args:
        model: A `keras.Model`, or the path of one.
        relevance: The directory that `explain` wrote, or its ``relevance.npz``.
        out: The file to write.
        data: Anything that `as_data` takes, or a path; None predicts what bit-widths do from relevance alone.
        recipe: The name of a recipe, a `Recipe`, or the path of one in JSON.
        entries: Entries of the recipe that are to be others (see `keras_xaic.recipes.Recipe`).
        budget: What may be spent.
        calibration: Number of training samples to measure on.
        seed: Chooses them; written into the plan.
        scale: The model sees ``x * scale + offset``.
        offset: See `scale`.
        overwrite: Replace a plan that is there already.
        task: Kind of the task (see `keras_xaic.compress`); None infers it.
        allow_unsafe: Load models with Lambda layers or pickled code.
        progress: Told how far the work is.

    Raises:
        XaicError: Of the kind that fits what is wrong.
    """
    chosen = get_recipe(recipe).changed(**dict(entries or {}))
    found = pathlib.Path(relevance)
    found = found / "relevance.npz" if found.is_dir() else found
    if not found.is_file():
        raise DataError(f"{found} does not exist", "the output of `xaic explain`")
    check_file(out, "a plan", _is_plan(out), overwrite, inputs=[model, found, data])
    data = None if data is None else as_data(data, scale, offset)
    loaded, scores = load(model, allow_unsafe, data), Relevance.load(found)
    if data is not None:
        data = with_task(data, infer_task(loaded, data, task))  # what does not fit is said before any work
    fitter = SizeFitter(
        loaded,
        scores,
        chosen,
        data,
        None if data is None else data.calibration(calibration, seed),
        seed=seed,
        progress=progress,
    )
    made = fitter.fitting(budget or Budget())
    made.save(out)
    samples = None if data is None else data.calibration(calibration, seed)
    _, without = known_target("both", loaded, samples, PRECISION_OF[made.activations])
    if data is None:
        return Preview(made, without_micro=without)
    original, untrained = predict_accuracy(loaded, made, scores, data, calibration)
    return Preview(made, original, untrained, without)


def _is_plan(path: PathLike) -> bool:
    try:
        Plan.load(path)
    except XaicError:
        return False
    return True
