"""The whole way in one call: attribute, plan, compress, export, verify, report; every finished step is kept."""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, Union, cast, get_args

from keras_xaic import edge, tflite
from keras_xaic._keras import keras, tf
from keras_xaic.bundle import Bundle
from keras_xaic.compression import CompressedModel
from keras_xaic.data import as_data
from keras_xaic.edge.marking import verify
from keras_xaic.errors import EdgeError, PlanError
from keras_xaic.files import PathLike, tells_machine_errors
from keras_xaic.models import infer_task
from keras_xaic.ownership import output
from keras_xaic.pipeline.activations import chosen_activations, wider_activations
from keras_xaic.pipeline.explaining import Explanation, explain
from keras_xaic.pipeline.inputs import load
from keras_xaic.pipeline.job import Job
from keras_xaic.pipeline.micro_check import known_target
from keras_xaic.pipeline.previewing import Preview, preview
from keras_xaic.pipeline.proving import prove
from keras_xaic.pipeline.workspace import Workspace, qualified_name, run_fingerprint
from keras_xaic.planning import Budget, Plan, check_plan
from keras_xaic.planning.storages import Activations
from keras_xaic.progress import Progress, silent
from keras_xaic.recipes import RECIPES, RecipeLike, get_recipe
from keras_xaic.relevance import Attribution
from keras_xaic.report import Report
from keras_xaic.tasks import with_task

EPOCHS = 10
"""Epochs where neither epochs nor minutes are given."""
MOST_EPOCHS = 120
"""Most epochs that are trained in however many minutes."""

__all__ = ["Explanation", "Preview", "compress", "explain", "export", "preview", "verify"]


@tells_machine_errors
def compress(
    model: Any,
    data: Any,
    *,
    recipe: RecipeLike = "auto",
    entries: Optional[Mapping[str, Any]] = None,
    budget: Optional[Budget] = None,
    plan: Any = None,
    activations: Optional[Activations] = None,
    out: PathLike = "compressed",
    epochs: Optional[int] = None,
    minutes: Optional[float] = None,
    seed: int = 0,
    target: str = "both",
    baselines: Sequence[str] = ("int8", "magnitude"),
    calibration: int = 256,
    interpreters: Union[str, Sequence[str]] = edge.AUTO,
    scale: float = 1.0,
    offset: float = 0.0,
    task: Optional[str] = None,
    metric: Optional[str] = None,
    overwrite: bool = False,
    allow_unsafe: bool = False,
    strict: bool = False,
    callbacks: Sequence[Any] = (),
    progress: Progress = silent,
) -> Report:
    """Compresses a model to a budget, writes the bundle and proves it on an edge interpreter.

    Finished steps are kept in ``OUT.partial``; the same call after an interruption continues there.

    Args:
        model: A `keras.Model`, or the path of one.
        data: Anything that `as_data` takes, or a path. Test data is never used to choose anything.
        recipe: The name of a recipe, a `Recipe`, or the path of one in JSON.
        entries: Entries of the recipe that are to be others (see `Recipe`), e.g. ``{"rule": "taylor", "pin": {"head": 8}}``.
        budget: What may be spent.
        plan: A `Plan`, or the path of one, that is carried out as it is (``xaic plan`` writes one; it may be edited); `recipe`
            and `budget` then only say what the report compares with.
        activations: Type of activations between layers: ``int8``, ``int16`` or ``float32`` (see `keras_xaic.plan`); None: the
            plan's, or int8, and `auto` takes a wider type where int8 cannot keep the accuracy. With ``float32`` the target
            ``both`` falls back to ``mobile``.
        out: Directory of the bundle.
        epochs: Passes over the training data, all stages together; None: 10, or as many as fit `minutes`.
        minutes: Time that training may take on this machine, baselines not counted; the same seed then no longer gives the same
            bytes.
        seed: One seed in, the same bytes out on the same machine.
        target: ``mobile``, ``micro`` or ``both``, which falls back to ``mobile`` where TensorFlow Lite Micro cannot run the
            model; that is found out before any long work.
        baselines: Names of recipes to compare with, trained for as many epochs.
        calibration: Number of training samples for relevance and activation ranges.
        interpreters: Edge interpreters to verify on beside the one that judges: names, ``all`` that are installed for
            users' devices, or ``auto`` for no other.
        scale: The model sees ``x * scale + offset``.
        offset: See `scale`.
        task: ``classification``, ``binary``, ``multi-label``, ``segmentation``, ``regression`` or ``reconstruction``; None:
            what the output, the model's loss and the targets say.
        metric: Name of the metric that chooses epochs and judges (see `keras_xaic.metrics`); None: the task's usual one.
        overwrite: Replace a bundle that is there already.
        allow_unsafe: Load models with Lambda layers or pickled code.
        strict: Refuse a model with layers that the recipe's attribution rule cannot treat, instead of passing relevance
            through them by the gradient, which the report says.
        callbacks: Your own Keras callbacks for the training of the compressed model, e.g. `keras.callbacks.TensorBoard`.
        progress: Told how far the work is.

    Returns:
        What `report.json` holds.

    Raises:
        XaicError: Of the kind that fits what is wrong, before any long work where that is possible.
    """
    parts = _target(target)
    chosen, others = get_recipe(recipe).changed(**dict(entries or {})), [get_recipe(name) for name in baselines]
    for other in others:
        if not other.comparable:
            known = ", ".join(name for name, one in RECIPES.items() if one.comparable)
            raise PlanError(f"recipe {other.name!r} is not a baseline", f"some of {known}")
    budget = budget or Budget()
    effort = EPOCHS if minutes is None else MOST_EPOCHS
    epochs = effort if epochs is None else epochs
    if minutes is not None and not minutes > 0:
        raise PlanError(f"minutes is {minutes}", "more than 0")
    given_files = [model, data, plan, *([recipe] if str(recipe).endswith(".json") else [])]
    with output(out, "bundle", overwrite=overwrite, inputs=given_files) as place:
        data = as_data(data, scale, offset)
        loaded = load(model, allow_unsafe, data, progress)
        does = infer_task(loaded, data, task, metric)
        data = with_task(data, does)
        progress("load", 1, 1)
        given = plan if plan is None or isinstance(plan, Plan) else Plan.load(plan)
        chosen = chosen.changed(activations=chosen_activations(activations, given, chosen, budget, parts, interpreters))
        if given is not None:
            check_plan(given, loaded)
            if chosen.rule is None:
                raise PlanError(f"recipe {chosen.name!r} takes no plan", "a recipe of ours, e.g. auto")
        if chosen.rule not in (None, "magnitude"):
            # Names layers that the rule cannot treat, before any long work.
            Attribution(loaded, rule=chosen.rule, allow_approximate=not strict)
        progress("micro", 0, 1, "can TensorFlow Lite Micro run it?")
        precision, samples = tflite.PRECISION_OF[chosen.activations], data.calibration(calibration, seed)
        reachable, warning = known_target(parts, loaded, samples, precision, required="tflm" in interpreters)
        progress("micro", 1, 1)
        settings = [chosen.to_json(), str(budget), epochs, seed, target, calibration, list(baselines), scale, offset]
        settings += [[qualified_name(one) for one in callbacks]]
        settings += [] if given is None else [given.model_dump_json()]
        settings += [] if minutes is None else [minutes]
        if place.start(run_fingerprint(loaded, data, settings)):
            return _published(Bundle(place.target))
        work = Workspace(place.work, progress)
        keras.utils.set_random_seed(seed)
        tf.config.experimental.enable_op_determinism()
        wider = wider_activations(chosen, budget, reachable, interpreters) if activations is None else ()
        how = (given, callbacks, minutes, wider)
        job = Job(loaded, data, does, chosen, budget, epochs, seed, calibration, work, *how)
        job.warnings = [] if warning is None else [warning]
        return job.run(place, reachable, others, interpreters)


def _published(bundle: Bundle) -> Report:
    """Returns the report of a bundle whose command was ended between giving it its name and cleaning up."""
    if bundle.unverified.is_file():
        raise EdgeError(bundle.unverified.read_text(encoding="utf-8").strip())
    return Report.load(bundle.report)


@tells_machine_errors
def export(
    model: Any,
    data: Any,
    out: PathLike,
    *,
    target: str = "both",
    precision: Optional[tflite.Precision] = None,
    float_layers: Sequence[str] = (),
    lookup: bool = True,
    calibration: int = 256,
    seed: int = 0,
    scale: float = 1.0,
    offset: float = 0.0,
    task: Optional[str] = None,
    metric: Optional[str] = None,
    overwrite: bool = False,
    allow_unsafe: bool = False,
    warn: Callable[[str], None] = warnings.warn,
) -> Bundle:
    """Writes the bundle of a model that is compressed already, and proves it on the interpreters that are installed.

    Args:
        model: A Keras model or its path, or a bundle, whose grids are kept.
        data: Anything that `as_data` takes, or a path; calibrates activation ranges.
        out: Directory of the bundle.
        target: ``mobile``, ``micro`` or ``both``.
        precision: What the files compute with (see `keras_xaic.tflite.Precision`); None: what the bundle's plan says.
        float_layers: Weight keys that stay float32 in an int8 or weight-only file.
        lookup: Whether 2-bit weights may lie four to a byte (see `keras_xaic.tflite.look_up`); delegates want them plain.
        calibration: Number of training samples for activation ranges.
        seed: Chooses them.
        scale: The model sees ``x * scale + offset``.
        offset: See `scale`.
        task: As for `run`; the bundle remembers it.
        metric: As for `run`.
        overwrite: Replace a bundle that is there already.
        allow_unsafe: Load models with Lambda layers or pickled code.
        warn: Told what a user should know, e.g. why ``micro/`` is not there where the target is ``both``.

    Returns:
        The bundle.

    Raises:
        EdgeError: If an interpreter refuses, crashes, hangs or disagrees. The bundle stays, marked as unverified.
        XaicError: Of the kind that fits what is wrong, before anything is written.
    """
    parts = _target(target)
    with output(out, "bundle", overwrite=overwrite, inputs=[model, data]) as place:
        data = as_data(data, scale, offset)
        source = Bundle(pathlib.Path(model)) if isinstance(model, (str, pathlib.Path)) else None
        if source is not None and source.keras_model.is_file():
            small: Any = CompressedModel.load(source)
        else:
            small = load(model, allow_unsafe, data)
        loaded = small.model if isinstance(small, CompressedModel) else small
        does = infer_task(loaded, data, task, metric)
        data = with_task(data, does)
        settings = ["export", target, precision, list(float_layers), lookup, calibration, seed, scale, offset]
        if place.start(run_fingerprint(loaded, data, settings)):
            if Bundle(place.target).unverified.is_file():
                raise EdgeError(Bundle(place.target).unverified.read_text(encoding="utf-8").strip())
            return Bundle(pathlib.Path(out))
        bundle = tflite.export(
            small,
            place.work / "bundle",
            calibration=data.calibration(calibration, seed),
            target=parts,
            precision=precision,
            float_layers=float_layers,
            lookup=lookup,
            overwrite=True,
            warn=warn,
        )
        try:
            prove(bundle, parts, warn)
        except EdgeError:
            place.publish(bundle.path)  # it is there to be looked at
            raise
        place.publish(bundle.path)
    return Bundle(pathlib.Path(out))


def _target(name: str) -> tflite.Target:
    if name not in get_args(tflite.Target):
        raise PlanError(f"target is {name!r}", f"one of {', '.join(get_args(tflite.Target))}")
    return cast(tflite.Target, name)
