"""What `xaic plan` does: a plan, what its file weighs, and how good it is before any training."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Union

from keras_xaic.arguments import an, checked, this_or_path
from keras_xaic.data import Data
from keras_xaic.errors import XaicWarning
from keras_xaic.files import PathLike, tells_machine_errors
from keras_xaic.pipeline.inputs import check_names, load, load_both
from keras_xaic.pipeline.micro_check import known_target
from keras_xaic.pipeline.pacing import Pace, check_pace
from keras_xaic.pipeline.size_fitting import LATE, SizeFitter, noise_for, predict_accuracy
from keras_xaic.planning import Budget, Plan
from keras_xaic.planning.plan import check_place
from keras_xaic.progress import Progress, silent
from keras_xaic.recipes import RecipeLike, get_recipe
from keras_xaic.relevance import Relevance
from keras_xaic.report.wording import decimals
from keras_xaic.settings import DataOptions, Device
from keras_xaic.temporary import temporary_directory
from keras_xaic.tflite import PRECISION_OF
from keras_xaic.units import format_bytes
from keras_xaic.usual import in_usual_keras

if TYPE_CHECKING:
    from keras_xaic._keras import Model


@dataclass(frozen=True)
class Preview:
    """A plan, and what it does before any training.

    Attributes:
        plan: The plan; its predicted sizes are those of the file that it makes of the untrained model.
        original: How good the original is on validation data (see `predict_accuracy`); None without data.
        untrained: How good the planned model is there before training.
        without_micro: Why TensorFlow Lite Micro cannot run the model, and what would help; None where it can.
    """

    plan: Plan
    original: Optional[float] = None
    untrained: Optional[float] = None
    without_micro: Optional[str] = None


@tells_machine_errors
@checked(
    budget=an(Budget, words="a Budget, e.g. Budget(flash='48kB')"), options=an(DataOptions), relevance=this_or_path(Relevance)
)
@in_usual_keras
def plan(
    model: Union[Model, PathLike],
    relevance: Union[Relevance, PathLike],
    budget: Optional[Budget] = None,
    *,
    recipe: RecipeLike = "auto",
    data: Any = None,
    options: Optional[DataOptions] = None,
    seed: int = 0,
    out: Optional[PathLike] = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Plan:
    """Returns what each layer should get so that the model fits the budget with the least predicted damage; nothing is trained.

    The plan is what `keras_xaic.compress` would carry out; its predicted sizes are those of a file that is written from the
    untrained model.

    >>> from keras_xaic._keras import keras, layers
    >>> from keras_xaic.relevance.magnitude import magnitude
    >>> body, head = layers.Dense(16, "relu", name="body"), layers.Dense(3, "softmax", name="head")
    >>> model = keras.Sequential([keras.Input((8,)), body, head])
    >>> made = plan(model, magnitude(model), Budget(mean_bits=5.0))
    >>> made.mean_bits <= 5.0, [layer.key for layer in made.layers]
    (True, ['body', 'head'])

    Args:
        model: A `keras.Model`, or the path of one.
        relevance: Its relevance, the ``relevance.npz`` that holds it, or the directory that `keras_xaic.explain` wrote.
        budget: What may be spent. Limits that cannot be met are eased to the least that the recipe allows, that on flash first.
        recipe: The name of a recipe, a `Recipe`, or the path of one in JSON.
        data: Anything that `as_data` takes, or a path; None predicts what bit-widths do from relevance alone.
        options: How data and model are read.
        seed: Chooses samples; written into the plan.
        out: A file to write the plan to.
        overwrite: Replace a plan that is there already.
        progress: Told how far the work is.

    Raises:
        XaicError: Of the kind that fits what is wrong, e.g. a relevance that is not that of this model.
    """
    options = options or DataOptions()
    if out is not None:
        check_place(out, overwrite, inputs=[model, relevance, data])
    loaded, scores, samples_of = _loaded(model, relevance, data, options)
    samples = None if samples_of is None else samples_of.calibration(options.calibration, seed)
    chosen, budget = get_recipe(recipe), budget or Budget()
    check_names(loaded, chosen)
    check_pace(budget, Device())
    calibration = noise_for(loaded).train if samples is None else samples
    with temporary_directory() as folder:
        how: dict[str, Any] = {"pace": Pace(loaded, calibration, folder / "int8.tflite"), "seed": seed, "progress": progress}
        made = SizeFitter(loaded, scores, chosen, samples_of, samples, **how).fitting(budget)
    _say_missed(made, budget)
    if out is not None:
        check_place(out, overwrite, inputs=[model, relevance, data])  # what came there meanwhile is not replaced either
        made.save(out)
    return made


@in_usual_keras
def preview(
    model: Union[Model, PathLike],
    relevance: Union[Relevance, PathLike],
    *,
    data: Any = None,
    options: Optional[DataOptions] = None,
    out: Optional[PathLike] = None,
    overwrite: bool = False,
    **how: Any,
) -> Preview:
    """Plans as `plan` does, and measures what the planned model does before any training; takes the same arguments."""
    options = options or DataOptions()
    if out is not None:
        check_place(out, overwrite, inputs=[model, relevance, data])
    loaded, scores, samples_of = _loaded(model, relevance, data, options)
    made = plan(loaded, scores, data=samples_of, options=options, out=out, overwrite=overwrite, **how)
    samples = None if samples_of is None else samples_of.calibration(options.calibration, made.seed)
    _, without = known_target("both", loaded, samples, PRECISION_OF[made.activations])
    if samples_of is None:
        return Preview(made, without_micro=without)
    original, untrained = predict_accuracy(loaded, made, scores, samples_of, options.calibration)
    return Preview(made, original, untrained, without)


def _loaded(
    model: Union[Model, PathLike], relevance: Union[Relevance, PathLike], data: Any, options: DataOptions
) -> tuple[Model, Relevance, Optional[Data]]:
    scores = relevance if isinstance(relevance, Relevance) else Relevance.load(relevance)
    if data is None:
        return load(model, options), scores, None
    loaded, samples_of, _ = load_both(model, data, options)
    return loaded, scores, samples_of


def _say_missed(made: Plan, budget: Budget) -> None:
    """Warns of limits that the plan could not keep."""
    sizes = (
        ("flash", made.predicted_flash_bytes, budget.flash_bytes),
        ("download", made.predicted_download_bytes, budget.download_bytes),
        ("ram", made.predicted_ram_bytes, budget.ram_bytes),
    )
    missed = [
        f"{name} is {format_bytes(size)}, its limit {format_bytes(limit)}"
        for name, size, limit in sizes
        if size is not None and limit is not None and size > limit
    ]
    slowdown = budget.max_slowdown
    if slowdown is not None and made.predicted_slowdown is not None and made.predicted_slowdown > (1 + LATE) * slowdown:
        times = decimals(made.predicted_slowdown, slowdown)
        missed.append(f"time is {times} times plain int8's, its limit {slowdown:g} times")
    if budget.mean_bits is not None and made.mean_bits > budget.mean_bits + 1e-9:
        missed.append(f"mean bits are {decimals(made.mean_bits, budget.mean_bits)}, their limit {budget.mean_bits:g}")
    if missed:
        said = f"No plan of this recipe keeps the budget: {'; '.join(missed)}. This is the nearest one."
        warnings.warn(said, XaicWarning, stacklevel=2)
